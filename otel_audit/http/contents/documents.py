"""Decoded documents without secrets: names decide first, then one look at all texts that are left."""

from __future__ import annotations

from typing import Any, Final

from otel_audit.redaction.named_values import may_be_apart
from otel_audit.redaction.names import removes
from otel_audit.redaction.text.patterns import SMALLEST_CARD
from otel_audit.redaction.text.together import any_may_hold_secret
from otel_audit.redaction.value_redactor import MAX_DEPTH, ValueRedactor

_HARMLESS: Final = frozenset({type(None), bool, float})


def redacted(value: Any, redactor: ValueRedactor) -> Any:
    """Return a portable structure that nobody else holds without the secrets in it."""
    if redactor.builtin and not redactor.has_own_values:
        names: list[str] = []
        texts: list[str] = []
        try:
            made = _part(value, redactor, names, texts, 0)
        except _Doubtful:
            return redactor.field("", value)
        if not any_may_hold_secret([*names, *texts]):
            redactor.remember_clean(names, ())
            return made
    return redactor.field("", value)


class _Doubtful(Exception):
    """Something must be looked at by itself."""


def _part(value: Any, redactor: ValueRedactor, names: list[str], texts: list[str], depth: int) -> Any:
    """Mask what has a sensitive name; add the names and texts that are left."""
    kind = type(value)
    if kind is str:
        if value != redactor.mask:
            texts.append(value)
    elif kind is int:
        if value >= SMALLEST_CARD:
            raise _Doubtful
    elif kind is dict:
        return _mapping(value, redactor, names, texts, depth)
    elif kind is list:
        if depth >= MAX_DEPTH or may_be_apart(value):
            raise _Doubtful
        if any(type(item) is str and item[:1] == "-" for item in value):
            raise _Doubtful  # a command line, where what is an option says what comes next
        return [_part(item, redactor, names, texts, depth + 1) for item in value]
    elif kind not in _HARMLESS:
        raise _Doubtful
    return value


def _mapping(
    value: dict[str, Any], redactor: ValueRedactor, names: list[str], texts: list[str], depth: int
) -> dict[str, Any]:
    if depth >= MAX_DEPTH or may_be_apart(value):
        raise _Doubtful
    made: dict[str, Any] = {}
    known, decide = redactor.clean_names, redactor.names.decide
    for name, item in value.items():
        if name not in known:
            decision = decide(name)
            if decision == "clean":
                names.append(name)
            elif decision == "allowed":
                raise _Doubtful
            else:
                texts.append(name)
                if removes(decision, item):
                    made[name] = redactor.mask
                    continue
        made[name] = _part(item, redactor, names, texts, depth + 1)
    return made
