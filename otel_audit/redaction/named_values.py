"""A name under one key and its value under another, or beside it: forms, HAR files, Kubernetes, HTTP headers.

``{"name": "password", "value": "x"}``, ``{"field": "token", "old": "x", "new": "y"}``, and lists of pairs,
``[["authorization", "x"], ["accept", "*/*"]]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from otel_audit.redaction.lazy import pattern

_NAMING: Final = tuple(
    "name key field field_name header param parameter attribute property variable".split()  # noqa: SIM905
)
_VALUE: Final = ("value", "values", "val", "vals")
_HOLDING: Final = (
    *(*_VALUE, "old", "new", "before", "after"),
    *(f"{which}_{value}" for which in ("old", "new", "previous", "current") for value in _VALUE),
)


def _spellings(names: Sequence[str]) -> frozenset[str]:
    """Return the names as keys are spelled: ``old_value``, ``Old_Value``, ``OLD_VALUE``, ``oldValue``."""
    camel = (name[0] + name.title().replace("_", "")[1:] for name in names)
    return frozenset((*names, *map(str.title, names), *map(str.upper, names), *camel))


def _any_of(names: Sequence[str]) -> str:
    return "|".join(names).replace("_", "_?")


_NAMING_KEYS: Final = _spellings(_NAMING)
_HOLDING_KEYS: Final = _spellings(_HOLDING)

NAMING = pattern(
    rf"""(?<![\w.\-])(?:{_any_of(_NAMING)})
        \\*["']?[ \t]{{0,8}}+(?:=>|[:=])[ \t]{{0,8}}+[bBuU]?\\*["']?(?P<name>[\w.\-\[\]$]++)""",
    re.VERBOSE | re.IGNORECASE,
)
HOLDING = pattern(
    rf"""(?:[,;&{{\n]|\\n)[\s\-]{{0,64}}+\\{{0,4}}+["']?
        ({_any_of(_HOLDING)})
        \\*["']?[ \t]{{0,8}}+(?:=>|[:=])[ \t]{{0,8}}+""",
    re.VERBOSE | re.IGNORECASE,
)
"""In a text: what comes after it is the value of a name that NAMING finds near it."""


def may_be_apart(structure: Mapping[str, Any] | Sequence[Any]) -> bool:
    """Say quickly whether a mapping or a sequence may hold names apart from their values."""
    if type(structure) is dict or (type(structure) is not list and isinstance(structure, Mapping)):
        return not _HOLDING_KEYS.isdisjoint(structure)
    first = structure[0] if structure else None
    return isinstance(first, (list, tuple)) and len(first) == 2 and isinstance(first[0], str)


def may_be_held(names: Iterable[str]) -> bool:
    """Say whether one of some names may stand above the value of another name."""
    return not _HOLDING_KEYS.isdisjoint(names)


def held_by(mapping: Mapping[str, Any], is_secret: Callable[[str], bool]) -> frozenset[str]:
    """Return the keys of a mapping whose values belong to a secret that another key names."""
    if _HOLDING_KEYS.isdisjoint(mapping):
        return frozenset()
    for key in _NAMING_KEYS.intersection(mapping):
        name = mapping[key]
        if type(name) is str and is_secret(name):
            return _HOLDING_KEYS.intersection(mapping)
    return frozenset()


def without_name(mapping: Mapping[str, Any]) -> list[str]:
    """Return the keys of a mapping whose values belong to a name that it does not have, or no longer has."""
    if _HOLDING_KEYS.isdisjoint(mapping) or not _NAMING_KEYS.isdisjoint(mapping):
        return []
    return [key for key in mapping if key in _HOLDING_KEYS]


def are_apart(names: Collection[str]) -> bool:
    """Say whether one of some names may name what stands under another: ``name=password&value=x``."""
    return not _HOLDING_KEYS.isdisjoint(names) and not _NAMING_KEYS.isdisjoint(names)


def are_pairs(items: Sequence[Any]) -> bool:
    """Say whether a sequence has only pairs of a name and a value, as the headers of a request."""
    return bool(items) and all(
        isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) for item in items
    )
