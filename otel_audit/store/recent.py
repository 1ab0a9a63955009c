"""The newest records of a store as they were made, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_audit.audit_record import AuditRecord
from otel_audit.errors import InvalidRecord
from otel_audit.store.client import Ask
from otel_audit.store.filters import EVERY_LOG, Conditions, behind, log_conditions, tables, union
from otel_audit.store.lookup import AS_MADE, as_made

_AT_ONCE: Final = 500  # a record may have a megabyte


def recent_records(ask: Ask, database: str, most: int) -> Iterator[AuditRecord]:
    """Return the newest records of all logs but ``access``, newest first; unreadable ones are left out."""
    last: tuple[int, str] | None = None
    while most > 0:
        wanted = min(most, _AT_ONCE)
        where = Conditions()
        where.add("ordinal = 0")
        log_conditions(where, EVERY_LOG)
        if last is not None:
            behind(where, *last)
        each = [
            f"SELECT {AS_MADE}, toString(record_id) AS id FROM {database}.{table} WHERE {where} "
            f"ORDER BY timestamp DESC, record_id DESC LIMIT {wanted}"
            for table in tables(EVERY_LOG)
        ]
        rows = ask(f"{union(each)} ORDER BY at DESC, toUUID(id) DESC LIMIT {wanted}", where.parameters)
        for row in rows:
            found = int(row["at"]), str(row["id"])
            if found == last:  # sent twice: its rows are side by side, see filters.select()
                continue
            last = found
            most -= 1
            try:
                yield as_made(row)
            except InvalidRecord:  # of a newer version
                continue
        if len(rows) < wanted:
            return
