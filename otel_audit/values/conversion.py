"""Any value as a record may carry it: exact classes of JSON, as much of it as there is room for."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET

from otel_audit.interruptions import faults
from otel_audit.large_values import (
    BEGINNING,
    DEEPEST,
    LEFT_OUT,
    LONGEST,
    PART,
    Cut,
    cut_binary,
    left_out,
    rest_said,
    with_rest,
)
from otel_audit.long_texts import JSON_LENGTH, head_of, rest_of
from otel_audit.values.frozen import Encoded, Opaque
from otel_audit.values.scalars import (
    ATOMS,
    NAMED_SCALARS,
    NOTHING,
    SCALARS,
    base64_text,
    exactly,
    integer_text,
    is_row,
    own_text,
    plain_text,
    stand_in,
)

Portable: TypeAlias = "bool | int | float | str | list[Portable] | dict[str, Portable] | None"

_Part = TypeVar("_Part", bound=msgspec.Struct)

MAX_DEPTH: Final = DEEPEST
MAX_PARTS: Final = LONGEST // PART
"""Of one value, all levels together; of the changes, names or objects one record lists."""
_SHORTEST_HEAD: Final = 8 * 1024
"""Where less room is left, nothing of a long text is kept."""


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
        if kind in NOTHING:
            return value  # type: ignore[no-any-return]
        found = SCALARS.get(kind)
        if found is not None:
            if found[0] is base64_text and len(value) > LONGEST:
                return self._cut(cut_binary(value, base64_text))
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
            return stand_in(kind)
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
            return plain_text(value)
        if kind not in ATOMS and is_row(value):
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
        exact = exactly(value, kind)
        if exact is not UNSET:
            return self.portable(exact)
        if issubclass(kind, dict | Mapping):
            return self._mapping(value)
        if issubclass(kind, list | tuple):
            return self._items(value)
        if issubclass(kind, set | frozenset):
            return sorted(self._items(value), key=repr)
        for base in kind.__mro__:
            named = NAMED_SCALARS.get((base.__module__, base.__name__))
            if named is not None:
                SCALARS[kind] = named
                return named[0](value)  # type: ignore[no-any-return]
        if issubclass(kind, os.PathLike):
            return self.portable(os.fspath(value))
        return self._unknown(value, kind)

    def _unknown(self, value: Any, kind: type) -> Portable:
        if hasattr(kind, "tolist"):  # NumPy's and other arrays: their text leaves out the middle
            return self.portable(value.tolist())
        if hasattr(kind, "__index__"):
            return integer_text(kind.__index__(value))
        self.guessed = True
        text = own_text(value, kind)
        if text is None:
            self.complete = False
        return stand_in(kind) if text is None else text

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
        return "null" if key is None else self.text(key) or stand_in(type(key))

    def named(self, values: Mapping[Any, Any]) -> dict[str, Portable]:
        """Return named values as a record carries them, as many as there is room for names."""
        made: dict[str, Portable] = {}
        room = self._longest
        for key, value in values.items():
            name = self.text(key) or stand_in(type(key))
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
    if kind in NOTHING:
        return value  # type: ignore[no-any-return]
    found = SCALARS.get(kind)
    if found is None or (found[0] is base64_text and len(value) > LONGEST):
        return Conversion().portable(value)
    return found[0](value)  # type: ignore[no-any-return]


def portable_type(value: Any) -> str:
    """Name what :func:`portable` turned into text (``decimal``, ``datetime`` …), empty if JSON says it."""
    kind = type(value)
    if kind in NOTHING or kind is Encoded:
        return ""
    if kind is Cut:
        return value.type  # type: ignore[no-any-return]
    found = SCALARS.get(kind)
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
    for base, (_, name) in SCALARS.items():
        if issubclass(kind, base):
            return name
    for base in kind.__mro__:
        named = NAMED_SCALARS.get((base.__module__, base.__name__))
        if named is not None:
            return named[1]
    plain = (dict, Mapping, list, tuple, set, frozenset, os.PathLike)
    known = issubclass(kind, plain) or hasattr(kind, "tolist") or hasattr(kind, "__index__")
    return "" if known else "text"


def text(value: Any) -> str:
    """Return any value as the text of an id, name or reason; empty where it has none."""
    return value if type(value) is str and value.isascii() else Conversion().text(value)


def shorter(value: Any, limit: int) -> Any:
    """Return a portable structure, redacted already, of about ``limit`` characters; says how long it was."""
    length = len(msgspec.json.encode(value))
    if length <= limit:
        return value
    said = rest_said(value) or rest_of(length, "bytes")
    return with_rest(Conversion(limit).portable(value), said)
