"""Records in few words, for tests to compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from otel_audit.audit_record import AuditRecord

Told = tuple[str, str, str, dict[str, Any]]


def told(records: Iterable[AuditRecord]) -> list[Told]:
    """Return (action, target, outcome, changes) of each row; a change is (old, new), or new alone."""
    found: list[Told] = []
    for record in records:
        assert record.target is not None
        target = record.target.type.removeprefix("tests.")
        if record.bulk is None:
            changes = {change.field: _pair(change.old, change.new) for change in record.changes}
            found.append((record.action, f"{target}/{record.target.id}", record.outcome, changes))
            continue
        if not record.bulk.keys:
            found.append((record.action, f"{target}*{record.bulk.count}", record.outcome, {}))
        for place, key in enumerate(record.bulk.keys):
            changes = {
                column.field: _pair(
                    UNSET if column.old is UNSET else column.old[place],
                    UNSET if column.new is UNSET else column.new[place],
                )
                for column in record.bulk.columns
            }
            found.append((record.action, f"{target}/{key}", record.outcome, changes))
    return found


def _pair(old: Any, new: Any) -> Any:
    return new if old is UNSET else (old, None if new is UNSET else new)
