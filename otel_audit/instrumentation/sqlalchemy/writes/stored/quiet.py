"""Warnings that SQLAlchemy has for our own statements: nobody could act on them, and a filter may raise them.

Python's filters are those of the whole process: to change them for one statement would change them for all
threads. So the function is wrapped that SQLAlchemy warns by, and says nothing while a statement of ours runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

OURS: Final[ContextVar[bool]] = ContextVar("otel_audit_statement_of_ours", default=False)
"""A statement of ours is being compiled or run in this context."""


def quietly(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``sqlalchemy.util.langhelpers._warnings_warn``."""

    def warn(*args: Any, **kwargs: Any) -> Any:
        if not OURS.get():
            original(*args, **kwargs)

    return warn
