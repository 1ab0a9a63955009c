"""Arguments of a task without secrets; nothing that they define is called, no ``__repr__``, no property."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel_audit.http.contents.documents import redacted
from otel_audit.http.contents.shortening import Shortened
from otel_audit.long_texts import head_of
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import ATOMS, Portable, plain_text, portable

LIMIT: Final = 8 * 1024
"""Bytes of all arguments together."""
_LEVELS: Final = 16
_ROOM: Final = 4 * LIMIT
"""Characters of all texts together that are looked at."""
_PART: Final = 8
_LONGEST: Final = 16 * 1024
_SCALARS: Final = ATOMS - {str, bytes}
_CONTAINERS: Final[tuple[Any, ...]] = (list, tuple, set, frozenset)
_PLAIN: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


def parameters(
    args: Sequence[Any], kwargs: Mapping[str, Any], redactor: ValueRedactor, names: Sequence[str] = ()
) -> dict[str, Portable]:
    """Return ``{"args": […], "kwargs": {…}}``; as for :meth:`.Contents.parameters`."""
    both = _Plain()
    positional = both.of(args if type(args) in (list, tuple) else ())
    named = both.of(kwargs if isinstance(kwargs, dict) else {})
    for position, (name, value) in enumerate(zip(names, positional, strict=False)):
        shown = redactor.mapping({name: value})
        positional[position] = shown.get(name, redactor.mask)
    made = redacted({"args": positional, "kwargs": named}, redactor)
    short = Shortened(made, LIMIT).value
    return short if isinstance(short, dict) else {}


def value(of: Any, redactor: ValueRedactor, limit: int) -> Portable:
    """Return any value without secrets, of at most ``limit`` bytes as JSON."""
    return Shortened(redacted(plain(of), redactor), limit).value


def plain(value: Any) -> Portable:
    """Return a value as portable as it is without its help: others stand there by the name of their class."""
    made: Portable = _Plain().of(value)
    return made


class _Plain:
    """Makes values portable by the methods of built-in classes alone; knows others by their class."""

    def __init__(self) -> None:
        self._room = _ROOM

    def of(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        self._room -= _PART
        if kind is str:
            return self._text(value)
        if kind in _SCALARS:
            # An aware time asks the class of its time zone.
            naive = getattr(value, "tzinfo", None) is None or type(value.tzinfo) is datetime.timezone
            return portable(value) if naive else _stand_in(kind)
        if depth >= _LEVELS:
            return "…"
        if issubclass(kind, dict):
            return self._mapping(value, depth)
        for base in _CONTAINERS:
            if issubclass(kind, base):
                made = self._items(base.__iter__(value), base.__len__(value), depth)
                return sorted(made, key=str) if base in (set, frozenset) else made
        if issubclass(kind, enum.Enum):
            return self.of(object.__getattribute__(value, "_value_"), depth + 1)
        for base, make in _PLAIN:
            if issubclass(kind, base):
                return self.of(make(value), depth)
        if issubclass(kind, bytes | bytearray):
            return f"<{(bytes if issubclass(kind, bytes) else bytearray).__len__(value)} bytes>"
        return _stand_in(kind)

    def _text(self, text: str) -> str:
        if len(text) > _LONGEST:
            text = head_of(text, _LONGEST) + "…"
        self._room -= len(text)
        return plain_text(text)

    def _mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in dict.items(value):
            if self._room <= 0:
                made["…"] = f"({dict.__len__(value)} keys)"
                break
            name = self.of(key, depth + 1)
            made[name if type(name) is str else str(name)] = self.of(item, depth + 1)
        return made

    def _items(self, items: Any, length: int, depth: int) -> list[Any]:
        made: list[Any] = []
        for item in items:
            if self._room <= 0:
                made.append(f"… ({length} items)")
                break
            made.append(self.of(item, depth + 1))
        return made


def _stand_in(kind: type) -> str:
    return f"<{type.__getattribute__(kind, '__module__')}.{type.__getattribute__(kind, '__qualname__')}>"
