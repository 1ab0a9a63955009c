"""PostgreSQL's ``jsonb``: its numbers are ``numeric``, whatever they were written as."""

from __future__ import annotations

import decimal
import re
from typing import Any, Final

import msgspec

from otel_audit.values import Encoded, freeze

_has_exponent: Final = re.compile(rb"[0-9][eE]\+?[0-9]").search


def unlike_numeric(text: bytes) -> bool:
    """Say whether a number in JSON may be written otherwise than ``jsonb`` writes it."""
    return b"-0.0" in text or _has_exponent(text) is not None


def as_numeric(frozen: Any) -> Any:
    """Return a document as PostgreSQL's ``jsonb`` holds it: its numbers have digits and no exponent.

    So a float that is written with one is read as an integer, and zero has no sign.
    """
    if type(frozen) is float:
        return _digits(frozen)
    if type(frozen) is Encoded and unlike_numeric(frozen):
        return freeze(_numeric_parts(msgspec.json.decode(frozen)))
    return frozen


def _numeric_parts(value: Any) -> Any:
    if type(value) is dict:
        return {name: _numeric_parts(part) for name, part in value.items()}
    if type(value) is list:
        return [_numeric_parts(part) for part in value]
    return _digits(value) if type(value) is float else value


def _digits(value: float) -> float | int:
    if "e+" in (text := repr(value)):
        return int(decimal.Decimal(text))
    return value or 0.0
