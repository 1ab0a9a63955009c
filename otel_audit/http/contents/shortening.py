"""A portable value made short enough for its place: its texts, lists and levels; it says what went.

What comes here is redacted already, so it may be cut anywhere.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from otel_audit.large_values import LEFT_OUT
from otel_audit.long_texts import rest_of
from otel_audit.values import Portable

_encode: Final = msgspec.json.Encoder().encode
_STEPS: Final = (
    *((4096, 1000, 32), (1024, 1000, 32), (256, 1000, 32), (256, 100, 24), (256, 20, 12)),
    *((128, 8, 8), (64, 4, 5), (32, 2, 3)),
)
"""Characters of a text, items of a list, levels: tried in this order until a value fits."""


class Shortened:
    """A value of at most ``limit`` bytes as JSON; ``value`` is None if not even a note fits.

    ``cut`` says what was cut, in words; it is empty if nothing was. Of a value that is not ``whole``, only a
    beginning, nobody knows how many items it had.
    """

    __slots__ = ("_items", "_levels", "_texts", "_whole", "cut", "value")

    def __init__(self, value: Portable, limit: int, *, whole: bool = True) -> None:
        self._whole = whole
        self.value = value
        self.cut = ""
        if _size(value) <= limit:
            return
        for length, items, levels in _STEPS:
            self._texts = self._items = self._levels = 0
            made = self._part(value, length, items, levels)
            if _size(made) <= limit:
                self.value, self.cut = made, self._said()
                return
        note = rest_of(_size(value), "bytes")
        self.value = note if _size(note) <= limit else None
        self.cut = "too large to be shown"

    def _part(self, value: Any, length: int, items: int, levels: int) -> Any:
        kind = type(value)
        if kind is str:
            if len(value) <= length:
                return value
            self._texts += 1
            return value[:length] + rest_of(len(value))
        if kind is not dict and kind is not list:
            return value
        unit = "keys" if kind is dict else "items"
        if levels <= 0:
            self._levels += 1
            return self._rest(len(value), unit)
        below = levels - 1
        if kind is list:
            made = [self._part(item, length, items, below) for item in value[:items]]
            if len(value) > items:
                self._items += len(value) - items
                made.append(self._rest(len(value), unit))
            return made
        named: dict[str, Any] = {}
        for name, item in value.items():
            if len(named) >= items:
                self._items += len(value) - items
                named[LEFT_OUT] = self._rest(len(value), unit)
                break
            named[self._part(name, length, items, below)] = self._part(item, length, items, below)
        return named

    def _rest(self, length: int, unit: str) -> str:
        return f"{LEFT_OUT} ({length} {unit})" if self._whole else LEFT_OUT

    def _said(self) -> str:
        counts = ((self._texts, "text"), (self._items, "item"), (self._levels, "deep level"))
        return ", ".join([f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count])


def shortened_text(text: str, limit: int) -> tuple[str, str]:
    """Return a text of at most ``limit`` bytes as JSON, and what was cut of it in words."""
    size = _size(text)
    if size <= limit:
        return text, ""
    said = rest_of(len(text))
    room = limit - _size(said)
    kept = text[: max(0, room)]
    while kept and (size := _size(kept) - 2) > room:
        kept = kept[: len(kept) * room // size if size > 2 * room else len(kept) - (size - room + 5) // 6]
    cut = f"{len(text) - len(kept)} characters"
    return (kept + said, cut) if room >= 0 else ("", cut)


def _size(value: Any) -> int:
    return len(_encode(value))
