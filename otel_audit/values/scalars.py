"""One plain value: the class it counts as, and its text. Nothing here looks into a structure."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import uuid
from base64 import b64encode
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.interruptions import faults
from otel_audit.large_values import LONGEST

ATOMS: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        decimal.Decimal,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        uuid.UUID,
    }
)
"""Classes whose instances never change and need no conversion to be compared."""


def is_encodable(text: str) -> bool:
    """Say whether a text has no lone surrogate in it, without a copy of it."""
    try:
        for start in range(0, len(text), LONGEST):
            text[start : start + LONGEST].encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_text(value: str) -> str:
    """Return a text without lone surrogates: they cannot be encoded, neither signed nor sent."""
    if value.isascii() or (len(value) > LONGEST and is_encodable(value)):
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def integer_text(value: int) -> int | str:
    # JSON readers agree on 64 bits only.
    if -(2**63) <= value < 2**64:
        return value
    try:
        return str(value)
    except ValueError:  # Python refuses to write more than some thousand decimal digits
        return hex(value)


_search: Callable[[bytes], bytes] | None = None


def search_binary(search: Callable[[bytes], bytes] | None) -> None:
    """Have binary values searched for secrets before they become base64, where no rule can see them."""
    global _search  # noqa: PLW0603 - of the process, as its pipeline is
    _search = search


def base64_text(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    if _search is not None:
        try:
            data = _search(data)
        except faults():  # what could not be searched must not be kept
            data = b""
    return b64encode(data).decode("ascii")


def _duration(value: datetime.timedelta) -> str:
    return str(msgspec.to_builtins(value))


_UTC: Final = datetime.UTC
_rfc3339: Final = msgspec.to_builtins  # a quarter of what isoformat() takes


def instant_text(value: datetime.datetime) -> str:
    """Write a moment in the one way there is for it: an aware one in UTC, a naive one as it stands."""
    plain = type(value) is datetime.datetime
    if value.tzinfo is None:
        return _rfc3339(value) if plain else value.isoformat()
    try:
        moved = value.astimezone(_UTC)
        return _rfc3339(moved)[:-1] + "+00:00" if plain else moved.isoformat()
    except faults():  # the first and last hours of the calendar, a time zone of the application
        return value.isoformat()


zone_of: Final = attrgetter("tzinfo")
"""The time zone of a moment, for ``map``."""


def instant_texts(values: Sequence[datetime.datetime]) -> list[Any]:
    """Do :func:`instant_text` for many; most often all are in UTC, or none has a time zone."""
    if set(map(type, values)) == {datetime.datetime}:
        zones = {*map(id, map(zone_of, values))}
        if zones == _NO_ZONE:
            return list(_rfc3339(values))
        if zones == _ONLY_UTC:
            return "\n".join(_rfc3339(values)).replace("Z", "+00:00").split("\n")
    return list(map(instant_text, values))


_NO_ZONE: Final = {id(None)}
_ONLY_UTC: Final = {id(_UTC)}

SCALARS: Final[dict[type, tuple[Callable[[Any], Any], str]]] = {
    int: (integer_text, ""),
    float: (_float, ""),
    str: (plain_text, ""),
    decimal.Decimal: (str, "decimal"),
    datetime.datetime: (instant_text, "datetime"),
    datetime.date: (datetime.date.isoformat, "date"),
    datetime.time: (datetime.time.isoformat, "time"),
    datetime.timedelta: (_duration, "duration"),
    bytes: (base64_text, "bytes"),
    bytearray: (base64_text, "bytes"),
    memoryview: (base64_text, "bytes"),
    uuid.UUID: (str, "uuid"),
}
NAMED_SCALARS: Final[dict[tuple[str, str], tuple[Callable[[Any], Any], str]]] = {
    ("ipaddress", "IPv4Address"): (str, "ip"),
    ("ipaddress", "IPv6Address"): (str, "ip"),
}
"""Types known by module and name: importing theirs would cost a start more than all of this module."""
NOTHING: Final = frozenset({type(None), bool})


def _exact_datetime(value: datetime.datetime) -> datetime.datetime:
    return datetime.datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


_EXACT: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    # The methods of the base, not of the subclass: those may say anything, or return the subclass again.
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: b"".join((value,))),
    (decimal.Decimal, lambda value: decimal.Decimal(decimal.Decimal.__str__(value))),
    (datetime.datetime, _exact_datetime),
    (datetime.date, lambda value: datetime.date(value.year, value.month, value.day)),
    (
        datetime.time,
        lambda value: datetime.time(
            value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
        ),
    ),
    (datetime.timedelta, lambda value: datetime.timedelta(value.days, value.seconds, value.microseconds)),
    (uuid.UUID, lambda value: uuid.UUID(int=value.int)),
)


def exactly(value: Any, kind: type) -> Any:
    """Return the value of a subclass of a plain class as that class, ``UNSET`` for any other object."""
    for base, make in _EXACT:
        if issubclass(kind, base):
            return make(value)
    return UNSET


def stand_in(kind: type) -> str:
    return f"<{kind.__qualname__}>"


_STR_OF: Final[Callable[[type], object]] = attrgetter("__str__")
_REPR_OF: Final[Callable[[type], object]] = attrgetter("__repr__")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def own_text(value: Any, kind: type) -> str | None:
    """Return the text an object has of itself; ``None`` where that is its address in memory only."""
    if _STR_OF(kind) is object.__str__ and _REPR_OF(kind) is object.__repr__:
        return None
    text = plain_text(str.__str__(str(value)))
    return _ADDRESS.sub("", text) if text.startswith("<") else text


def is_row(value: Any) -> bool:
    try:
        return hasattr(value.__class__, "_meta") and hasattr(value, "pk")
    except faults():  # a lazy object that cannot be made
        return False
