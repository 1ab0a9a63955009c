"""docs/propagation.md: its settings are settings, its steps work, and its lists are complete."""

from __future__ import annotations

import re
import subprocess
import typing
from pathlib import Path

import pytest

from otel_audit.config.context_keys import read_keys
from otel_audit.config.loader import load
from otel_audit.propagation.signed_context import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "propagation.md").read_text("utf-8")


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_each_configuration_of_the_page_is_one(tmp_path: Path, block: str) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text(block)
    loaded = load(file, environ={})
    assert loaded.origins
    assert not [note for note in loaded.notes if "context" in note]


def test_the_command_of_the_page_makes_a_key() -> None:
    [command] = re.findall(r"^\$ (export .*)$", PAGE, re.MULTILINE)
    made = subprocess.run(
        ["bash", "-c", f'{command}; printf %s "$OTEL_AUDIT_CONTEXT_KEYS"'],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    keys = read_keys(load(environ={"OTEL_AUDIT_CONTEXT_KEYS": made}).config.context)
    assert (keys.signing, keys.problems) == ("2026-11", ())


def test_the_page_names_every_reason_of_a_refusal() -> None:
    table = PAGE.partition("| `error.type` | why |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`(?=[,` |])", table)) >= set(typing.get_args(Reason))
