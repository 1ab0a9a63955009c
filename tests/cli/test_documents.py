"""The pages about asking are run: every command of docs/cli.md, every block of docs/query.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.trail import Serving

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> list[str]:
    text = (DOCS / "cli.md").read_text("utf-8")
    lines = [
        line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    return [line.removeprefix("$ otel-audit ").partition(" | ")[0] for line in lines]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_page_are_understood(ask: Command, line: str) -> None:
    done = ask(*shlex.split(line))
    assert done.status in (0, 1), done.err


def test_page_names_every_command() -> None:
    from otel_audit.cli.app import app

    text = (DOCS / "cli.md").read_text("utf-8")
    for command in app.registered_commands:
        assert f"`otel-audit {command.name}" in text
    for group in app.registered_groups:
        assert f"`otel-audit {group.typer_instance.info.name} " in text  # type: ignore[union-attr]


def test_blocks_of_the_python_page_run_from_top_to_bottom(
    trail: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "query.md").read_text("utf-8").replace("http://127.0.0.1:8123", trail.clickhouse)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, Any] = {}
    for block in blocks:
        code = block.replace("load().config.store", f"{trail.clickhouse!r}").replace(
            '"2 hours ago"', '"2026-11-01"'
        )
        exec(compile(code, "docs/query.md", "exec"), names)
    out = capsys.readouterr().out
    assert "ana UPDATE shop.Order/7 status new → paid" in out
    assert "shop.order.create success\nshop.order.update success" in out
    assert "POST /orders/ 2 0" in out
    assert "time 'soon' is not valid" in out
