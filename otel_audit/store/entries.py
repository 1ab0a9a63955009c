"""What a query returns: one record as lists show it, decoded from a row of the store."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.audit_record import Actor, Change, Target
from otel_audit.errors import QueryError
from otel_audit.store.times import format_iso
from otel_audit.store.work import NO_WORK, Work, work_of

_ALWAYS: Final = (
    *(
        "toString(record_id) AS id",
        "toUnixTimestamp64Nano(timestamp) AS at",
        "event_name",
        "action",
        "outcome",
    ),
    *("ordinal", "actor_id", "actor_type", "actor_name", "on_behalf_of", "target_type", "target_id"),
    "row_count AS rows",
)
"""Columns of the parts that every entry has: what it is about."""

_CHANGES: Final = tuple(
    f"changes.{part} AS change_{part}" for part in ("field", "old", "new", "type", "known")
)
_PLAIN: Final = (
    "log", "request_id", "method", "route", "service", "tenant", "system", "reason", "error", "message",
    "transaction", "completeness", "old_values", "truncated", "trace_id", "span_id", "stream", "sequence",
    "related", "slug", "parent", "path", "view",
)  # fmt: skip
"""Parts that are a column as it is."""

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (name,) for name in _PLAIN},
    "source": ("source_ip",),
    "changes": _CHANGES,
    "fields": _CHANGES,
    "work": ("work",),
}
"""The parts of an entry that can be left out, and their columns."""

LISTED: Final = ("changes", "fields", "message", "error", "source", "method", "path", "work")
"""What a list of records for people shows beside what every entry has."""


def columns(parts: Collection[str] | None = None) -> str:
    """Return what :func:`entry` needs of a row for some parts of an entry, as a SELECT list; default all.

    Each column of a row is read with the hundreds of rows around it, and most of what a question costs is
    that.

    Raises:
        QueryError: an entry has no such part.
    """
    for name in parts or ():
        if name not in PARTS and name not in AuditEntry.__struct_fields__:
            raise QueryError(f"{name!r} is not a part of an entry; valid are {', '.join(sorted(PARTS))}")
    found = [each for name, each in PARTS.items() if parts is None or name in parts]
    return ", ".join(dict.fromkeys((*_ALWAYS, *(column for each in found for column in each))))


_STAMP_SECONDS: Final = 2
_QUARTER: Final = 900


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record, or the row of a bulk record that matched (``ordinal`` above 0).

    ``changes`` hold text as the store keeps it: old and new are ``UNSET`` if not known, ``None`` if NULL.
    ``actor_known_as`` is the name that other records have for the actor's id if this record has none, and
    ``customer_known_as`` the same for the user on whose behalf the actor acted.
    ``fields`` are the names of fields that were read, or changed without known values. ``rows`` is the number
    of rows of a bulk record. ``parent`` is the id of the request, command, task or job in which the one with
    ``request_id`` happened, and ``work`` what the record of such work says of it. Times are nanoseconds since
    the epoch.
    """

    id: str
    timestamp: int
    event_name: str
    action: str
    outcome: str
    log: str = "audit"
    actor: Actor = Actor()
    actor_known_as: str = ""
    customer_known_as: str = ""
    target: Target | None = None
    changes: list[Change] = []
    fields: list[str] = []
    rows: int = 0
    ordinal: int = 0
    source: str = ""
    request_id: str = ""
    method: str = ""
    route: str = ""
    service: str = ""
    tenant: str = ""
    system: str = ""
    reason: str = ""
    error: str = ""
    message: str = ""
    transaction: str = ""
    completeness: str = ""
    old_values: str = ""
    truncated: bool = False
    related: list[str] = []
    trace_id: str = ""
    span_id: str = ""
    stream: str = ""
    sequence: int = 0
    slug: str = ""
    parent: str = ""
    path: str = ""
    view: str = ""
    work: Work = NO_WORK

    def to_dict(self, zone: datetime.tzinfo | None = datetime.UTC) -> dict[str, Any]:
        """Return the entry as plain data for JSON, ``time`` in ISO 8601 first; empty values are absent."""
        return {"time": format_iso(self.timestamp, zone=zone), **msgspec.to_builtins(self)}


def is_stamp(change: Change, moment: int) -> bool:
    """Say whether a change set a field to the time of the change, as ``auto_now`` does."""
    if not isinstance(change.new, str) or change.type not in ("datetime", "date", "time"):
        return False
    now = datetime.datetime.fromtimestamp(moment / 10**9, datetime.UTC)
    try:
        if change.type == "date":
            return abs(datetime.date.fromisoformat(change.new) - now.date()) <= datetime.timedelta(days=1)
        if change.type == "time":
            stamp = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(change.new))
        else:
            stamp = datetime.datetime.fromisoformat(change.new)
    except ValueError:
        return False
    if stamp.tzinfo is not None:
        return abs((stamp - now).total_seconds()) <= _STAMP_SECONDS
    # In the application's zone, which is not known here: off by quarters of an hour.
    off = (stamp.replace(tzinfo=datetime.UTC) - now).total_seconds() % _QUARTER
    return min(off, _QUARTER - off) <= _STAMP_SECONDS


def entry(row: Mapping[str, Any]) -> AuditEntry:
    """Decode a row selected by :func:`columns`; a part that was not selected has its default."""
    changes: list[Change] = []
    fields: list[str] = []
    if "change_field" in row:
        for field, old, new, kind, known in zip(
            *(row[f"change_{part}"] for part in ("field", "old", "new", "type", "known")), strict=True
        ):
            if known == "--":
                fields.append(field)
            else:
                changes.append(Change(field, _value(old, known[:1]), _value(new, known[1:]), kind))
    kind = row["target_type"]
    return AuditEntry(
        id=row["id"],
        timestamp=int(row["at"]),
        event_name=row["event_name"],
        action=row["action"],
        outcome=row["outcome"],
        ordinal=row["ordinal"],
        actor=Actor(row["actor_id"], row["actor_type"], row["actor_name"], row["on_behalf_of"]),
        target=Target(kind, row["target_id"]) if kind else None,
        changes=changes,
        fields=fields,
        rows=int(row["rows"]),
        source=row.get("source_ip", ""),
        work=work_of(row["work"]) if "work" in row else NO_WORK,
        **{name: row[name] for name in _PLAIN if name in row},
    )


def _value(text: str, known: str) -> Any:
    return {"v": text, "n": None}.get(known, UNSET)
