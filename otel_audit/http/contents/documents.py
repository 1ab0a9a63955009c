"""Decoded documents without secrets: names decide first, then one look at all texts that are left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from otel_audit.redaction.named_values import may_be_apart, may_be_held
from otel_audit.redaction.names import removes
from otel_audit.redaction.text.patterns import SMALLEST_CARD
from otel_audit.redaction.text.together import any_may_hold_secret
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import portable

_SMALLEST: Final = -(2**63)
_LONGEST_HARMLESS: Final = 9
"""Characters of a text of letters and digits that holds nothing: the shortest secret by its shape has ten."""
_HARMLESS: Final = frozenset({type(None), bool, float})
_STRUCTURES: Final = frozenset({dict, list})
_AT_ONCE: Final = 8


def redacted(value: Any, redactor: ValueRedactor) -> Any:
    """Return a document of JSON, made of classes that JSON has, without its secrets and portable.

    Whoever calls this gives the document away: it may be changed in place. Its floats are finite.
    """
    return value if masked(value, redactor) else redactor.field("", portable(value))


def masked(value: Any, redactor: ValueRedactor, levels: float = math.inf) -> bool:
    """Mask what has a sensitive name, in place; say whether that is all that a document needs.

    False is only a doubt: anything else may be sensitive, or there are more ``levels``. They are counted with
    what stands under sensitive names, so that no list and no mapping is masked before a doubt.
    """
    if not redactor.builtin or redactor.has_own_values:
        return False
    names: list[str] = []
    texts: list[str] = []
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
                    return False
            elif kind is dict:
                mappings.append(item)
            elif kind is list:
                sequences.append(item)
            elif kind not in _HARMLESS:
                return False
        if not mappings and not sequences:
            return _are_clean(names, texts, redactor)
        if levels <= 0:
            return False
        if mappings and not _judged(mappings, redactor, names, texts, structures=levels == math.inf):
            return False
        if any(map(may_be_apart, sequences)) or any(map(_may_be_options, sequences)):
            return False
        levels -= 1
        items = chain.from_iterable([*map(dict.values, mappings), *sequences])


def _may_be_options(items: Sequence[Any]) -> bool:
    """Say whether items may be a command line, where what is an option says what comes next."""
    return str in map(type, items) and any(type(item) is str and item[:1] == "-" for item in items)


def _judged(
    mappings: Sequence[dict[str, Any]],
    redactor: ValueRedactor,
    names: list[str],
    texts: list[str],
    *,
    structures: bool,
) -> bool:
    """Mask the values of sensitive names, and add the others; False if one must be looked at by itself.

    ``structures``: values that are lists and mappings may be masked as well.
    """
    keys: set[str] = set().union(*mappings)
    if may_be_held(keys):
        return False
    for name in keys - redactor.clean_names:
        decision = redactor.names.decide(name)
        if decision == "clean":
            names.append(name)
        elif decision == "allowed":
            return False
        else:
            texts.append(name)
            for mapping in mappings:
                if name in mapping and removes(decision, mapping[name]):
                    if not structures and type(mapping[name]) in _STRUCTURES:
                        return False
                    mapping[name] = redactor.mask
    return True


def _are_clean(names: list[str], texts: list[str], redactor: ValueRedactor) -> bool:
    """Look at names and texts together, and at each only if that raises a doubt."""
    unknown = set(texts) - redactor.clean_texts
    unknown.discard(redactor.mask)
    some = [text for text in unknown if len(text) > _LONGEST_HARMLESS or not text.isalnum()]
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
