"""Commands that run: serve, tail -f while records arrive and the store comes and goes, drain, migrate."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from otel_audit.audit_record import Actor
from otel_audit.cli.options import store_config
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from tests.cli.conftest import Command
from tests.trail import COMMAND, Serving, clean_environment, land, record, serving

WRITER = """
import os, sys
from otel_audit.config import load
from otel_audit.pipeline import provider
from otel_audit.audit_record import Target
pipeline = provider.start(load().config, ship=False)
for number in range(20):
    target = Target("shop.Order", str(number))
    pipeline.logger.emit(pipeline.logger.record("shop.order.create", "CREATE", target=target))
os._exit(9)
"""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("running")) as server:
        yield server


def line_of(stream: IO[str]) -> str:
    """Wait for the next line, but not for ever."""
    ready, _, _ = select.select([stream], [], [], 30)
    assert ready, "nothing was written"
    return stream.readline()


def test_tail_follows_through_an_outage_and_ends_well_by_interrupt(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    follower: subprocess.Popen[str] | None = None
    first = record("a.b", "CREATE", at=time.time_ns(), actor=Actor("ana", "user"))
    second = record("a.b", "CREATE", at=time.time_ns(), actor=Actor("ben", "user"))
    try:
        with serving(tmp_path, "--clickhouse-port", port):
            follower = subprocess.Popen(
                [*COMMAND, "tail", "-f", "--json", "--interval", "0.1"],
                cwd=tmp_path,
                env=clean_environment(OTEL_AUDIT_STORE_URL=url, OTEL_AUDIT_STORE_TIMEOUT="5"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            assert follower.stdout is not None
            assert follower.stderr is not None
            land(StoreClient(url), [first])
            assert json.loads(line_of(follower.stdout))["id"] == first.id
        assert "trying again" in line_of(follower.stderr)
        with serving(tmp_path, "--clickhouse-port", port):
            assert "the store answers again" in line_of(follower.stderr)
            land(StoreClient(url), [second])
            assert json.loads(line_of(follower.stdout))["id"] == second.id
            follower.send_signal(signal.SIGINT)
            out, err = follower.communicate(timeout=30)
        assert (follower.returncode, out, err) == (0, "", "")
    finally:
        if follower is not None and follower.poll() is None:
            follower.kill()
            follower.communicate()


def test_a_real_terminal_gets_the_table_in_its_own_width(empty: Serving, tmp_path: Path) -> None:
    land(
        StoreClient(empty.clickhouse),
        [record("a.b", "UPDATE", at=time.time_ns(), actor=Actor("\x1b[2Jx", "user"), message="word " * 60)],
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", f"stty cols 72; {sys.executable} -c '{COMMAND[2]}' query"],
        cwd=tmp_path,
        env=clean_environment(OTEL_AUDIT_STORE_URL=empty.clickhouse, TERM="xterm-256color"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(30) == 0
    text = written.decode()
    assert "\x1b[" in text  # colours, on a terminal
    assert "\x1b[2J" not in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert any("\\x1b[2Jx" in line for line in lines)
    assert 60 < max(map(len, lines)) <= 72


def test_drain_sends_what_a_killed_process_left_and_says_how_much(
    command: Command, tmp_path: Path, empty: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_AUDIT_SINK_ENDPOINT", f"{empty.http}/v1/audit")
    done = subprocess.run([sys.executable, "-c", WRITER], cwd=tmp_path, check=False)
    assert done.returncode == 9
    waiting = json.loads(command("spool", "status", "--json").out)["waiting"]
    assert waiting >= 20
    done_draining = command("spool", "drain")
    assert done_draining.status == 0
    assert "0 left" in done_draining.out
    with AuditStore(empty.clickhouse) as store:
        assert len(store.query(target="shop.Order", action="CREATE", limit=100)) == 20
    assert json.loads(command("spool", "status", "--json").out)["waiting"] == 0


def test_drain_says_that_the_sink_is_not_there_and_keeps_everything(command: Command, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text('[sink]\nendpoint = "http://127.0.0.1:1/v1/audit"\n')
    subprocess.run([sys.executable, "-c", WRITER], cwd=tmp_path, check=False)
    waiting = json.loads(command("spool", "status", "--json").out)["waiting"]
    done = command("spool", "drain", "--timeout", "0.3")
    assert done.status == 3
    assert "0 records sent" in done.out
    assert "127.0.0.1:1" in done.err
    assert json.loads(command("spool", "status", "--json").out)["waiting"] == waiting


def test_migrate_finds_nothing_to_do_on_a_store_that_is_up_to_date(command: Command, empty: Serving) -> None:
    done = command("store", "migrate", "--url", empty.clickhouse)
    assert (done.status, done.out.strip()) == (0, "Nothing to do: the tables are up to date.")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], "token"),
        (["--http-port", "70000"], "--http-port"),
    ],
)
def test_serve_refuses_what_would_be_unsafe_or_impossible(
    command: Command, options: list[str], expected: str
) -> None:
    done = command("serve", *options)
    assert done.status in (2, 3)
    assert expected in done.err


def test_serve_says_who_holds_a_port_or_the_data(command: Command, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        port = server.http.rpartition(":")[2]
        taken = command("serve", "--data", str(tmp_path / "other"), "--http-port", port)
        assert taken.status == 3
        assert f"127.0.0.1:{port}" in taken.err
        ports = ("--http-port", "0", "--grpc-port", "0", "--clickhouse-port", "0")
        held = command("serve", "--data", str(tmp_path / "data"), *ports)
        assert held.status == 3
        assert str(server.pid) in held.err


def test_credentials_of_the_file_are_not_sent_to_another_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "otel-audit.toml").write_text(
        '[store]\nurl = "http://ours:8123"\ntoken = "ours"\nuser = "me"\n'
    )
    assert store_config(None, None, None, None, None, None).token == "ours"
    assert store_config(None, "http://ours:8123", None, None, None, None).token == "ours"
    other = store_config(None, "http://theirs:8123", None, None, None, None)
    assert (other.url, other.token, other.user) == ("http://theirs:8123", "", "")
    monkeypatch.setenv("OTEL_AUDIT_STORE_TOKEN", "meant for it")
    assert store_config(None, "http://theirs:8123", None, None, None, None).token == "meant for it"
