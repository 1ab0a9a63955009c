"""``otel-audit tasks``: lists, and records of what never ran."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from tests.cli.conftest import Command
from tests.trail import Serving, land, record, serving

NOW: Final = time.time_ns()
MINUTE: Final = 60 * 10**9
EVIL: Final = "\x1b[2J=cmd()"


def told(task: str, event: str, minutes_ago: int, **values: Any) -> AuditRecord:
    return record(
        f"task.{event}",
        "PUBLISH" if event == "publish" else "EXECUTE",
        at=NOW - minutes_ago * MINUTE,
        log="activity",
        actor=Actor("7", "user", "ana"),
        target=Target("shop.ship", task),
        attributes={"task.queue": values.pop("queue", "orders"), "duration": 12},
        **values,
    )


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as running:
        client = StoreClient(running.clickhouse)
        land(
            client,
            [
                told("old", "publish", 90),
                told("new", "publish", 5),
                told("lost", "start", 80),
                told("bad", "run", 30, outcome="failure", error="Timeout"),
                told("twice", "publish", 20),
                told("twice", "start", 19),
                told("twice", "start", 9),
                told("twice", "run", 9),
                told(EVIL, "publish", 300, queue=EVIL),
            ],
        )
        client.close()
        yield running


def test_tasks_are_listed_by_their_state(running: Serving, command: Command) -> None:
    """As lines for a pipe, as a table, as JSON and as CSV, whatever their names do to a terminal."""
    at = ("--url", running.clickhouse)
    waiting = command("tasks", *at, "--state", "waiting", "--older-than", "60m")
    assert waiting.status == 0
    assert "shop.ship/old" in waiting.out
    assert "ana" in waiting.out
    assert "shop.ship/new" not in waiting.out
    table = command("tasks", *at, width=120)
    for word in ("waiting", "running", "failed", "Timeout", "done", "ran twice", "12.0 s"):
        assert word in table.out
    for done in (waiting, table, command("tasks", *at, "--json"), command("tasks", *at, "--csv")):
        assert "\x1b[2J" not in done.out
    found = [json.loads(line) for line in command("tasks", *at, "--ran-twice", "--json").out.splitlines()]
    assert [(each["id"], each["runs"], each["state"]) for each in found] == [("twice", 2, "done")]
    rows = list(csv.DictReader(io.StringIO(command("tasks", *at, "--name", "shop.*", "--csv").out)))
    assert len(rows) == 6
    assert {row["queue"] for row in rows} == {"orders", "\\x1b[2J=cmd()"}
    assert command("tasks", *at, "--queue", "mail").status == 1
    assert "valid are waiting" in command("tasks", *at, "--state", "lost").err


def test_what_never_ran_is_marked_once(running: Serving, command: Command, tmp_path: Path) -> None:
    """Through the sink that is configured; the next run finds nothing left to mark."""
    (tmp_path / "otel-audit.toml").write_text(
        f'[sink]\nendpoint = "{running.http}/v1/audit"\n[spool]\ndirectory = "{tmp_path}/spool"\n'
    )
    at = ("--url", running.clickhouse, "--mark-stale", "--older-than", "60m")
    first = command("tasks", *at)
    assert first.status == 0, first.err
    assert first.out.count("stale ") == 2
    again = command("tasks", *at)
    assert (again.status, again.out) == (0, "")
    with AuditStore(running.clickhouse) as store:
        assert {each.id for each in store.tasks(state="stale")} == {"old", EVIL}
        marked = store.query(kind="task", action="EXECUTE", outcome="unknown").entries
        assert len(marked) == 2
        assert {each.work.state for each in marked} == {"STALE"}
        assert abs(marked[0].timestamp - (NOW - 30 * MINUTE)) < 2 * MINUTE
        land(store._client, [told("old", "run", 0)])
        assert {each.id for each in store.tasks(state="stale")} == {EVIL}


def test_marking_needs_an_age_and_a_sink(running: Serving, command: Command) -> None:
    at = ("--url", running.clickhouse, "--mark-stale")
    assert "--older-than 60m" in command("tasks", *at).err
    assert "without --state" in command("tasks", *at, "--older-than", "60m", "--state", "running").err
    refused = command("tasks", *at, "--older-than", "60m")
    assert (refused.status, "no sink is configured" in refused.err) == (2, True)
