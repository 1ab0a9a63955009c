"""What a store has and what it lacks, for people and for monitoring: `otel-audit store status`."""

from __future__ import annotations

from typing import Final

import msgspec

from otel_audit.store import schema
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import Execute, State, expected, plan, read_state
from otel_audit.store.tables import CURRENT

_TIMES: Final = {
    **{schema.events(log.name): "timestamp" for log in schema.LOGS},
    schema.LOGS_TABLE: "Timestamp",
    schema.TRACES: "Timestamp",
    schema.METRICS: "Timestamp",
}
"""The tables that are told of, and the column of their time."""


class TableStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One table on one host: its rows and parts there, and the times of the oldest and newest row of all.

    ``bytes`` are those on disk. Times are nanoseconds since the epoch, 0 in an empty table. ``retention`` is
    the rule that deletes or moves rows, empty if all is kept where it is.
    """

    host: str
    name: str
    rows: int = 0
    bytes: int = 0
    parts: int = 0
    oldest: int = 0
    newest: int = 0
    retention: str = ""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A replicated table on one host: whether it takes writes, how far it is behind, what it has to fetch."""

    host: str
    name: str
    readonly: bool
    delay: int
    queue: int


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole store.

    ``pending`` names what the next migration would apply, ``missing`` what each host lacks of the tables and
    views of the current version.
    """

    database: str
    cluster: str
    version: int
    current: int = CURRENT
    pending: list[str] = []
    missing: dict[str, list[str]] = {}
    tables: list[TableStatus] = []
    replicas: list[ReplicaStatus] = []

    @property
    def complete(self) -> bool:
        """Whether all is there, current, and takes writes."""
        return not self.pending and not any(self.missing.values()) and not self.stuck

    @property
    def stuck(self) -> list[ReplicaStatus]:
        """Replicas that take no writes."""
        return [each for each in self.replicas if each.readonly]


def read_status(execute: Execute, layout: Layout) -> StoreStatus:
    """Ask a store how it is.

    Raises:
        StoreError: it cannot be reached, or its database is not one of ours; see ``read_state``.
    """
    state = read_state(execute, layout)
    wanted = expected(layout)
    return StoreStatus(
        database=layout.database,
        cluster=layout.cluster,
        version=state.version,
        pending=[change.name for change in plan(state, layout) if change.name],
        missing={host: sorted(wanted - names) for host, names in state.hosts.items() if wanted - names},
        tables=_tables(execute, layout, state),
        replicas=_replicas(execute, layout) if layout.cluster else [],
    )


def _tables(execute: Execute, layout: Layout, state: State) -> list[TableStatus]:
    stored = {layout.stored(name): name for name in _TIMES}
    times = {
        name: [int(value) for value in execute(_span(layout.name(name), column))[0]]
        for name, column in _TIMES.items()
        if name in state.found
    }
    sizes: dict[tuple[str, str], list[int]] = {}
    for host, name, *figures in execute(
        f"SELECT hostName() AS host, table, sum(rows), sum(bytes_on_disk), count() "
        f"FROM {layout.everywhere('parts')} WHERE database = '{layout.database}' AND active "
        "GROUP BY host, table"
    ):
        sizes[str(host) if layout.cluster else "", str(name)] = [int(figure) for figure in figures]
    rules = state.retention.clauses()
    return [
        TableStatus(
            host=host,
            name=name,
            rows=rows,
            bytes=size,
            parts=parts,
            oldest=oldest,
            newest=newest,
            retention=rules[name],
        )
        for host, names in state.hosts.items()
        for own, name in stored.items()
        if own in names
        for rows, size, parts in [sizes.get((host, own), [0, 0, 0])]
        for oldest, newest in [times.get(name, [0, 0])]
    ]


def _span(table: str, column: str) -> str:
    # The smallest of no rows is 1970, which is 0; the engine answers from the heads of its parts.
    return f"SELECT toUnixTimestamp64Nano(min({column})), toUnixTimestamp64Nano(max({column})) FROM {table}"


def _replicas(execute: Execute, layout: Layout) -> list[ReplicaStatus]:
    return [
        ReplicaStatus(
            host=str(host), name=str(name), readonly=bool(readonly), delay=int(delay), queue=int(queue)
        )
        for host, name, readonly, delay, queue in execute(
            "SELECT hostName() AS host, table, is_readonly, absolute_delay, queue_size "
            f"FROM {layout.everywhere('replicas')} WHERE database = '{layout.database}' "
            "ORDER BY host, table"
        )
    ]
