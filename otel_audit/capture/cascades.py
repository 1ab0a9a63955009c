"""What a database deletes and changes by itself, by the rules of foreign keys. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from otel_audit.capture.plan import TablePlan, Verb

_P = TypeVar("_P", bound=TablePlan)


def reachable(plan: _P, beyond: Callable[[_P], Iterable[tuple[_P, Verb]]]) -> Iterator[tuple[_P, Verb]]:
    """Yield the tables whose rows may go or change with rows deleted from one, each once with each verb.

    Args:
        plan: of the table that rows are deleted from.
        beyond: returns the tables that refer to one, with what becomes of their rows.
    """
    found: set[tuple[str, Verb]] = set()
    waiting = [plan]
    while waiting:
        for child, verb in beyond(waiting.pop()):
            if (child.label, verb) in found:
                continue
            found.add((child.label, verb))
            yield child, verb
            if verb == "delete":  # what is changed keeps its key
                waiting.append(child)
