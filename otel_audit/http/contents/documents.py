"""Decoded documents without secrets: names decide first, then one look at all texts that are left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from otel_audit.redaction.named_values import may_be_apart, may_be_held
from otel_audit.redaction.names import removes
from otel_audit.redaction.text.patterns import SMALLEST_CARD
from otel_audit.redaction.text.suspicions import BESIDE
from otel_audit.redaction.text.together import any_may_hold_secret
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import portable

_SMALLEST: Final = -(2**63)
_LONGEST_HARMLESS: Final = 9
"""Characters of a text that has no shape of a secret: the shortest has ten."""
_HARMLESS: Final = frozenset({type(None), bool})
_TEXTS: Final = frozenset({str})
_NUMBERS: Final = frozenset({int})
_STRUCTURES: Final = frozenset({dict, list})
_AT_ONCE: Final = 8
_ROWS: Final = 8
_COLUMNS: Final = 2
"""Of a table that is looked at column by column."""

DOUBT: Final = 0
MASKED: Final = 1
UNTOUCHED: Final = 2
"""As it was, and without floats, which may be written longer than they came."""


def redacted(value: Any, redactor: ValueRedactor) -> Any:
    """Return a document of JSON, made of classes that JSON has, without its secrets and portable.

    Whoever calls this gives the document away: it may be changed in place. Its floats are finite.
    """
    return value if masked(value, redactor) else redactor.field("", portable(value))


def masked(value: Any, redactor: ValueRedactor, levels: float = math.inf) -> int:
    """Mask what has a sensitive name, in place; say whether that is all that a document needs.

    :data:`DOUBT` (false) is only that: anything else may be sensitive, or there are more ``levels``. They are
    counted with what stands under sensitive names, so that no list and no mapping is masked before a doubt.
    """
    if not redactor.builtin or redactor.has_own_values:
        return DOUBT
    names: list[str] = []
    texts: list[str] = []
    found = UNTOUCHED
    items: Iterable[Any] = (value,)
    while True:  # level by level, so that names are looked up once for all rows of a table
        mappings: list[dict[str, Any]] = []
        sequences: list[list[Any]] = []
        for item in items:
            kind = type(item)
            if kind is str:
                texts.append(item)
            elif kind is int:
                if not _SMALLEST <= item < SMALLEST_CARD:
                    return DOUBT
            elif kind is dict:
                mappings.append(item)
            elif kind is list:
                sequences.append(item)
            elif kind is float:
                found = MASKED
            elif kind not in _HARMLESS:
                return DOUBT
        if not mappings and not sequences:
            return found if _are_clean(names, texts, redactor) else DOUBT
        if levels <= 0 or any(map(may_be_apart, sequences)) or any(map(_may_be_options, sequences)):
            return DOUBT
        keys: set[str] = set().union(*mappings)
        found = min(found, _judged(keys, mappings, redactor, names, texts, structures=levels == math.inf))
        if not found:
            return DOUBT
        levels -= 1
        items = chain.from_iterable([*_values(keys, mappings, texts), *sequences])


def _values(keys: set[str], mappings: Sequence[dict[str, Any]], texts: list[str]) -> Iterable[Iterable[Any]]:
    """Return the values of some mappings; of a table, add columns of texts, and leave out harmless ones."""
    if len(mappings) < _ROWS or set(map(len, mappings)) != {len(keys)} or len(keys) < _COLUMNS:
        return map(dict.values, mappings)
    others = []
    for column in zip(*map(itemgetter(*keys), mappings), strict=True):
        kinds = set(map(type, column))
        if kinds == _TEXTS:
            texts += column
        elif not (kinds <= _HARMLESS or (kinds == _NUMBERS and _are_small(column))):
            others.append(column)
    return others


def _are_small(numbers: Sequence[int]) -> bool:
    return min(numbers) >= _SMALLEST and max(numbers) < SMALLEST_CARD


def _may_be_options(items: Sequence[Any]) -> bool:
    """Say whether items may be a command line, where what is an option says what comes next."""
    return str in map(type, items) and any(type(item) is str and item[:1] == "-" for item in items)


def _judged(
    keys: set[str],
    mappings: Sequence[dict[str, Any]],
    redactor: ValueRedactor,
    names: list[str],
    texts: list[str],
    *,
    structures: bool,
) -> int:
    """Mask the values of sensitive names, and add the others; a doubt if one must be looked at by itself.

    ``structures``: values that are lists and mappings may be masked as well.
    """
    if may_be_held(keys):
        return DOUBT
    found = UNTOUCHED
    for name in keys - redactor.clean_names:
        decision = redactor.names.decide(name)
        if decision == "clean":
            names.append(name)
        elif decision == "allowed":
            return DOUBT
        else:
            texts.append(name)
            for mapping in mappings:
                if name in mapping and removes(decision, mapping[name]):
                    if not structures and type(mapping[name]) in _STRUCTURES:
                        return DOUBT
                    mapping[name] = redactor.mask
                    found = MASKED
    return found


def _are_clean(names: list[str], texts: list[str], redactor: ValueRedactor) -> bool:
    """Look at names and texts together, and at each only if that raises a doubt."""
    unknown = set(texts) - redactor.clean_texts
    unknown.discard(redactor.mask)
    if len(unknown) < _ROWS:
        some = [text for text in unknown if len(text) > _LONGEST_HARMLESS or not text.isalnum()]
    else:
        some = [text for text in unknown if len(text) > _LONGEST_HARMLESS]
        short = "".join([text for text in unknown if len(text) <= _LONGEST_HARMLESS])
        if not short.isalnum() and any(map(short.__contains__, BESIDE)):
            some += [text for text in unknown if len(text) <= _LONGEST_HARMLESS and not text.isalnum()]
    if any_may_hold_secret([*names, *some]) and not (
        _are_unchanged(names, redactor) and _are_unchanged(some, redactor)
    ):
        return False
    if names:
        redactor.remember_clean(names, ())
    return True


def _are_unchanged(texts: Sequence[str], redactor: ValueRedactor) -> bool:
    """Say whether no rule changes any of some texts."""
    return not any(
        redactor.text(text) is not text  # one that is clean by itself is known from now on
        for start in range(0, len(texts), _AT_ONCE)
        if any_may_hold_secret(texts[start : start + _AT_ONCE])
        for text in texts[start : start + _AT_ONCE]
    )
