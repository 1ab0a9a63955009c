"""The call that an object of a client belongs to: kept on the object, and gone with it."""

from __future__ import annotations

from typing import Any, Final

from otel_audit.http.outgoing.call import Call

CALL: Final = "_otel_audit_call"
"""Its name among the attributes of the object."""


def call_of(thing: Any) -> Call | None:
    """Return the call that belongs to a connection, request or response."""
    found: Call | None = getattr(thing, "__dict__", _NOTHING).get(CALL)
    return found


def attach(thing: Any, call: Call) -> None:
    """Let a call belong to ``thing``."""
    vars(thing)[CALL] = call


def detach(thing: Any) -> Call | None:
    """Return the call that belongs to ``thing``, which it does no longer."""
    found: Call | None = getattr(thing, "__dict__", _NOTHING).pop(CALL, None)
    return found


_NOTHING: Final[dict[str, Any]] = {}
