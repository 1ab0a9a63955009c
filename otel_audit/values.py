"""One value: made portable, frozen, compared, written as text. The only place that converts values.

A *portable* value is what a record may carry: ``None``, ``bool``, ``int`` of 64 bits, finite ``float``,
``str``, and lists and string-keyed dicts of these, each of exactly that class, never of a subclass. A
*frozen* value is one nobody can change afterwards: a plain immutable one, :class:`Encoded`, the JSON of a
mutable one at the moment it was seen, :class:`~otel_audit.large_values.Cut` where that is too long, or
:class:`Opaque`. Captured writes hold frozen values until their transaction ends.

Whatever a value is, nothing here raises: what cannot be converted costs detail, never the record.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import os
import re
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET

from otel_audit.interruptions import faults
from otel_audit.large_values import (
    BEGINNING,
    CONTAINERS,
    DEEPEST,
    LEFT_OUT,
    LONGEST,
    PART,
    PLAIN_CONTAINERS,
    Cut,
    cut_binary,
    cut_structure,
    cut_text,
    digest_of_json,
    fits,
    is_small,
    left_out,
    rest_said,
    with_rest,
)
from otel_audit.long_texts import JSON_LENGTH, head_of, rest_of

Portable: TypeAlias = "bool | int | float | str | list[Portable] | dict[str, Portable] | None"
Frozen: TypeAlias = Any
"""An instance of one of :data:`ATOMS`, an :class:`Encoded`, a :class:`Cut` or an :class:`Opaque`."""

_Part = TypeVar("_Part", bound=msgspec.Struct)

MAX_DEPTH: Final = DEEPEST
MAX_PARTS: Final = LONGEST // PART
"""Of one value, all levels together; of the changes, names or objects one record lists."""
_SHORT_DOCUMENT: Final = 4 * 1024
"""Bytes: whatever they hold, a record carries all of it."""
_SHORTEST_HEAD: Final = 8 * 1024
"""Where less room is left, nothing of a long text is kept."""

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


class Encoded(bytes):
    """A mutable value as JSON, made when the value was seen."""

    __slots__ = ()


class Opaque:
    """An object without a text of its own: equal to nothing but itself, recorded by the name of its class."""

    __slots__ = ("text", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.text = _stand_in(type(value))

    def __eq__(self, other: object) -> bool:
        return type(other) is Opaque and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


FROZEN: Final = ATOMS | {Encoded, Opaque, Cut}
"""Classes of frozen values."""
# --- single values -----------------------------------------------------------------------------


def _text(value: str) -> str:
    # A lone surrogate cannot be encoded: neither signed nor sent.
    if value.isascii() or (len(value) > LONGEST and is_encodable(value)):
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _integer(value: int) -> int | str:
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


def _base64(value: bytes | bytearray | memoryview) -> str:
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


_SCALARS: Final[dict[type, tuple[Callable[[Any], Any], str]]] = {
    int: (_integer, ""),
    float: (_float, ""),
    str: (_text, ""),
    decimal.Decimal: (str, "decimal"),
    datetime.datetime: (instant_text, "datetime"),
    datetime.date: (datetime.date.isoformat, "date"),
    datetime.time: (datetime.time.isoformat, "time"),
    datetime.timedelta: (_duration, "duration"),
    bytes: (_base64, "bytes"),
    bytearray: (_base64, "bytes"),
    memoryview: (_base64, "bytes"),
    uuid.UUID: (str, "uuid"),
}
_NAMED_SCALARS: Final[dict[tuple[str, str], tuple[Callable[[Any], Any], str]]] = {
    ("ipaddress", "IPv4Address"): (str, "ip"),
    ("ipaddress", "IPv6Address"): (str, "ip"),
}
"""Types known by module and name: importing theirs would cost a start more than all of this module."""
_NOTHING: Final = frozenset({type(None), bool})


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


def _exact(value: Any, kind: type) -> Any:
    """Return the value of a subclass of a plain class as that class, ``UNSET`` for any other object."""
    for base, make in _EXACT:
        if issubclass(kind, base):
            return make(value)
    return UNSET


def _stand_in(kind: type) -> str:
    return f"<{kind.__qualname__}>"


_STR_OF: Final[Callable[[type], object]] = attrgetter("__str__")
_REPR_OF: Final[Callable[[type], object]] = attrgetter("__repr__")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def _own_text(value: Any, kind: type) -> str | None:
    """Return the text an object has of itself; ``None`` where that is its address in memory only."""
    if _STR_OF(kind) is object.__str__ and _REPR_OF(kind) is object.__repr__:
        return None
    text = _text(str.__str__(str(value)))
    return _ADDRESS.sub("", text) if text.startswith("<") else text


# --- portable ----------------------------------------------------------------------------------


class Conversion:
    """Converts the values of one record; ``complete`` says whether every one of them could be.

    ``guessed`` says whether an object of an unknown class is known by its own text only, which may be the
    same for objects that differ.
    """

    __slots__ = ("_depth", "_keyed", "_longest", "_room", "complete", "guessed")

    def __init__(self, longest: int = LONGEST, keyed: Callable[[bytes], str] | None = None) -> None:
        """Begin a record.

        Args:
            longest: characters of one structure, all its parts together.
            keyed: returns the keyed hash of a digest, for what is cut; empty without a key.
        """
        self.complete = True
        self.guessed = False
        self._depth = 0
        self._longest = self._room = longest
        self._keyed = keyed

    def portable(self, value: Any) -> Portable:
        """Return ``value`` as a record may carry it."""
        kind = type(value)
        if kind in _NOTHING:
            return value  # type: ignore[no-any-return]
        found = _SCALARS.get(kind)
        if found is not None:
            if found[0] is _base64 and len(value) > LONGEST:
                return self._cut(cut_binary(value, _base64))
            return found[0](value)  # type: ignore[no-any-return]
        if self._depth == 0:
            self._room = self._longest
        elif self._depth >= MAX_DEPTH:
            self.complete = False
            return LEFT_OUT
        self._depth += 1
        try:
            return self._other(value, kind)
        except faults():  # the methods of a foreign class may raise anything
            self.complete = False
            return _stand_in(kind)
        finally:
            self._depth -= 1

    def text(self, value: Any) -> str:
        """Return ``value`` as the text of an id, name or reason; empty where it has none.

        An object with a primary key stands for its row: its key is the text. A text longer than a record
        carries is cut before anything else is done to it.
        """
        kind = type(value)
        if kind is str:
            if len(value) > BEGINNING:
                value = self._beginning(value)
            return _text(value)
        if kind not in ATOMS and _is_row(value):
            return self.text(value.pk)
        complete, self.complete = self.complete, True
        plain = self.portable(value)
        lost = not self.complete
        self.complete = complete and not lost
        if plain is None or lost:
            return ""
        if type(plain) is not str:
            plain = msgspec.json.encode(plain).decode()
        return self._beginning(plain) if len(plain) > BEGINNING else plain

    def _beginning(self, text: str) -> str:
        if text[:1] in "{[" and len(text) <= JSON_LENGTH:
            return text  # redaction reads a whole document
        self.complete = False
        return head_of(text, BEGINNING) + rest_of(len(text))

    def texts(self, part: _Part) -> _Part:
        """Return a part of a record that is made of texts, with exactly texts in it."""
        values = msgspec.structs.astuple(part)
        if all(type(value) is str and len(value) <= BEGINNING for value in values):
            return part
        return type(part)(*map(self.text, values))

    def _other(self, value: Any, kind: type) -> Portable:
        if kind is Encoded:
            return self.portable(msgspec.json.decode(value))
        if kind is Opaque:
            self.complete = False
            return value.text  # type: ignore[no-any-return]
        if kind is Cut:
            return self._cut(value)
        if issubclass(kind, enum.Enum):
            return self.portable(value.value)
        exact = _exact(value, kind)
        if exact is not UNSET:
            return self.portable(exact)
        if issubclass(kind, dict | Mapping):
            return self._mapping(value)
        if issubclass(kind, list | tuple):
            return self._items(value)
        if issubclass(kind, set | frozenset):
            return sorted(self._items(value), key=repr)
        for base in kind.__mro__:
            named = _NAMED_SCALARS.get((base.__module__, base.__name__))
            if named is not None:
                _SCALARS[kind] = named
                return named[0](value)  # type: ignore[no-any-return]
        if issubclass(kind, os.PathLike):
            return self.portable(os.fspath(value))
        return self._unknown(value, kind)

    def _unknown(self, value: Any, kind: type) -> Portable:
        if hasattr(kind, "tolist"):  # NumPy's and other arrays: their text leaves out the middle
            return self.portable(value.tolist())
        if hasattr(kind, "__index__"):
            return _integer(kind.__index__(value))
        self.guessed = True
        text = _own_text(value, kind)
        if text is None:
            self.complete = False
        return _stand_in(kind) if text is None else text

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Portable]:
        made: dict[str, Portable] = {}
        for key, item in value.items():
            name = self._key(key)
            self._room -= PART + len(name)
            if self._room <= 0:
                self.complete = False
                made.setdefault(LEFT_OUT, left_out(value, "keys"))
                break
            made[name] = self._part(item)
        return made

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return self.text(key)
        return "null" if key is None else self.text(key) or _stand_in(type(key))

    def named(self, values: Mapping[Any, Any]) -> dict[str, Portable]:
        """Return named values as a record carries them, as many as there is room for names."""
        made: dict[str, Portable] = {}
        room = self._longest
        for key, value in values.items():
            name = self.text(key) or _stand_in(type(key))
            room -= PART + len(name)
            if room <= 0:
                self.complete = False
                made.setdefault(LEFT_OUT, left_out(values, "keys"))
                break
            made[name] = self.portable(value)
        return made

    def _items(self, value: Iterable[Any]) -> list[Portable]:
        made: list[Portable] = []
        for item in value:
            self._room -= PART
            if self._room <= 0:
                self.complete = False
                made.append(left_out(value, "items"))
                break
            made.append(self._part(item))
        return made

    def _part(self, value: Any) -> Portable:
        """Return a part of a structure; a text no longer than there is room."""
        part = self.portable(value)
        if type(part) is str:
            if len(part) > self._room:
                return self._head(part)
            self._room -= len(part)
        return part

    def _head(self, text: str) -> str:
        room, self._room = self._room, 0
        self.complete = False
        return head_of(text, room) + rest_of(len(text)) if room >= _SHORTEST_HEAD else LEFT_OUT

    def _cut(self, cut: Cut) -> Portable:
        self.complete = False
        return cut.recorded(self._keyed)  # type: ignore[no-any-return]


def portable(value: Any) -> Portable:
    """Turn any value into what a record may carry.

    Decimals, dates, times, UUIDs and addresses become text, aware datetimes in UTC, bytes base64, durations
    ISO 8601, sets sorted lists, NaN and infinities text; integers beyond 64 bits text. A type not known
    becomes its ``str()``, and where that raises or is an address in memory, the name of its class.
    """
    kind = type(value)
    if kind in _NOTHING:
        return value  # type: ignore[no-any-return]
    found = _SCALARS.get(kind)
    if found is None or (found[0] is _base64 and len(value) > LONGEST):
        return Conversion().portable(value)
    return found[0](value)  # type: ignore[no-any-return]


def portable_type(value: Any) -> str:
    """Name what :func:`portable` turned into text (``decimal``, ``datetime`` …), empty if JSON says it."""
    kind = type(value)
    if kind in _NOTHING or kind is Encoded:
        return ""
    if kind is Cut:
        return value.type  # type: ignore[no-any-return]
    found = _SCALARS.get(kind)
    if found is not None:
        return found[1]
    try:
        return _other_type(value, kind)
    except faults():  # as in Conversion.portable
        return "text"


def _other_type(value: Any, kind: type) -> str:
    if issubclass(kind, enum.Enum):
        return portable_type(value.value)
    if issubclass(kind, bytearray | memoryview):
        return "bytes"
    for base, (_, name) in _SCALARS.items():
        if issubclass(kind, base):
            return name
    for base in kind.__mro__:
        named = _NAMED_SCALARS.get((base.__module__, base.__name__))
        if named is not None:
            return named[1]
    plain = (dict, Mapping, list, tuple, set, frozenset, os.PathLike)
    known = issubclass(kind, plain) or hasattr(kind, "tolist") or hasattr(kind, "__index__")
    return "" if known else "text"


def text(value: Any) -> str:
    """Return any value as the text of an id, name or reason; empty where it has none."""
    return value if type(value) is str and value.isascii() else Conversion().text(value)


# --- frozen ------------------------------------------------------------------------------------


def freeze(value: Any) -> Frozen:
    """Make a value that nobody can change afterwards; never evaluates the ``__str__`` of a mapped object."""
    kind = type(value)
    if kind in FROZEN:
        return value
    try:
        if kind is memoryview or kind is bytearray:
            return bytes(value) if len(value) <= LONGEST else cut_binary(value, _base64)
        if kind is dict or kind is list or kind is tuple:
            return _encode(value)
        return _freeze_other(value, kind)
    except faults():  # as in Conversion.portable
        return Opaque(value)


def freeze_known(value: Any) -> Frozen:
    """Freeze a value that is made of known classes only; ``UNSET`` for any other."""
    kind = type(value)
    if kind in FROZEN:
        return value
    conversion = Conversion()
    if isinstance(value, CONTAINERS) and not fits(value):
        frozen = _cut(value, conversion)
        return frozen if conversion.complete and not conversion.guessed else UNSET
    conversion.portable(value)
    return freeze(value) if conversion.complete and not conversion.guessed else UNSET


def _freeze_other(value: Any, kind: type) -> Frozen:
    if issubclass(kind, enum.Enum):
        return freeze(value.value)
    exact = _exact(value, kind)
    if exact is not UNSET:
        return exact
    if _is_row(value):
        return freeze(value.pk)
    if hasattr(value, "storage") and hasattr(value, "name"):  # a file, which its column holds by name
        return freeze(value.name)
    if issubclass(kind, CONTAINERS):
        return _encode(value)
    conversion = Conversion()
    plain = conversion.portable(value)
    if not conversion.complete and type(plain) is str:
        return Opaque(value)
    return plain if type(plain) in ATOMS else _encode(plain)


def _is_row(value: Any) -> bool:
    try:
        return hasattr(value.__class__, "_meta") and hasattr(value, "pk")
    except faults():  # a lazy object that cannot be made
        return False


def _encode(value: Any) -> Encoded | Cut:
    if is_small(value):
        try:
            return Encoded(msgspec.json.encode(value))
        except faults():  # integers beyond 64 bits, lone surrogates
            return Encoded(msgspec.json.encode(portable(value)))
    if not fits(value):
        return _cut(value, Conversion())
    if type(value) not in PLAIN_CONTAINERS:
        return Encoded(msgspec.json.encode(portable(value)))
    try:
        return Encoded(msgspec.json.encode(value, enc_hook=portable))
    except faults():  # keys that are no text, integers beyond 64 bits, lone surrogates
        return Encoded(msgspec.json.encode(portable(value)))


def freeze_json(document: bytes) -> Frozen:
    """Freeze a value that :mod:`msgspec` has written as JSON."""
    if (
        document[:1] in (b"{", b"[")
        and len(document) <= _SHORT_DOCUMENT
        and document.count(b"{") + document.count(b"[") <= MAX_DEPTH
    ):
        return Encoded(document)  # small enough, and not too deep, whatever it holds
    return freeze(msgspec.json.decode(document))


def is_written(frozen: Frozen, value: Any) -> bool:
    """Say quickly that a dict or list is the same as the JSON it was frozen as; False is only a doubt."""
    if type(frozen) is not Encoded or type(value) not in (dict, list):
        return False
    try:
        return frozen == msgspec.json.encode(value)
    except faults():  # as in _encode
        return False


def _cut(value: Any, conversion: Conversion) -> Cut:
    """Cut a structure; ``conversion`` makes its smaller parts portable."""
    beginning = Conversion(BEGINNING).portable(_in_order(value))
    if not isinstance(beginning, dict | list):  # a mapping or sequence of the application's own
        beginning = [beginning]
    return cut_structure(value, conversion.portable, beginning)


def shorter(value: Any, limit: int) -> Any:
    """Return a portable structure, redacted already, of about ``limit`` characters; says how long it was."""
    length = len(msgspec.json.encode(value))
    if length <= limit:
        return value
    said = rest_said(value) or rest_of(length, "bytes")
    return with_rest(Conversion(limit).portable(value), said)


def _in_order(value: Any) -> Any:
    """Return a mapping whose keys are in order: of two that are cut the beginnings can be compared."""
    if not isinstance(value, dict) or not all(type(key) is str for key in value):
        return value
    return {key: value[key] for key in islice(sorted(value), BEGINNING // PART)}


def is_long(frozen: Frozen) -> bool:
    """Say whether a frozen text or binary value is longer than a record carries.

    Not a text that may be a document: redaction reads it whole.
    """
    if type(frozen) is not str and type(frozen) is not bytes:
        return False
    return len(frozen) > (JSON_LENGTH if type(frozen) is str and frozen[:1] in "{[" else LONGEST)


def shortened(frozen: Frozen) -> Frozen:
    """Return a frozen value cut, if it is a text or binary value longer than a record carries."""
    if not is_long(frozen):
        return frozen
    return cut_text(frozen) if type(frozen) is str else cut_binary(frozen, _base64)


RECORDED: Final[dict[type, tuple[Callable[[Any], Any], str]]] = {
    Encoded: (msgspec.json.decode, ""),
    decimal.Decimal: (str, "decimal"),
    datetime.datetime: (instant_text, "datetime"),
    datetime.date: (datetime.date.isoformat, "date"),
    datetime.time: (datetime.time.isoformat, "time"),
    uuid.UUID: (str, "uuid"),
}
"""What a record carries for the frozen values most rows have, and the name of their type; others as they are.

What these make is portable already: nobody has to convert it once more.
"""


def record_value(frozen: Frozen) -> tuple[Portable, str]:
    """Return what a record carries for a frozen value, and the name of its type."""
    found = RECORDED.get(type(frozen))
    if found is not None:
        return found[0](frozen), found[1]
    if type(frozen) is Cut:  # for the pipeline, which knows the key of its hash
        return frozen, frozen.type  # type: ignore[return-value]
    return portable(frozen), portable_type(frozen)


def record_values(values: list[Frozen]) -> tuple[list[Portable], bool]:
    """Do :func:`record_value` for many values by their class: most often they have one.

    Structures may be among them that nobody else holds, as they came from a driver. Returns as well whether
    all that came out is portable and whole; where that is not certain, whoever records it must look.
    """
    kinds = {*map(type, values)}
    if kinds <= _FLAT:
        return (values if weigh_plain(values, kinds) >= 0 else list(map(portable, values))), True
    kinds.discard(type(None))
    if kinds <= PLAIN_CONTAINERS:
        structures = _written_and_read(values)
        if structures is not None:
            return structures, True
    elif len(kinds) == 1:
        [kind] = kinds
        if kind is not Encoded and kind in RECORDED:
            convert = RECORDED[kind][0]
            return [None if value is None else convert(value) for value in values], True
        if kind is Encoded and max([len(value) for value in values if value is not None]) <= _FITS:
            plain = not any(value is not None and _LARGE_NUMBER.search(value) for value in values)
            return [None if value is None else _decode(value) for value in values], plain
    return [record_value(freeze(value))[0] for value in values], False


_FLAT: Final = frozenset({type(None), bool, int, float, str})
_FITS: Final = LONGEST // 4
"""Bytes of JSON that certainly fit: an item is two of them at least, and counts as eight characters."""
_LARGE_NUMBER: Final = re.compile(rb"[0-9]{19}")
"""In JSON: an integer of more than 64 bits may stand there."""
_decode: Final = msgspec.json.Decoder().decode


def weigh_plain(values: list[Any], kinds: set[type]) -> int:
    """Return about how many bytes plain values are; -1 if one of them is not portable as it stands."""
    if int in kinds:
        numbers = [value for value in values if type(value) is int]
        if max(numbers) >= 2**64 or min(numbers) < -(2**63):
            return -1
    if float in kinds and not all(math.isfinite(value) for value in values if type(value) is float):
        return -1
    texts = [value for value in values if type(value) is str]
    length = sum(map(len, texts))
    if length > LONGEST:  # many of them together are looked at in one go, long ones are not copied
        if not all(text.isascii() or is_encodable(text) for text in texts):
            return -1
    elif not (text := "".join(texts)).isascii() and not is_encodable(text):
        return -1
    return length + 8 * len(values)


def is_encodable(text: str) -> bool:
    """Say whether a text has no lone surrogate in it, without a copy of it."""
    try:
        for start in range(0, len(text), LONGEST):
            text[start : start + LONGEST].encode()
    except UnicodeEncodeError:
        return False
    return True


def _written_and_read(structures: list[Any]) -> list[Portable] | None:
    """Do what freezing and recording do to structures; ``None`` where one may be too long, or no JSON."""
    try:
        written = list(map(msgspec.json.encode, structures))
    except faults():  # keys that are no text, lone surrogates, foreign objects
        return None
    if any(map(_LARGE_NUMBER.search, written)):
        return None
    if max(map(len, written)) > _FITS or max([w.count(b"[") + w.count(b"{") for w in written]) > DEEPEST:
        return None
    return list(map(_decode, written))


def same(old: Frozen, new: Frozen) -> bool:
    """Say whether two frozen values are equal, with their types: true is not 1, and 1 is not 1.0.

    A comparison that raises means they are not.
    """
    if old is new:
        return True
    kind, other = type(old), type(new)
    try:
        if (kind is Cut) != (other is Cut):
            return _is_cut_of(old, new) if kind is Cut else _is_cut_of(new, old)
        if kind is other:
            return bool(old == new) or (kind is Encoded and _sorted(old) == _sorted(new))
        return bool(old == new) and not (kind in _NUMBERS and other in _NUMBERS)
    except faults():  # a signalling NaN, a naive and an aware moment
        return False


_NUMBERS: Final = frozenset({bool, int, float})


def _is_cut_of(cut: Cut, value: Frozen) -> bool:
    """Say whether a value that was not cut is the same as one that was."""
    kind = type(value)
    if kind is Encoded:
        return type(cut.beginning) is bytes and digest_of_json(value) == cut.digest
    if kind is str:
        return len(value) == cut.length and cut_text(value) == cut
    return kind is bytes and len(value) == cut.length and cut_binary(value, _base64) == cut


def _sorted(value: Encoded) -> bytes:
    """Write JSON with its keys in order."""
    return msgspec.json.encode(msgspec.json.decode(value), order="sorted")


# --- keys --------------------------------------------------------------------------------------


def key_text(key: Any) -> str:
    """Write a key as the id of a target: ``7``; a composite key as compact JSON, ``[7,"de"]``."""
    if type(key) is str:
        return key
    if type(key) is int:
        try:
            return str(key)
        except ValueError:  # of too many digits for Python to write
            return text(freeze(key))
    if key is UNSET or key is None:
        return ""
    if isinstance(key, tuple | list):
        return msgspec.json.encode([portable(freeze(part)) for part in key]).decode()
    return text(freeze(key))


def key_texts(keys: Sequence[Any]) -> list[str]:
    """Write many keys."""
    if all(type(key) is int for key in keys):
        with suppress(ValueError):
            return list(map(str, keys))
    return [key_text(key) for key in keys]
