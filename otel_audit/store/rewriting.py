"""Bring rows of a former version to the form of this one, partition by partition, while the store is used.

Until then they are as good as new ones: each row says which form it has, and every answer is the same. What
changes is the room they take. The engine rewrites a partition by itself (a mutation), also after a restart,
and puts new parts in the place of the old ones when they are whole; so whoever stops can go on later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from otel_audit.errors import StoreError
from otel_audit.named_tuples import NamedTuple
from otel_audit.store import columns, schema
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import Execute

_EVERY: Final = 1.0
"""Seconds between two looks at what the engine is doing."""


class Former(NamedTuple):
    """A partition (``YYYYMM``) of a table, and how many of its rows are in a former form."""

    table: str
    partition: str
    rows: int


def former(execute: Execute, layout: Layout) -> list[Former]:
    """Return the partitions that have rows in a former form, the newest first."""
    each = " UNION ALL ".join(
        f"SELECT '{name}' AS name, toString(toYYYYMM(timestamp)) AS part, count() AS rows "
        f"FROM {layout.name(name)} WHERE attributes_form = 0 GROUP BY part"
        for name in (schema.events(log.name) for log in schema.LOGS)
    )
    rows = execute(f"SELECT name, part, rows FROM ({each}) ORDER BY part DESC, name")
    return [Former(str(name), str(part), int(count)) for name, part, count in rows]


def statement(layout: Layout, table: str, partition: str) -> str:
    """Return the statement that lets the engine rewrite a partition."""
    named, rest, form = columns.split_stored()

    def inlined(sql: str) -> str:
        return re.sub(rf"\b({'|'.join(named)})\b", lambda match: f"({inlined(named[match[0]])})", sql)

    observed = columns.observed_after("attributes", "timestamp")
    return (
        f"ALTER TABLE {layout.name(layout.stored(table))}{layout.on_cluster} "
        f"UPDATE attributes = {inlined(rest)}, attributes_form = {inlined(form)}, "
        f"observed_after = if(ordinal = 0, {observed}, 0) "
        f"IN PARTITION ID '{partition}' WHERE attributes_form = 0"
    )


def rewrite(
    execute: Execute,
    layout: Layout,
    *,
    begun: Callable[[Former], object] = lambda _: None,
    stopped: Callable[[float], bool],
) -> bool:
    """Rewrite what is in a former form; return whether nothing is left.

    Args:
        execute: runs a statement.
        layout: where the tables are.
        begun: is told of each partition.
        stopped: waits for some seconds, and says whether to stop; what was begun the engine goes on with.

    Raises:
        StoreError: the engine cannot rewrite a partition; the message says why.
    """
    while left := former(execute, layout):
        running = _running(execute, layout)
        if not running:
            begun(left[0])
            execute(statement(layout, left[0].table, left[0].partition))
        while _running(execute, layout):
            if stopped(_EVERY):
                return False
        if not running and left[0] in former(execute, layout):
            raise StoreError(
                f"partition {left[0].partition} of {left[0].table} was not rewritten; its records are as "
                "they were, and are found as before"
            )
    return True


def _running(execute: Execute, layout: Layout) -> bool:
    """Say whether the engine is rewriting; it goes on trying what fails, so that is given up."""
    rows = execute(
        f"SELECT table, mutation_id, latest_fail_reason FROM {layout.everywhere('mutations')} "
        f"WHERE database = '{layout.database}' AND NOT is_done AND command LIKE '%attributes_form%'"
    )
    for table, mutation, reason in rows:
        if reason:
            execute(
                f"KILL MUTATION{layout.on_cluster} WHERE database = '{layout.database}' "
                f"AND table = '{table}' AND mutation_id = '{mutation}'"
            )
            raise StoreError(f"{table} cannot be rewritten: {reason}")
    return bool(rows)
