"""The audit record: plain, immutable data that knows nothing of where it comes from or goes to.

Values inside a record (old, new, image, attributes) are *portable*, see :mod:`otel_audit.values`;
``Change.type`` says what a value was that became text.
"""

import os
import time
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from otel_audit import forks

ActorType: TypeAlias = Literal["user", "service", "system", "unknown"]
Outcome: TypeAlias = Literal["success", "failure", "unknown"]
Completeness: TypeAlias = Literal["full", "ids", "count", "statement"]
OldValues: TypeAlias = Literal["as_loaded", "exact"]

ANONYMOUS: Final = "anonymous"
UNKNOWN: Final = "unknown"


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who acted: an id that is never empty, and the type of actor.

    ``on_behalf_of`` is the id of the user on whose behalf the actor acts, as when staff impersonate a
    customer; ``on_behalf_of_name`` is the name of that user. ``roles`` are separated by commas.
    """

    id: str = ANONYMOUS
    type: ActorType = "unknown"
    name: str = ""
    on_behalf_of: str = ""
    on_behalf_of_name: str = ""
    roles: str = ""


# Thousands are held until a transaction ends; texts make no cycle that the collector would have to find.
class Target(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The object of an action: a type (``shop.Order``) and an id (``7``; empty for many objects or none)."""

    type: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.type}/{self.id}" if self.id else self.type


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where from: client address, its kind, user agent, hashed session."""

    id: str = ""
    type: str = ""
    user_agent: str = ""
    session: str = ""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request, command, task or job: id, HTTP method, route, path and view.

    ``parent`` is the id of the one it happened in: of the request that called a command.
    """

    id: str = ""
    method: str = ""
    route: str = ""
    path: str = ""
    view: str = ""
    parent: str = ""


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The work that started this one, in an ended request or another service: its actor and its request."""

    actor: str = ""
    name: str = ""
    request: str = ""


class Database(msgspec.Struct, frozen=True, omit_defaults=True):
    """The table: ``db.system.name``, ``db.namespace``, ``db.collection.name``, transaction id.

    ``query`` is the statement, without values, of SQL that the application wrote itself. ``address`` and
    ``port`` are those of the server (``server.address``, ``server.port``); empty and 0 where the database has
    none, or it is not known.
    """

    system: str = ""
    namespace: str = ""
    table: str = ""
    transaction: str = ""
    query: str = ""
    address: str = ""
    port: int = 0


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field: old and new value. ``UNSET`` means not known, ``None`` means NULL.

    ``type`` is the type of a value that was converted to text (``decimal``, ``datetime``, ``expression``, …);
    empty for types that JSON has.
    """

    field: str
    old: Any = UNSET
    new: Any = UNSET
    type: str = ""


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of a bulk record: one old and one new value per row; an array is absent if not known."""

    field: str
    old: list[Any] | UnsetType = UNSET
    new: list[Any] | UnsetType = UNSET
    type: str = ""


class Bulk(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rows of a bulk record, column by column.

    ``count`` rows were affected; ``keys`` and each column's arrays have one entry a row, in the same
    order, and are empty where ``AuditRecord.completeness`` is ``count`` or ``statement``. A read that showed
    more objects than a record lists says ``count`` and has the keys of the first.
    ``part`` of ``parts`` (from 1) where a statement touched more rows than one record may carry;
    the parts share ``id``.
    """

    count: int
    keys: list[str] = []
    columns: list[Column] = []
    id: str = ""
    part: int = 1
    parts: int = 1


class Sequence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The position of a sealed record in its stream (numbers start at 1)."""

    stream: str
    number: int
    previous_hash: str = ""
    previous_record: str = ""
    end: bool = False


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One audit record. Times are nanoseconds since the Unix epoch.

    A record has ``changes`` or ``bulk``, not both. ``image`` contains all values that saving an instance
    wrote, ``attributes`` what the application added. ``slug`` is the application's short name for what was
    done, ``event_code`` a code of its own for that kind of event.
    """

    id: str
    timestamp: int
    observed_timestamp: int
    event_name: str
    action: str
    outcome: Outcome = "success"
    log: str = "audit"
    actor: Actor = Actor()
    target: Target | None = None
    source: Source = Source()
    request: Request = Request()
    origin: Origin | None = None
    database: Database = Database()
    changes: list[Change] = []
    image: dict[str, Any] = {}
    bulk: Bulk | None = None
    fields: list[str] = []
    completeness: Completeness = "full"
    old_values: OldValues | None = None
    message: str = ""
    reason: str = ""
    tenant: str = ""
    system: str = ""
    event_type: str = ""
    event_code: str = ""
    slug: str = ""
    error: str = ""
    code: str = ""
    related: list[Target] = []
    attributes: dict[str, Any] = {}
    truncated: bool = False
    trace_id: str = ""
    span_id: str = ""
    sequence: Sequence | None = None

    @property
    def changed_fields(self) -> list[str]:
        """The names of the fields this record changed (or read)."""
        if self.changes:
            return [change.field for change in self.changes]
        if self.bulk is not None and self.bulk.columns:
            return [column.field for column in self.bulk.columns]
        return self.fields


_RANDOM_BYTES: Final = 10
_RANDOM_AT_ONCE: Final = 32
"""Few: a signal handler that emits while this is going on finds none and draws as well, within itself."""
_EACH: Final = sum(1 << 8 * _RANDOM_BYTES * position for position in range(_RANDOM_AT_ONCE))
# Version 7 and the variant of RFC 9562 (sections 4.1 and 4.2), and what is left to chance.
_VERSIONS: Final = 0x7000_8000_0000_0000_0000 * _EACH
_RANDOM: Final = 0x0FFF_3FFF_FFFF_FFFF_FFFF * _EACH
_random: Final[list[str]] = []
# What the parent has not used yet must not be used by a forked child as well.
forks.after_in_child(_random.clear)


def _draw() -> str:
    """Return the random part of an id, fetched from the system some at a time. Any thread may call."""
    number = int.from_bytes(os.urandom(_RANDOM_BYTES * _RANDOM_AT_ONCE), "big") & _RANDOM | _VERSIONS
    drawn = number.to_bytes(_RANDOM_BYTES * _RANDOM_AT_ONCE, "big").hex("-", _RANDOM_BYTES).split("-")
    parts = [f"-{digits[:4]}-{digits[4:8]}-{digits[8:]}" for digits in drawn]
    part = parts.pop()
    _random.extend(parts)
    return part


def new_record_id(timestamp: int | None = None) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) for ``timestamp`` in nanoseconds, default now."""
    forks.check()
    milliseconds = (time.time_ns() if timestamp is None else timestamp) // 1_000_000
    try:
        random = _random.pop()
    except IndexError:
        random = _draw()
    return (milliseconds & 0xFFFF_FFFF_FFFF).to_bytes(6, "big").hex("-", -4) + random


def uuid7(milliseconds: int, random: int) -> str:
    """Put milliseconds since the epoch and 80 random bits, of which 74 are used, into a UUIDv7."""
    return f"{milliseconds >> 16 & 0xFFFF_FFFF:08x}-{milliseconds & 0xFFFF:04x}-{_random_part(random)}"


def _random_part(random: int) -> str:
    return (
        f"{0x7000 | random >> 68:04x}-{0x8000 | random >> 48 & 0x3FFF:04x}-{random & 0xFFFF_FFFF_FFFF:012x}"
    )
