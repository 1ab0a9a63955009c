"""Values of a command as they would stand on a command line. Nothing of the application's is called."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from otel_audit.values.scalars import ATOMS


def option(name: str, value: Any) -> Iterator[str]:
    """Yield an option with its value: ``--years=20``, ``--force``; nothing for None and False."""
    if value is None or value is False:
        return
    if value is True:
        yield name
    elif type(value) in (list, tuple, set, frozenset):
        for item in value:
            yield f"{name}={shown(item)}"
    else:
        yield f"{name}={shown(value)}"


def shown(value: Any) -> str:
    """Return a value as text; ``<its class>`` for an object of the application's."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        value = value._value_
        kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, str):
        return str.__str__(value)
    if kind is bytes:
        return value.decode("utf-8", "replace")  # type: ignore[no-any-return]
    if kind in ATOMS or kind.__module__ == PurePath.__module__:
        return str(value)
    return f"<{kind.__qualname__}>"
