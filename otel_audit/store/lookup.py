"""One record by its id: looked for around the moment in the id, first where nearly all are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.errors import QueryError
from otel_audit.semconv import from_attributes
from otel_audit.store.client import Ask
from otel_audit.store.columns import whole
from otel_audit.store.filters import EVERY_LOG, MOMENT, Conditions, tables, union
from otel_audit.store.schema import EVENTS

AS_MADE: Final = (
    f"toUnixTimestamp64Nano(timestamp) AS at, {whole()} AS all_attributes, trace_id, span_id, message"
)
"""The columns that :func:`as_made` needs of a row."""

_APART: Final = 60 * 10**9
"""Nanoseconds within which a record lies around the moment its id was made, nearly always."""
_LAST_MOMENT: Final = 2**63 // 10**6 - 10**6
"""Milliseconds up to which a moment is one of a record; ids can tell later ones."""


class StoredRecord(msgspec.Struct, frozen=True):
    """One record as it was made, and the resource (service, host, …) that sent it.

    ``actor_known_as`` and ``customer_known_as`` as for :class:`~otel_audit.store.entries.AuditEntry`.
    """

    record: AuditRecord
    resource: dict[str, str]
    actor_known_as: str = ""
    customer_known_as: str = ""


def stored_record(ask: Ask, database: str, record_id: str) -> StoredRecord | None:
    """Return one record of any log as it was made; None if the store does not have it.

    Raises:
        QueryError: ``record_id`` is not a record id.
        InvalidRecord: it was written by a newer version of otel-audit.
    """
    number = _record_id(record_id)
    around = _around(number)
    if around is not None and (found := _read(ask, database, EVENTS, around)):
        return found
    place = _place(ask, database, number, around)
    if place is None:
        return None
    table, timestamp = place
    where = _with_id(number)
    where.add(f"timestamp = {MOMENT}", timestamp)
    return _read(ask, database, table, where)  # None: deleted meanwhile


def _read(ask: Ask, database: str, table: str, where: Conditions) -> StoredRecord | None:
    rows = ask(f"SELECT {AS_MADE}, resource FROM {database}.{table} WHERE {where} LIMIT 1", where.parameters)
    return StoredRecord(as_made(rows[0]), rows[0]["resource"]) if rows else None


def as_made(row: Mapping[str, Any]) -> AuditRecord:
    """Decode a row selected by :data:`AS_MADE`.

    Raises:
        InvalidRecord: it was written by a newer version of otel-audit.
    """
    return from_attributes(
        row["all_attributes"],
        timestamp=int(row["at"]),
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        message=row["message"],
    )


def _with_id(number: str) -> Conditions:
    where = Conditions()
    where.add("record_id = {UUID} AND ordinal = 0", number)
    return where


def _around(number: str) -> Conditions | None:
    """Return the condition on a record made about the time that its id tells; None if it tells none."""
    if (made := _made_at(number)) is None:
        return None
    where = _with_id(number)
    where.add(f"timestamp BETWEEN {MOMENT} AND {MOMENT}", made - _APART, made + _APART)
    return where


def _place(ask: Ask, database: str, number: str, around: Conditions | None) -> tuple[str, int] | None:
    """Look for a record: its table and its time, which are the way to all of its columns."""
    *own, others = tables(EVERY_LOG)
    ways: list[tuple[list[str], Conditions]] = []
    if around is not None:
        ways.append(([name for name in (*own, others) if name != EVENTS], around))
    ways += [(own, _with_id(number)), ([others], _with_id(number))]  # where nearly all are, first
    for names, where in ways:
        each = [
            f"SELECT '{table}' AS found, toUnixTimestamp64Nano(timestamp) AS at "
            f"FROM {database}.{table} WHERE {where} LIMIT 1"
            for table in names
        ]
        for row in ask(f"{union(each)} LIMIT 1", where.parameters):
            return str(row["found"]), int(row["at"])
    return None


def _made_at(number: str) -> int | None:
    """Return when a record id was made (RFC 9562, UUIDv7), in nanoseconds; None for another kind of id."""
    if number[14] != "7":
        return None
    milliseconds = int(number[:8] + number[9:13], 16)
    return milliseconds * 10**6 if milliseconds < _LAST_MOMENT else None


def _record_id(text: str) -> str:
    bare = text.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", bare):
        raise QueryError(f"{text!r} is not a record id; write it as 8-4-4-4-12 hexadecimal digits")
    return f"{bare[:8]}-{bare[8:12]}-{bare[12:16]}-{bare[16:20]}-{bare[20:]}"
