"""Fields that prepare the same value differently each time: encrypted with a random vector, salted.

What such a field stores says nothing about whether its value has changed, and is nobody's business. Values
are compared as the instance holds them, and masked. A field is never made to prepare a value for us, that may
have effects; how it does it is known by its class, by the code of its methods, by the configuration, or
because it has prepared the same value twice in the work of the application and the results differ.
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any, Final

from msgspec import UNSET

from otel_audit.capture.plan import HIDING_WORDS, is_called
from otel_audit.large_values import Cut
from otel_audit.values import FROZEN, Encoded, Opaque, freeze_known

_PREPARING: Final = ("get_prep_value", "get_db_prep_value", "get_db_prep_save")
_TELLING: Final = frozenset(
    {
        "bcrypt",
        "fernet",
        "gensalt",
        "get_random_string",
        "hashpw",
        "make_password",
        "nonce",
        "randbytes",
        "secrets",
        "systemrandom",
        "token_bytes",
        "token_hex",
        "token_urlsafe",
        "urandom",
        "uuid1",
        "uuid4",
    }
)
_STEMS: Final = ("encrypt", "cipher")
_DEPTH: Final = 4
_FUNCTIONS: Final = 64
_VALUES: Final = 256
"""Prepared values of a field that are remembered, by hash."""


def says_so(field: Any) -> bool:
    """Say whether the class of a field, or one it inherits from, is called after what it does."""
    return is_called(type(field), HIDING_WORDS)


def randomises(field: Any) -> bool:
    """Say whether the code that prepares a field's values uses randomness or a cipher by name.

    Follows calls of the application's own functions and of methods of the field, a few levels deep.
    """
    waiting: list[tuple[Any, int]] = [(getattr(type(field), name, None), 0) for name in _PREPARING]
    seen: set[CodeType] = set()
    while waiting and len(seen) < _FUNCTIONS:
        function, depth = waiting.pop()
        function = getattr(function, "__func__", function)
        if not isinstance(function, FunctionType) or str(function.__module__).startswith("django."):
            continue
        code = function.__code__
        if code in seen:
            continue
        seen.add(code)
        names = _names(code)
        if any(_tells(name) for name in names):
            return True
        if depth < _DEPTH:
            waiting += [(function.__globals__.get(name), depth + 1) for name in names]
            waiting += [(getattr(type(field), name, None), depth + 1) for name in names]
    return False


def _names(code: CodeType) -> set[str]:
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _tells(name: str) -> bool:
    name = name.lower()
    return name.strip("_") in _TELLING or any(stem in name for stem in _STEMS)


class Preparations:
    """What one field has prepared lately, by hash: enough to see that it does so differently each time."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def differ(self, value: Any, prepared: Any) -> bool:
        """Note what was prepared of a value; say whether it was something else before."""
        known = freeze_known(value)
        made = freeze_known(prepared)
        if known is None or known is UNSET or made is UNSET:
            return False
        if len(self._seen) >= _VALUES:
            self._seen.clear()
        return self._seen.setdefault(_hash(known), _hash(made)) != _hash(made)


def _hash(frozen: Any) -> int:
    kind = type(frozen)
    # Others may be equal and be prepared differently all the same: 1.0 and 1.00.
    return hash((kind, frozen if kind in (str, bytes, int, Encoded, Cut) else repr(frozen)))


def in_memory(value: Any) -> Any:
    """Freeze a value without asking its field: by what it is made of, else as itself."""
    known = freeze_known(value)
    if known is not UNSET:
        return known
    parts = freeze_known(getattr(value, "__dict__", UNSET))
    return parts if type(parts) in FROZEN and parts is not UNSET else Opaque(value)


def held(instance: Any, name: str, value: Any) -> Any:
    """Return what an instance holds under a name, as it was set and not as a descriptor shows it."""
    found = getattr(instance, "__dict__", {}).get(name, UNSET)
    return value if found is UNSET or hasattr(found, "resolve_expression") else found
