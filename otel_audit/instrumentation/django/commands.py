"""Makes each management command a scope: without a request, the command is the actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    current_context,
    enter_context,
    leave_scope,
)
from otel_audit.audit_record import Actor


def in_command_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``BaseCommand.execute``, which both ``manage.py`` and ``call_command`` go through.

    A command called by another, or by a task, keeps the outer one as actor and says its own class as the way
    through; one called inside a request leaves the request as it is.
    """

    def execute(command: Any, /, *args: Any, **kwargs: Any) -> Any:
        outer = current_context()
        scope = None if outer is None else outer.scope
        if scope is None or (isinstance(scope, StarterScope) and scope.ended):
            actor = Actor(id=f"manage.py {command_name(command)}", type="system")
        elif isinstance(scope, SystemScope):
            actor = scope.fields().actor
        else:
            return original(command, *args, **kwargs)
        view = f"{type(command).__module__}.{type(command).__qualname__}"
        overrides = () if outer is None else outer.overrides
        inside = SystemScope(actor, view)
        token = enter_context(AuditContext(inside, overrides))
        try:
            return original(command, *args, **kwargs)
        finally:
            leave_scope(token)
            inside.ended = True

    return execute


def command_name(command: Any) -> str:
    """Name a command as it is called: by the module that holds its class."""
    return type(command).__module__.rpartition(".")[2]
