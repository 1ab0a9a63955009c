"""The audit record: plain, immutable data that knows nothing of where it comes from or goes to.

Values inside a record (old, new, image, attributes) are *portable*: ``None``, ``bool``, ``int``,
finite ``float``, ``str``, and lists and string-keyed dicts of these. Everything else a database hands
out becomes text by :func:`portable`; ``Change.type`` says what the text was.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Portable: TypeAlias = "bool | int | float | str | list[Portable] | dict[str, Portable] | None"
ActorType: TypeAlias = Literal["user", "service", "system", "unknown"]
Outcome: TypeAlias = Literal["success", "failure", "unknown"]
Completeness: TypeAlias = Literal["full", "ids", "count", "statement"]
OldValues: TypeAlias = Literal["as_loaded", "exact"]

ANONYMOUS: Final = "anonymous"
UNKNOWN: Final = "unknown"


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who: an id that is never empty, and what kind of actor it names."""

    id: str = ANONYMOUS
    type: ActorType = "unknown"
    name: str = ""
    on_behalf_of: str = ""


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """What: a type (``shop.Order``) and an id (``7``; empty where a record is about many or none)."""

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
    """Through which endpoint: request id, HTTP method, route, path and view."""

    id: str = ""
    method: str = ""
    route: str = ""
    path: str = ""
    view: str = ""


class Database(msgspec.Struct, frozen=True, omit_defaults=True):
    """In which table: ``db.system.name``, ``db.namespace``, ``db.collection.name``, transaction id."""

    system: str = ""
    namespace: str = ""
    table: str = ""
    transaction: str = ""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field: old and new value. ``UNSET`` means not known, ``None`` means NULL.

    ``type`` names what a text value was (``decimal``, ``datetime``, ``expression`` …), empty where
    JSON says it already.
    """

    field: str
    old: Any = UNSET
    new: Any = UNSET
    type: str = ""


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of a bulk record: one old and one new value a row, either array absent if not known."""

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
    """The place of a sealed record in its stream (number from 1)."""

    stream: str
    number: int
    previous_hash: str = ""
    previous_record: str = ""
    end: bool = False


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One audit record. Times are nanoseconds since the Unix epoch.

    ``changes`` and ``bulk`` exclude each other. ``image`` holds all values an instance save wrote,
    ``attributes`` what the application added.
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
_random: Final[list[str]] = []
# What the parent has not used yet must not be used by a forked child as well.
os.register_at_fork(after_in_child=_random.clear)


def _draw() -> str:
    """Give the random part of an id, fetched from the system some at a time. Any thread may call."""
    raw = os.urandom(_RANDOM_BYTES * _RANDOM_AT_ONCE)
    parts = [
        _random_part(int.from_bytes(raw[start : start + _RANDOM_BYTES], "big"))
        for start in range(0, len(raw), _RANDOM_BYTES)
    ]
    part = parts.pop()
    _random.extend(parts)
    return part


def new_record_id(timestamp: int | None = None) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) for ``timestamp`` in nanoseconds, default now."""
    milliseconds = (time.time_ns() if timestamp is None else timestamp) // 1_000_000
    try:
        random = _random.pop()
    except IndexError:
        random = _draw()
    return f"{milliseconds >> 16 & 0xFFFF_FFFF:08x}-{milliseconds & 0xFFFF:04x}-{random}"


def uuid7(milliseconds: int, random: int) -> str:
    """Put milliseconds since the epoch and 80 random bits, of which 74 are used, into a UUIDv7."""
    return f"{milliseconds >> 16 & 0xFFFF_FFFF:08x}-{milliseconds & 0xFFFF:04x}-{_random_part(random)}"


def _random_part(random: int) -> str:
    return (
        f"{0x7000 | random >> 68:04x}-{0x8000 | random >> 48 & 0x3FFF:04x}-{random & 0xFFFF_FFFF_FFFF:012x}"
    )


# --- portable values ---------------------------------------------------------------------------


def _text(value: str) -> str:
    # A lone surrogate cannot be encoded: neither signed nor sent (facts: integrity, section 1).
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _mapping(value: Mapping[Any, Any]) -> dict[str, Portable]:
    return {_text(str(key)): portable(item) for key, item in value.items()}


def _iterable(value: Iterable[Any]) -> list[Portable]:
    return [portable(item) for item in value]


def _set(value: Iterable[Any]) -> list[Portable]:
    return sorted((portable(item) for item in value), key=repr)


_search: Callable[[bytes], bytes] | None = None


def search_binary(search: Callable[[bytes], bytes] | None) -> None:
    """Have binary values searched for secrets before they become base64, where no rule can see them."""
    global _search  # noqa: PLW0603 - of the process, as its pipeline is
    _search = search


def _base64(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    if _search is not None:
        try:
            data = _search(data)
        except Exception:  # noqa: BLE001 - what could not be searched must not be kept
            data = b""
    return b64encode(data).decode("ascii")


def _duration(value: datetime.timedelta) -> str:
    return str(msgspec.to_builtins(value))


def _isoformat(value: datetime.date | datetime.time) -> str:
    return value.isoformat()


def _integer(value: int) -> int | str:
    # JSON readers agree on 64 bits only.
    return value if -(2**63) <= value < 2**64 else str(value)


_CONVERTERS: Final[dict[type, tuple[Callable[[Any], Any], str]]] = {
    int: (_integer, ""),
    float: (_float, ""),
    str: (_text, ""),
    dict: (_mapping, ""),
    list: (_iterable, ""),
    tuple: (_iterable, ""),
    set: (_set, ""),
    frozenset: (_set, ""),
    decimal.Decimal: (str, "decimal"),
    datetime.datetime: (_isoformat, "datetime"),
    datetime.date: (_isoformat, "date"),
    datetime.time: (_isoformat, "time"),
    datetime.timedelta: (_duration, "duration"),
    bytes: (_base64, "bytes"),
    bytearray: (_base64, "bytes"),
    memoryview: (_base64, "bytes"),
}
_NAMED_CONVERTERS: Final[dict[tuple[str, str], tuple[Callable[[Any], Any], str]]] = {
    ("uuid", "UUID"): (str, "uuid"),
    ("ipaddress", "IPv4Address"): (str, "ip"),
    ("ipaddress", "IPv6Address"): (str, "ip"),
}
"""Types known by module and name: importing theirs would cost a start more than all of this module."""
_ATOMS: Final = frozenset({type(None), bool})


def _converter(value: Any) -> tuple[Callable[[Any], Any], str]:
    """Find the converter of a subclass or of a foreign type; never raises, never trusts ``__str__``."""
    if isinstance(value, enum.Enum):
        return lambda item: portable(item.value), portable_type(value.value)
    if isinstance(value, os.PathLike):
        return lambda item: portable(os.fspath(item)), ""
    for base in type(value).__mro__:
        named = _NAMED_CONVERTERS.get((base.__module__, base.__name__))
        if named is not None:
            _CONVERTERS[base] = named
            return named
    for kind, found in _CONVERTERS.items():
        if isinstance(value, kind):
            return found
    return _opaque, "text"


def _opaque(value: Any) -> str:
    try:
        return _text(str(value))
    except Exception:  # noqa: BLE001 - a user's __str__ may do anything; the record must still be made
        return f"<{type(value).__qualname__}>"


def portable(value: Any) -> Portable:
    """Turn any value into what a record may carry.

    Decimals, dates, times, UUIDs and addresses become text, bytes base64, durations ISO 8601, sets sorted
    lists, NaN and infinities text; integers beyond 64 bits text. A type not known becomes its ``str()``.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value  # type: ignore[no-any-return]
    found = _CONVERTERS.get(kind) or _converter(value)
    return found[0](value)  # type: ignore[no-any-return]


def portable_type(value: Any) -> str:
    """Name what :func:`portable` turned into text (``decimal``, ``datetime`` …), empty if JSON says it."""
    kind = type(value)
    if kind in _ATOMS:
        return ""
    return (_CONVERTERS.get(kind) or _converter(value))[1]
