"""A command as a piece of work: without a request or a task, the command is the actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    current_context,
    enter_context,
    leave_scope,
)
from otel_audit.audit_record import Actor

_Result = TypeVar("_Result")


def in_command(name: str, view: str, run: Callable[[], _Result]) -> _Result:
    """Run a command, whatever library it is of.

    A command called by another, or by a task, keeps the outer one as actor and says its own ``view`` as the
    way through; one called inside a request leaves the request as it is.

    Args:
        name: the command as it was typed: ``manage.py migrate``.
    """
    outer = current_context()
    scope = None if outer is None else outer.scope
    if scope is None or (isinstance(scope, StarterScope) and scope.ended):
        actor = Actor(id=name, type="system")
    elif isinstance(scope, SystemScope):
        actor = scope.fields().actor
    else:
        return run()
    inside = SystemScope(actor, view)
    token = enter_context(AuditContext(inside, () if outer is None else outer.overrides))
    try:
        return run()
    finally:
        leave_scope(token)
        inside.ended = True
