"""docs/policy.md: every configuration is loaded, every command is run and answers as the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from otel_audit.config import load
from otel_audit.config.sections.policy import CONDITIONS, OPTIONS
from tests.cli.conftest import Command
from tests.trail import Serving

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")
CONFIGURATIONS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
WITHIN_TEXT = [
    line
    for line in re.findall(r"`(?:otel-audit )?(explain \w+(?: [^`]+)?)`", PAGE)
    if not line.startswith("explain model")  # needs an application: tests/cli/test_explain.py
]
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """Return each command of the page and the output below it."""
    found = []
    for block in CONSOLE:
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            line, _, output = part.partition("\n")
            found.append((line.removeprefix("otel-audit "), output))
    return found


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations_are_accepted_without_a_note(text: str, tmp_path: Path) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text(text + "\n[redaction]\npersonal_numbers = true\n")
    loaded = load(file, environ={})
    assert loaded.config.policy
    assert loaded.notes == []


@pytest.mark.parametrize(("line", "output"), [step for step in steps() if "--dry-run" not in step[0]])
def test_answers_are_those_of_the_page(command: Command, tmp_path: Path, line: str, output: str) -> None:
    (tmp_path / "otel-audit.toml").write_text(CONFIGURATIONS[0])
    done = command(*shlex.split(line), width=1000)
    assert done.status == 0, done.err
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    assert [each.split() for each in shown.splitlines()] == [each.split() for each in output.splitlines()]


@pytest.mark.parametrize("line", [line for line, _ in steps() if "--dry-run" in line])
def test_dry_runs_are_understood(command: Command, trail: Serving, tmp_path: Path, line: str) -> None:
    (tmp_path / "changed.toml").write_text(CONFIGURATIONS[0])
    done = command(*shlex.split(line), "--url", trail.clickhouse)
    assert done.status == 0, done.err
    assert "would not be recorded" in done.out


@pytest.mark.parametrize("line", WITHIN_TEXT)
def test_commands_within_the_text_are_understood(command: Command, line: str) -> None:
    done = command(*shlex.split(line))
    assert done.status == 0, done.err


def test_page_names_every_condition_and_option() -> None:
    for name in (*CONDITIONS, "kind"):
        assert f"| `{name}` | " in PAGE
    for name in OPTIONS:
        assert f"`{name}" in PAGE
