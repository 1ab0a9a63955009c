"""Tasks by their state: published and never ran, running, ended, told from the records tied by their id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel_audit.audit_record import UNKNOWN, Actor, Target, uuid7
from otel_audit.errors import QueryError
from otel_audit.semconv import TASK_ETA
from otel_audit.store.columns import attribute_names
from otel_audit.store.filters import MOMENT, Conditions, Query, pattern_condition, tables, union
from otel_audit.store.times import format_iso
from otel_audit.store.work import KINDS

STATES: Final = ("waiting", "stale", "running", "failed", "done")
LOG: Final = "activity"
"""The log that has the records of tasks."""
_LAST_MILLISECOND: Final = (2**63 - 1) // 10**6
_ETA: Final = f"JSONExtractString(attributes['{attribute_names('attributes')[0]}'], '{TASK_ETA}')"


class TaskEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task; times are nanoseconds since the epoch, 0 where nothing is recorded of it.

    ``since`` is when its state began: when it was due, started or ended, or when it was found stale. ``runs``
    is how often it was begun, ``retries`` how often it asked to be tried again, so more runs than retries and
    one mean that it ran twice. ``publisher`` is who published it, ``request_id`` the request that did.
    ``last`` is the id of its newest record.
    """

    name: str
    id: str
    state: str
    since: int
    published: int = 0
    started: int = 0
    ended: int = 0
    runs: int = 0
    retries: int = 0
    queue: str = ""
    duration: float = 0.0
    outcome: str = ""
    error: str = ""
    service: str = ""
    publisher: Actor = Actor()
    request_id: str = ""
    last: str = ""

    @property
    def target(self) -> Target:
        """The target of its records."""
        return Target(self.name, self.id)

    @property
    def ran_twice(self) -> bool:
        """Whether it was begun more often than it was asked to."""
        return self.runs > self.retries + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the task as plain data for JSON, times in ISO 8601 in UTC; empty values are absent."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        times = ("since", "published", "started", "ended")
        return plain | {name: format_iso(plain[name]) for name in times if name in plain}


def select(
    database: str,
    *,
    state: str | None = None,
    name: str | None = None,
    queue: str | None = None,
    since: int | None = None,
    until: int | None = None,
    before: int | None = None,
    ran_twice: bool = False,
    limit: int = 100,
) -> Query:
    """Return the statement for tasks, those whose state began last first.

    Records that were sent twice are merged by their ids. By the clocks of two machines a task may run before
    it was published: one that ran never waits, whatever the times.

    Args:
        database: where the tables are.
        state: one of :data:`STATES`.
        name, queue: of the task; a pattern if it contains ``*``.
        since, until: when it was first heard of, in nanoseconds since the epoch.
        before: its state began before this.
        ran_twice: only tasks that were begun more often than asked to.
        limit: how many.

    Raises:
        QueryError: there is no such state.
    """
    if state is not None and state not in STATES:
        raise QueryError(f"state {state!r} does not exist; valid are {', '.join(STATES)}")
    where = Conditions()
    if since is not None:
        where.add(f"timestamp >= {MOMENT}", since)
    where.add("event_name IN {Array(String)}", list(KINDS["task"]))
    where.add("ordinal = 0")
    if name is not None:
        pattern_condition(where, "target_type", name)
    columns = (
        "target_type, target_id, event_name, timestamp, record_id, outcome, error, service, actor_id, "
        f"actor_type, actor_name, request_id, work.duration AS lasted, work.queue AS its_queue, {_ETA} AS eta"
    )
    each = [f"SELECT {columns} FROM {database}.{table} WHERE {where}" for table in tables(LOG)]
    having = Conditions(where.parameters)
    if until is not None:
        having.add("first < {Int64}", until)
    if state is not None:
        having.add("state = {String}", state)
    if before is not None:
        having.add("since < {Int64}", before)
    if queue is not None:
        pattern_condition(having, "queue", queue)
    if ran_twice:
        having.add("runs > retries + 1")
    state_ = (
        "multiIf(is_over AND how = 'success', 'done', is_over, 'failed', "
        "is_refused AND start = 0 AND retry = 0, 'failed', is_running, 'running', "
        "stale > 0 AND stale >= greatest(publish, retry), 'stale', 'waiting')"
    )
    since_ = (
        "multiIf(is_over, ended, is_running, start, state = 'failed', publish, state = 'stale', stale, "
        "greatest(publish, retry, due))"
    )
    sql = (
        "SELECT *, greatest(start, run) AS started, "
        "if(is_over, run + if(run > start AND start > 0, 0, toInt64(duration * 1e9)), 0) AS ended, "
        f"{state_} AS state, {since_} AS since "
        f"FROM ({_each_task(union(each))}) WHERE {having} ORDER BY since DESC, id LIMIT {int(limit)}"
    )
    return Query(sql, where.parameters)


def _each_task(rows: str) -> str:
    """Return the SELECT of one row per task from those of its records.

    The record of a try has the time at which it began, and how long it took.
    """

    def when(event: str) -> str:
        last = f"toUnixTimestamp64Nano(maxIf(timestamp, event_name = 'task.{event}'))"
        return f"if(countIf(event_name = 'task.{event}') = 0, toInt64(0), {last})"

    def last(column: str, event: str) -> str:
        return f"argMaxIf({column}, timestamp, event_name = 'task.{event}')"

    def times(event: str) -> str:
        return f"toInt64(uniqExactIf(record_id, event_name = 'task.{event}'))"

    due = "toUnixTimestamp64Milli(parseDateTime64BestEffortOrNull(max(eta), 3, 'UTC'))"
    columns = {
        "name": "target_type",
        "id": "target_id",
        "first": "toUnixTimestamp64Nano(min(timestamp))",
        **{name: when(name) for name in ("publish", "start", "run", "retry", "stale")},
        "retries": times("retry"),
        "runs": f"greatest({times('start')}, {times('run')} + retries)",
        "is_over": "run > 0 AND run >= start AND run >= retry",
        "is_running": "NOT is_over AND start > retry",
        "is_refused": f"publish > 0 AND {last('outcome', 'publish')} = 'failure'",
        "how": f"multiIf(is_over, toString({last('outcome', 'run')}), is_refused, 'failure', '')",
        "error_": f"if(is_over, {last('error', 'run')}, {last('error', 'publish')})",
        "duration": f"if(is_over, {last('lasted', 'run')}, 0)",
        "queue": "anyIf(its_queue, its_queue != '')",
        "service_": "argMax(service, timestamp)",
        "due": f"least(toInt64(ifNull({due}, 0)), {_LAST_MILLISECOND}) * 1000000",
        **{
            f"{name}_": last(name, "publish")
            for name in ("actor_id", "actor_type", "actor_name", "request_id")
        },
        "last": "toString(argMax(record_id, timestamp))",
    }
    listed = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    return f"SELECT {listed} FROM ({rows}) GROUP BY name, id"


def task(row: Mapping[str, Any]) -> TaskEntry:
    """Decode a row of :func:`select`."""
    return TaskEntry(
        name=row["name"],
        id=row["id"],
        state=row["state"],
        since=int(row["since"]),
        published=int(row["publish"]),
        started=int(row["started"]),
        ended=int(row["ended"]),
        runs=int(row["runs"]),
        retries=int(row["retries"]),
        queue=row["queue"],
        duration=float(row["duration"]),
        outcome=row["how"],
        error=row["error_"],
        service=row["service_"],
        publisher=Actor(row["actor_id_"] or UNKNOWN, row["actor_type_"] or "unknown", row["actor_name_"]),
        request_id=row["request_id_"],
        last=row["last"],
    )


def stale_id(task: TaskEntry, at: int) -> str:
    """Return the id of the record that says a task is stale since ``at``: whoever finds out, the same."""
    text = f"{task.name}\0{task.id}\0{task.since}\0{at}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return uuid7(at // 10**6, int.from_bytes(digest[:10], "big"))
