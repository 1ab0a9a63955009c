"""Records as comma-separated values, for spreadsheets: one line per record, changes as JSON in one column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from otel_audit.cli.output.safe import safe, safe_json
from otel_audit.store.entries import PARTS, AuditEntry
from otel_audit.store.times import format_iso
from otel_audit.store.work import Work

_COLUMNS: Final = (
    *("time", "actor", "actor_id", "actor_type", "on_behalf_of", "action", "outcome", "target_type"),
    *("target_id", "rows", "changes", "fields", "source", "method", "route", "service", "tenant", "reason"),
    *("error", "message", "log", "event_name", "request_id", "trace_id", "id", "path", "view", "slug"),
    *("parent", "status", "duration", "exit_code", "state", "queue", "url"),
)
CSV_PARTS: Final = (*(name for name in _COLUMNS if name in PARTS), "work")
"""The parts of entries the lines show."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(entries: Sequence[AuditEntry], *, header: bool) -> Iterator[str]:
    """Return the lines: RFC 4180 with line feeds, times in UTC, what a terminal would act on escaped.

    A text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP: CSV Injection).
    """
    if header:
        yield ",".join(_COLUMNS)
    for entry in entries:
        yield csv_line(_values(entry))


def csv_line(values: Iterable[str]) -> str:
    """Return one line: each value as a spreadsheet may have it, safe to print."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(_cell, values))
    return line.getvalue()


def _values(entry: AuditEntry) -> Iterator[str]:
    special = {
        "time": format_iso(entry.timestamp),
        "actor": entry.actor.name,
        "actor_id": entry.actor.id,
        "actor_type": entry.actor.type,
        "on_behalf_of": entry.actor.on_behalf_of,
        "target_type": entry.target.type if entry.target else "",
        "target_id": entry.target.id if entry.target else "",
        "rows": str(entry.rows) if entry.rows else "",
        "changes": safe_json(msgspec.to_builtins(entry.changes)) if entry.changes else "",
        "fields": " ".join(entry.fields),
        **{name: str(getattr(entry.work, name) or "") for name in Work.__struct_fields__},
        "method": entry.work.method or entry.method,
    }
    for name in _COLUMNS:
        yield special[name] if name in special else getattr(entry, name)


def _cell(text: str) -> str:
    return safe(f"'{text}" if text.startswith(_FORMULA) else text)
