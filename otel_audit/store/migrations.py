"""Bring a database to the current schema: each step once, in order, whatever was done before.

The same steps run against the embedded engine, a ClickHouse server and a cluster; ``execute`` is all they
need. First the state of the database is read, then what is missing is planned, then the plan is run: so the
plan can be shown instead. A step is a list of statements that may be run again after a crash in the middle.
Views are not steps: they follow the code (:mod:`otel_audit.semconv` names the attributes they read), and are
altered in place when it has changed. In place, because the landing tables keep nothing: between dropping a
view and creating it, records would be lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from otel_audit.errors import StoreError
from otel_audit.store import schema, tables
from otel_audit.store.layout import Layout
from otel_audit.store.retention import NOTHING, Retention
from otel_audit.store.tables import CURRENT, JOURNAL, UNCHANGED
from otel_audit.version import __version__

Execute = Callable[[str], Sequence[Sequence[Any]]]
"""Run one statement; give the rows of a SELECT, each a sequence of values."""


class State(msgspec.Struct, frozen=True):
    """What a database has.

    ``hosts`` has the tables and views of each host, by its name; the only one of a single server has none.
    ``definitions`` are the statements that made what only some hosts of a cluster have. From the journal: the
    version of the steps, that of each log, the checksum of each view, how long the logs are kept, and the
    selection of indexes.
    """

    hosts: dict[str, frozenset[str]] = {}
    definitions: dict[str, str] = {}
    version: int = 0
    logs: dict[str, int] = {}
    views: dict[str, str] = {}
    retention: Retention = NOTHING
    indexes: str = "all"

    @property
    def found(self) -> frozenset[str]:
        """What every host has."""
        return frozenset.intersection(*self.hosts.values()) if self.hosts else frozenset()


class Change(msgspec.Struct, frozen=True):
    """Something to apply: its name, and its statements in order, the note in the journal last."""

    name: str
    statements: tuple[str, ...]


def migrate(
    execute: Execute, layout: Layout | str = "otel", retention: Retention = NOTHING, indexes: str = UNCHANGED
) -> list[str]:
    """Apply what is missing; give the names of what was applied, none if all was there.

    Args:
        layout: the database, or the database and its cluster.
        retention: how long logs are kept; a log it does not name stays as it is.
        indexes: a key of :data:`~otel_audit.store.tables.INDEXES`, or ``unchanged``.

    Raises:
        StoreError: the database was written by a newer otel-audit, or has tables that are not ours.
    """
    layout = Layout(layout) if isinstance(layout, str) else layout
    changes = plan(read_state(execute, layout), layout, retention, indexes)
    for change in changes:
        for statement in change.statements:
            execute(statement)
    return [change.name for change in changes if change.name]


def read_state(execute: Execute, layout: Layout) -> State:
    """Read what a database has.

    Raises:
        StoreError: it was written by a newer otel-audit, or has a table of one of our names, but no record of
            our migrations; or there is no such cluster.
    """
    hosts = _hosts(execute, layout)
    found = frozenset[str]().union(*hosts.values())
    if schema.MIGRATIONS not in found:
        if schema.EVENTS in found:
            raise StoreError(
                f"database {layout.database!r} has a table {schema.EVENTS}, but no {schema.MIGRATIONS}, "
                "so it is not a store of otel-audit; set `database` in [store] to another name"
            )
        return State(hosts)
    _check_layout(execute, layout, hosts)
    version = 0
    noted: dict[str, dict[str, str]] = {}
    logs: dict[str, int] = {}
    for kind, name, number, checksum in execute(
        "SELECT kind, name, max(version), argMax(checksum, applied_at) "
        f"FROM {layout.name(schema.MIGRATIONS)} GROUP BY kind, name"
    ):
        if kind == "tables":
            version = max(version, int(number))
        elif kind == "log":
            logs[str(name)] = int(number)
        else:
            noted.setdefault(str(kind), {})[str(name)] = str(checksum)
    if version > CURRENT:
        raise StoreError(
            f"database {layout.database!r} has schema version {version}, but otel-audit {__version__} "
            f"supports only {CURRENT}; install the newer otel-audit that wrote it"
        )
    definitions = _definitions(execute, layout, hosts)
    indexes = noted.get("indexes", {}).get("records", "all")
    return State(hosts, definitions, version, logs, noted.get("view", {}), Retention.noted(noted), indexes)


def _check_layout(execute: Execute, layout: Layout, hosts: dict[str, frozenset[str]]) -> None:
    """Refuse a database of the other layout, and a host that cannot tell the state of the cluster yet."""
    found = frozenset[str]().union(*hosts.values())
    local = Layout(layout.database, "any").stored(schema.EVENTS)
    if not layout.cluster:
        if local in found:
            raise StoreError(
                f"database {layout.database!r} is on a cluster; set its name with --cluster, or "
                "`cluster` in [store]"
            )
        return
    if schema.EVENTS in found and local not in found:
        raise StoreError(
            f"database {layout.database!r} belongs to a single server: it has {schema.EVENTS}, but no "
            f"{local}. Choose another `database` for the cluster, and copy the records"
        )
    asked = str(execute("SELECT hostName()")[0][0])
    if schema.MIGRATIONS not in hosts.get(asked, frozenset()):
        knowing = [host for host, names in hosts.items() if schema.MIGRATIONS in names]
        raise StoreError(
            f"host {asked} has no tables yet, so it does not know those of the cluster; use the --url "
            f"of a host that has them, such as {knowing[0]}: it creates them on all hosts"
        )


def _hosts(execute: Execute, layout: Layout) -> dict[str, frozenset[str]]:
    condition = f"WHERE database = '{layout.database}'"
    if not layout.cluster:
        rows = execute(f"SELECT name FROM system.tables {condition}")
        return {"": frozenset(str(row[0]) for row in rows)}
    known = [str(row[0]) for row in execute("SELECT DISTINCT cluster FROM system.clusters ORDER BY cluster")]
    if layout.cluster not in known:
        raise StoreError(f"the server has no cluster {layout.cluster!r}; it has {', '.join(known) or 'none'}")
    # A host without any of our tables has a row as well: of system.one.
    return {
        str(host): frozenset(str(name) for name in names if name)
        for host, names in execute(
            "SELECT host, groupUniqArray(name) FROM ("
            f"SELECT hostName() AS host, '' AS name FROM clusterAllReplicas('{layout.cluster}', system.one) "
            "UNION ALL SELECT hostName() AS host, name FROM "
            f"clusterAllReplicas('{layout.cluster}', system.tables) {condition}) GROUP BY host ORDER BY host"
        )
    }


def _definitions(execute: Execute, layout: Layout, hosts: dict[str, frozenset[str]]) -> dict[str, str]:
    """Return how this host made what another one lacks."""
    some = sorted(frozenset[str]().union(*hosts.values()) - frozenset.intersection(*hosts.values()))
    if not some:
        return {}
    listed = ", ".join(f"'{name}'" for name in some)
    return {
        str(name): str(statement)
        for name, statement in execute(
            "SELECT name, create_table_query FROM system.tables "
            f"WHERE database = '{layout.database}' AND name IN ({listed})"
        )
    }


def plan(
    state: State, layout: Layout, retention: Retention = NOTHING, indexes: str = UNCHANGED
) -> list[Change]:
    """Say what brings a database from its state to the current one; the change without a name prepares it."""
    changes = [
        *_steps(state, layout),
        *_indexes(state, layout, state.indexes if indexes == UNCHANGED else indexes),
        *(change for view in schema.VIEWS if (change := _view(state, layout, view))),
        *_retired(state, layout),
        *_retention(state, layout, retention),
    ]
    return [Change("", foundation(layout)), *changes] if changes else []


def foundation(layout: Layout) -> tuple[str, ...]:
    """Return the statements that come first: the database, and the journal of what was applied."""
    return f"CREATE DATABASE IF NOT EXISTS {layout.database}{layout.on_cluster}", *layout.create(JOURNAL)


def expected(layout: Layout) -> frozenset[str]:
    """Name every table and view a current database has, on each of its hosts."""
    names = {name for _, _, table in _tables() for name in layout.names(table)}
    return frozenset(names | {view.name for view in schema.VIEWS} | {JOURNAL.name})


def _tables() -> Iterator[tuple[int, str, tables.Table]]:
    """Return the tables of each step, by number and log; the log is empty for a table they share."""
    for number, step in enumerate(tables.STEPS, start=1):
        for table in step.tables:
            if table.each_log:
                yield from ((number, log.name, table.of(log.name)) for log in schema.LOGS)
            else:
                yield number, "", table


def _steps(state: State, layout: Layout) -> Iterator[Change]:
    made = set(state.found)
    for number, step in enumerate(tables.STEPS, start=1):
        statements: list[str] = []
        behind: list[str] = []
        restored: list[str] = []
        changed: list[str] = []
        for _, log, table in (each for each in _tables() if each[0] == number):
            for name, statement in zip(layout.names(table), layout.create(table), strict=True):
                if name not in made:
                    statements.append(layout.as_elsewhere(name, state.definitions.get(name, "")) or statement)
                    made.add(name)
                    restored.append(name)
            if log and state.logs.get(log, 0) < number and log not in behind:
                behind.append(log)
        for log, addition in (
            (each.name, add.of(each.name)) for each in schema.LOGS for add in step.additions
        ):
            late = state.logs.get(log, 0) < number
            # A table that is made again has what it was released with.
            if (late or addition.table.name not in state.found) and (added := list(layout.add(addition))):
                statements += added
                changed.append(addition.table.name)
            if late and log not in behind:
                behind.append(log)
        notes = [_note(layout, "log", log, number) for log in behind]
        if number > state.version:
            yield Change(step.name, (*statements, *notes, _note(layout, "tables", step.name, number)))
        elif behind:
            yield Change(f"{step.name}: {', '.join(behind)}", (*statements, *notes))
        elif restored:
            yield Change(f"missing tables: {', '.join(restored)}", (*statements,))
        elif changed:
            yield Change(f"missing columns: {', '.join(changed)}", (*statements,))


def _view(state: State, layout: Layout, view: schema.View) -> Change | None:
    checksum = hashlib.sha256(layout.select(view).encode()).hexdigest()
    missing = view.name not in state.found
    outdated = view.name in state.views and state.views[view.name] != checksum
    if not missing and state.views.get(view.name) == checksum:
        return None
    # Made and not noted, by a run that stopped between the two: then only the note is missing.
    note = _note(layout, "view", view.name, 0, checksum)
    return Change(view.name, (*layout.view(view, missing=missing, outdated=outdated), note))


def _retired(state: State, layout: Layout) -> Iterator[Change]:
    for name in schema.RETIRED_VIEWS:
        if any(name in found for found in state.hosts.values()):
            yield Change(f"{name} dropped", (f"DROP VIEW IF EXISTS {layout.name(name)}{layout.on_cluster}",))


def _indexes(state: State, layout: Layout, wanted: str) -> Iterator[Change]:
    events = [schema.events(log.name) for log in schema.LOGS]
    if wanted == state.indexes:  # a table that is made now has all
        events = [] if wanted == "all" else [each for each in events if each not in state.found]
    if events:
        statements = [statement for each in events for statement in layout.index(each, wanted)]
        note = _note(layout, "indexes", "records", 0, wanted)
        yield Change(f"indexes: {wanted}", (*statements, note))


def _retention(state: State, layout: Layout, wanted: Retention) -> Iterator[Change]:
    after = state.retention.overlaid(wanted)
    there = frozenset[str]().union(*state.hosts.values())
    statements = after.statements(state.retention, layout, there)
    notes = [
        _note(layout, kind, name, 0, value)
        for kind, name, value in after.notes()
        if (kind, name, value) not in set(state.retention.notes())
    ]
    if statements or notes:
        yield Change(f"retention: {wanted}", (*statements, *notes))


def _note(layout: Layout, kind: str, name: str, version: int, checksum: str = "") -> str:
    return (
        f"INSERT INTO {layout.name(schema.MIGRATIONS)} (kind, name, version, checksum, applied_by) "
        f"VALUES ('{kind}', '{name}', {version}, '{checksum}', 'otel-audit {__version__}')"
    )
