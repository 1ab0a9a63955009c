"""Decoded documents without secrets: names decide first, then one look at all texts that are left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from otel_audit.redaction.named_values import may_be_apart
from otel_audit.redaction.names import removes
from otel_audit.redaction.text.patterns import SMALLEST_CARD
from otel_audit.redaction.text.together import any_may_hold_secret
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.values import portable

_SMALLEST: Final = -(2**63)
_LONGEST_HARMLESS: Final = 9
"""Characters of a text of letters and digits that holds nothing: the shortest secret by its shape has ten."""
_HARMLESS: Final = frozenset({type(None), bool, float})


def redacted(value: Any, redactor: ValueRedactor) -> Any:
    """Return a document of JSON, made of classes that JSON has, without its secrets and portable.

    Whoever calls this gives the document away: it may be changed in place. Its floats are finite.
    """
    if redactor.builtin and not redactor.has_own_values and _is_clean_but_for_names(value, redactor):
        return value
    return redactor.field("", portable(value))


def _is_clean_but_for_names(value: Any, redactor: ValueRedactor) -> bool:
    """Mask what has a sensitive name; say whether nothing else in a document can be sensitive."""
    names: list[str] = []
    texts: list[str] = []
    known = redactor.clean_names
    containers: list[Any] = [value] if type(value) is dict or type(value) is list else [[value]]
    for container in containers:  # grows
        if may_be_apart(container):
            return False
        items: Iterable[Any] = container
        if type(container) is dict:
            items = container.values()
            if not known.issuperset(container) and not _judge(container, redactor, names, texts):
                return False
        for item in items:
            kind = type(item)
            if kind is str:
                if len(item) > _LONGEST_HARMLESS or not item.isalnum():
                    texts.append(item)
            elif kind is int:
                if not _SMALLEST <= item < SMALLEST_CARD:
                    return False
            elif kind is dict or kind is list:
                containers.append(item)
            elif kind not in _HARMLESS:
                return False
        if items is container and any(type(item) is str and item[:1] == "-" for item in container):
            return False  # a command line, where what is an option says what comes next
    return _are_clean(names, texts, redactor)


def _are_clean(names: list[str], texts: list[str], redactor: ValueRedactor) -> bool:
    """Look at names and texts together."""
    unknown = set(texts) - redactor.clean_texts
    unknown.discard(redactor.mask)
    if any_may_hold_secret([*names, *unknown]):
        return False
    if names:
        redactor.remember_clean(names, ())
    return True


def _judge(mapping: dict[str, Any], redactor: ValueRedactor, names: list[str], texts: list[str]) -> bool:
    """Mask the values of sensitive names, and add the others; False if one must be looked at by itself."""
    for name in [name for name in mapping if name not in redactor.clean_names]:
        decision = redactor.names.decide(name)
        if decision == "clean":
            names.append(name)
        elif decision == "allowed":
            return False
        else:
            texts.append(name)
            if removes(decision, mapping[name]):
                mapping[name] = redactor.mask
    return True
