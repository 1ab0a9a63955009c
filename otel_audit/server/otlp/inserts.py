"""One insert for the rows of several requests to one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otel_audit.server.engine.engine import EngineError
from otel_audit.server.otlp.few_rows import MOST, few_rows
from otel_audit.server.otlp.rows import Rows, log_rows
from otel_audit.store.tables import INDEXES_THAT_WAIT

if TYPE_CHECKING:
    from otel_audit.server.engine.engine import Connection

_INDEXED: Final = 1024
_INDEXED_BYTES: Final = 1024 * 1024
"""A group above either is indexed at once: below, a question reads all rows as fast as their indexes."""


def together(rows: Rows) -> tuple[str, str]:
    """Return what requests must have in common to be inserted together."""
    return rows.table, rows.select


def insert_rows(connection: Connection, database: str, group: Sequence[Rows]) -> None:
    """Insert the rows of requests that go together; durable and visible on return.

    Raises:
        EngineError: nothing was inserted, or not everything.
    """
    first = group[0]
    table = f"{database}.{first.table}"
    blocks = [rows.block for rows in group]
    size = sum(rows.size for rows in group)
    few = size <= _INDEXED and sum(map(len, blocks)) <= _INDEXED_BYTES
    without = ",".join(INDEXES_THAT_WAIT) if few else ""
    if first.select and size <= MOST and (block := few_rows(first.table, b"".join(blocks))):
        connection.insert(table, first.columns, "Native", [block], without=without)
        return
    if not first.select:
        connection.insert(table, first.columns, "Native", blocks, without=without)
        return
    try:
        connection.insert_selected(table, first.columns, first.select, blocks, without=without)
    except EngineError:
        if len(group) > 1:
            raise
        # The engine finds it other than it looked, or cannot read it: its rows are made the long way.
        for rows in log_rows(first.block):
            insert_rows(connection, database, [rows])
