"""Any value frozen at the moment it is seen; of one too long for a record, its beginning and a hash."""

from __future__ import annotations

import enum
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.interruptions import faults
from otel_audit.large_values import (
    BEGINNING,
    CONTAINERS,
    FITS_WRITTEN,
    LONGEST,
    PART,
    PLAIN_CONTAINERS,
    Cut,
    cut_binary,
    cut_structure,
    cut_text,
    fits,
    is_small,
)
from otel_audit.long_texts import JSON_LENGTH
from otel_audit.values.conversion import MAX_DEPTH, Conversion, portable
from otel_audit.values.frozen import FROZEN, Encoded, Frozen, Opaque
from otel_audit.values.scalars import ATOMS, base64_text, exactly, is_row

_SHORT_DOCUMENT: Final = 4 * 1024
"""Bytes: whatever they hold, a record carries all of it."""
_SHALLOW: Final = 2 * MAX_DEPTH
"""Bytes of JSON that is not too deep, whatever it holds: each level has a bracket at both ends."""


def freeze(value: Any) -> Frozen:
    """Make a value that nobody can change afterwards; never evaluates the ``__str__`` of a mapped object."""
    kind = type(value)
    if kind in FROZEN:
        return value
    try:
        if kind is memoryview or kind is bytearray:
            return bytes(value) if len(value) <= LONGEST else cut_binary(value, base64_text)
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
    exact = exactly(value, kind)
    if exact is not UNSET:
        return exact
    if is_row(value):
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


def freeze_structures(values: list[Any]) -> list[Frozen] | None:
    """Freeze many dicts, lists and tuples, None among them, at once.

    ``None`` where one may be too long or too deep, or is no plain JSON: :func:`freeze` tells of each.
    """
    frozen: list[Frozen] = []
    try:
        for value, text in zip(values, map(msgspec.json.encode, values), strict=True):
            if len(text) > _SHALLOW and (
                len(text) > FITS_WRITTEN or text.count(b"{") + text.count(b"[") > MAX_DEPTH
            ):
                return None  # at the first of them: no more than one is written in vain
            frozen.append(None if value is None else Encoded(text))
    except faults():  # as in _encode
        return None
    return frozen


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
    return cut_text(frozen) if type(frozen) is str else cut_binary(frozen, base64_text)
