"""Who last set each field of an object, when, and through which view."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.errors import QueryError
from otel_audit.store.entries import AuditEntry
from otel_audit.store.filters import MAX_LIMIT
from otel_audit.store.query import AuditStore
from otel_audit.store.times import TimeLike

SHOWN: Final = ("route", "service")
"""The parts of entries that a table of fields shows beside their changes."""


class Blame(msgspec.Struct, frozen=True):
    """What the trail says of one field; ``value`` is UNSET where it was set to what is not known.

    ``view`` and ``code`` are those of the record, empty where it has none.
    """

    field: str
    value: Any
    entry: AuditEntry
    view: str = ""
    code: str = ""


def blame(
    store: AuditStore,
    target: str,
    *,
    until: TimeLike | None = None,
    parts: Collection[str] | None = None,
) -> list[Blame]:
    """Find the last change of each field that succeeded, by name of the field.

    Args:
        store: where the trail is.
        target: one object: ``shop.Order/7``.
        until: as it was known then.
        parts: the parts of entries to read beside changes and fields, as for :meth:`AuditStore.query`.

    Raises:
        QueryError: ``target`` names no single object.
    """
    last: dict[str, tuple[Any, AuditEntry]] = {}
    read = None if parts is None else {*parts, "changes", "fields"}
    cursor: str | None = None
    while True:
        page = store.history(target, until=until, limit=MAX_LIMIT, cursor=cursor, parts=read)
        for entry in page:  # newest first
            if entry.outcome != "success" or entry.action == "READ" or not _is_about(entry, target):
                continue
            for change in entry.changes:
                if change.new is not UNSET or entry.action == "DELETE":
                    last.setdefault(change.field, (change.new, entry))
            for field in entry.fields:
                last.setdefault(field, (UNSET, entry))
        cursor = page.cursor
        if cursor is None:
            break
    records = {entry.id: store.get(entry.id) for _, entry in last.values()}
    found = []
    for field, (value, entry) in sorted(last.items()):
        record = records[entry.id]
        if record is None:
            raise QueryError(f"record {entry.id} has since been deleted from the store; run the query again")
        found.append(Blame(field, value, entry, record.request.view, record.code))
    return found


def _is_about(entry: AuditEntry, target: str) -> bool:
    return entry.target is not None and str(entry.target) == target
