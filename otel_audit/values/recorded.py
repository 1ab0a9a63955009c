"""What a record carries of frozen values: one, many at once, and keys as the ids of targets."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.interruptions import faults
from otel_audit.large_values import DEEPEST, FITS_WRITTEN, LONGEST, PLAIN_CONTAINERS, Cut
from otel_audit.values.conversion import Portable, portable, portable_type, text
from otel_audit.values.freezing import freeze
from otel_audit.values.frozen import Encoded, Frozen
from otel_audit.values.scalars import instant_text, instant_texts, is_encodable

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
    every = type(None) not in kinds
    kinds.discard(type(None))
    if kinds <= PLAIN_CONTAINERS:
        structures = _written_and_read(values)
        if structures is not None:
            return structures, True
    elif len(kinds) == 1:
        [kind] = kinds
        some = values if every else [value for value in values if value is not None]
        made: list[Portable] | None = None
        certain = True
        if kind is datetime.datetime:
            made = instant_texts(some)
        elif kind is Encoded:
            if max(map(len, some)) <= FITS_WRITTEN:
                together = _array(some)
                made, certain = _decode(together), _LARGE_NUMBER.search(together) is None
        elif kind in RECORDED:
            made = list(map(RECORDED[kind][0], some))
        if made is not None:
            return (made if every else with_gaps(values, made)), certain
    return [record_value(freeze(value))[0] for value in values], False


_FLAT: Final = frozenset({type(None), bool, int, float, str})
_LARGE_NUMBER: Final = re.compile(rb"[0-9]{19}")
"""In JSON: an integer of more than 64 bits may stand there."""
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def weigh_plain(values: list[Any], kinds: set[type]) -> int:
    """Return about how many bytes plain values are; -1 if one of them is not portable as it stands."""
    if int in kinds:
        numbers = values if len(kinds) == 1 else [value for value in values if type(value) is int]
        if max(numbers) >= 2**64 or min(numbers) < -(2**63):
            return -1
    if float in kinds and not all(math.isfinite(value) for value in values if type(value) is float):
        return -1
    if str not in kinds:
        return 8 * len(values)
    texts = values if len(kinds) == 1 else [value for value in values if type(value) is str]
    length = sum(map(len, texts))
    if length > LONGEST:  # many of them together are looked at in one go, long ones are not copied
        if not all(text.isascii() or is_encodable(text) for text in texts):
            return -1
    elif not (text := "".join(texts)).isascii() and not is_encodable(text):
        return -1
    return length + 8 * len(values)


def with_gaps(values: list[Any], made: Iterable[Any]) -> list[Any]:
    """Return what was made of values, ``None`` where there was none."""
    following = iter(made)
    return [None if value is None else next(following) for value in values]


def _written_and_read(structures: list[Any]) -> list[Portable] | None:
    """Do what freezing and recording do to structures; ``None`` where one may be too long, or no JSON."""
    try:
        written = list(map(_encode, structures))
    except faults():  # keys that are no text, lone surrogates, foreign objects
        return None
    longest = max(map(len, written))
    if longest > FITS_WRITTEN or (longest > DEEPEST and max(map(_levels, written)) > DEEPEST):
        return None
    together = _array(written)
    return None if _LARGE_NUMBER.search(together) else _decode(together)


def _array(items: Sequence[bytes]) -> bytes:
    """Return one JSON array of many values written as JSON: it is read in one go."""
    return b"[" + b",".join(items) + b"]"


def _levels(written: bytes) -> int:
    """Return how deep a structure may be at most, by its JSON."""
    return written.count(b"[") + written.count(b"{")


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
    if {*map(type, keys)} == {int}:
        with suppress(ValueError, OverflowError):  # of too many digits
            return _encode(keys)[1:-1].decode().split(",")  # takes a third of what str() takes for each
    return [key_text(key) for key in keys]
