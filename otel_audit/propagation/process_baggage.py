"""The ids of actor and request in the baggage of OpenTelemetry's context, for readers inside this process.

They are not put there as values. A request's actor is often known only once its view runs, and a value that
is there leaves with the next ``inject()``, by whatever propagator the application has set by then. So the
context has a mapping that says who acts whenever it is read, and nothing while anything injects: any function
named ``inject``, the one method that every propagator has to have, is among the callers.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context, set_value

from otel_audit.propagation.identity import is_ours, known

_INJECT: Final = "inject"
_DEPTH: Final = 40
"""Frames between an ``inject()`` and what reads the baggage for it, at most."""
(_BAGGAGE_KEY,) = baggage.set_baggage("any", "value", Context())
"""Where OpenTelemetry's context has the baggage; found out, because its name is private."""


class ProcessBaggage(dict[str, object]):
    """Baggage of others, and our ids for whoever reads it without sending it."""

    def __init__(self, others: Mapping[str, object]) -> None:
        super().__init__({name: value for name, value in others.items() if not is_ours(str(name))})

    def _now(self) -> dict[str, object]:
        plain = {name: dict.__getitem__(self, name) for name in dict.__iter__(self)}
        return plain if _is_injecting() else plain | known()

    def copy(self) -> ProcessBaggage:
        """Return what OpenTelemetry sets or removes an entry in, for a context of its own."""
        return ProcessBaggage({name: dict.__getitem__(self, name) for name in dict.__iter__(self)})

    __copy__ = copy

    def get(self, key: str, default: Any = None) -> Any:
        return self._now().get(key, default)

    def __getitem__(self, key: str) -> object:
        return self._now()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._now()

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return self._now().keys()

    def values(self) -> ValuesView[object]:  # type: ignore[override]
        return self._now().values()

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        return self._now().items()

    def __or__(self, other: Any) -> Any:
        return self._now() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._now()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self._now())

    def __reduce__(self) -> tuple[Any, ...]:
        """Become baggage of others where it is copied or sent to another process."""
        return dict, ({name: dict.__getitem__(self, name) for name in dict.__iter__(self)},)


def with_process_baggage(context: Context) -> Context:
    """Return a context whose baggage says who acts."""
    return set_value(_BAGGAGE_KEY, ProcessBaggage(baggage.get_all(context)), context)


def _is_injecting() -> bool:
    frame = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame.f_code.co_name == _INJECT:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
