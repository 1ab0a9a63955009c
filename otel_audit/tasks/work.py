"""The scope of a task: whatever is done in it is done by the task, for whoever has published it."""

from __future__ import annotations

from contextlib import suppress
from contextvars import Token
from typing import TYPE_CHECKING

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    current_context,
    enter_context,
    leave_scope,
)
from otel_audit.audit_record import Actor

if TYPE_CHECKING:
    from otel_audit.propagation.incoming import Accepted


class TaskWork:
    """The scope of a task, entered; whatever is done until :meth:`leave` is done by the task.

    Called eagerly, inside a request, a command or another task, it is part of that and has none of its own.
    """

    def __init__(self, name: str, accepted: Accepted | None = None) -> None:
        self.scope: SystemScope | None = None
        self._token: Token[AuditContext | None] | None = None
        outer = current_context()
        above = None if outer is None else outer.scope
        if above is not None and not (isinstance(above, StarterScope) and above.ended):
            return
        actor, origin, parent = Actor(id=name, type="system"), None, ""
        overrides = () if outer is None else outer.overrides
        if accepted is not None:
            actor, origin = accepted.actor(actor), accepted.origin
            parent = "" if origin is None else origin.request
            if accepted.tenant:
                overrides = ({"tenant": accepted.tenant}, *overrides)
        self.scope = SystemScope(actor, name, parent, origin)
        self._token = enter_context(AuditContext(self.scope, overrides))

    def leave(self) -> None:
        """Restore what was there before."""
        if self.scope is not None:
            self.scope.ended = True
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # another context than the task began in: a pool that switches between
                leave_scope(token)
