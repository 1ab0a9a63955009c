"""The command line in this process: fast, and with everything it writes at hand."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.rich_utils  # noqa: F401 - it looks once, when imported, whether colours are forced

from otel_audit.cli.app import run
from otel_audit.store.client import StoreClient
from tests.cli.afternoon import RECORDS, SPANS
from tests.trail import Serving, land, land_span, serving


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory, and an environment that says nothing of us."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "DJANGO_", "FORCE_COLOR", "NO_COLOR", "TTY_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``otel-audit`` with arguments; ``width`` makes the output a terminal of that many columns."""

    def run_command(*arguments: str, width: int | None = None) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["otel-audit", *arguments])
            if width is not None:
                patch.setenv("FORCE_COLOR", "1")
                patch.setenv("COLUMNS", str(width))
            with pytest.raises(SystemExit) as left:
                run()
        captured = capsys.readouterr()
        return Done(int(left.value.code or 0), captured.out, captured.err)

    return run_command


@pytest.fixture(scope="session")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A store with one afternoon in it."""
    with serving(tmp_path_factory.mktemp("trail")) as server:
        client = StoreClient(server.clickhouse)
        land(client, RECORDS)
        for span in SPANS:
            land_span(client, **span)
        client.close()
        yield server


@pytest.fixture
def ask(command: Command, trail: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Do what ``command`` does, with the afternoon's store configured, in Tokyo."""
    monkeypatch.setenv("OTEL_AUDIT_STORE_URL", trail.clickhouse)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield command
    time.tzset()
