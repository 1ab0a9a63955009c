"""What captured writes hold until their transaction ends: values nobody can change. Are two the same?"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from otel_audit.interruptions import faults
from otel_audit.large_values import Cut, cut_binary, cut_text, digest_of_json
from otel_audit.values.scalars import ATOMS, base64_text, stand_in

Frozen: TypeAlias = Any
"""An instance of one of :data:`ATOMS`, an :class:`Encoded`, a :class:`Cut` or an :class:`Opaque`."""


class Encoded(bytes):
    """A mutable value as JSON, made when the value was seen."""

    __slots__ = ()


class Opaque:
    """An object without a text of its own: equal to nothing but itself, recorded by the name of its class."""

    __slots__ = ("text", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.text = stand_in(type(value))

    def __eq__(self, other: object) -> bool:
        return type(other) is Opaque and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


FROZEN: Final = ATOMS | {Encoded, Opaque, Cut}
"""Classes of frozen values."""


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
    return kind is bytes and len(value) == cut.length and cut_binary(value, base64_text) == cut


def _sorted(value: Encoded) -> bytes:
    """Write JSON with its keys in order."""
    return msgspec.json.encode(msgspec.json.decode(value), order="sorted")
