"""The newest records of a store as they were made, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_audit.audit_record import AuditRecord
from otel_audit.errors import InvalidRecord
from otel_audit.semconv import from_attributes
from otel_audit.store.client import StoreClient
from otel_audit.store.columns import whole
from otel_audit.store.filters import EVERY_LOG, Conditions, log_conditions, tables, union

_AT_ONCE: Final = 500  # a record may have a megabyte


def recent_records(client: StoreClient, database: str, most: int) -> Iterator[AuditRecord]:
    """Return the newest records of all logs but ``access``, newest first; unreadable ones are left out."""
    cursor: tuple[int, str] | None = None
    while most > 0:
        wanted = min(most, _AT_ONCE)
        where = Conditions()
        where.add("ordinal = 0")
        log_conditions(where, EVERY_LOG)
        if cursor is not None:
            where.add("(timestamp, record_id) < (fromUnixTimestamp64Nano({Int64}, 'UTC'), {UUID})", *cursor)
        each = [
            f"SELECT toUnixTimestamp64Nano(timestamp) AS at, toString(record_id) AS id, {whole()} AS "
            f"all_attributes, trace_id, span_id, message FROM {database}.{table} WHERE {where} "
            f"ORDER BY timestamp DESC, record_id DESC LIMIT 1 BY timestamp, record_id LIMIT {wanted}"
            for table in tables(EVERY_LOG)
        ]
        rows = client.query(
            f"{union(each)} ORDER BY at DESC, toUUID(id) DESC LIMIT {wanted}", where.parameters
        )
        for row in rows:
            cursor = int(row["at"]), str(row["id"])
            try:
                yield from_attributes(
                    row["all_attributes"],
                    timestamp=cursor[0],
                    trace_id=row["trace_id"],
                    span_id=row["span_id"],
                    message=row["message"],
                )
            except InvalidRecord:  # of a newer version
                continue
        most -= wanted
        if len(rows) < wanted:
            return
