"""The scope of a task: whatever is done in it is done by the task, for whoever has published it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_audit.audit_context import AuditContext, StarterScope, SystemScope, current_context, enter_context
from otel_audit.audit_record import Actor
from otel_audit.runs.scope import Entered

if TYPE_CHECKING:
    from otel_audit.propagation.incoming import Accepted


def enter_task(name: str, accepted: Accepted | None = None) -> Entered | None:
    """Make a task the current work, until :func:`otel_audit.runs.scope.leave`.

    Called eagerly, inside a request, a command or another task, it is part of that and has none of its own.

    Args:
        name: its id as an actor, and the way through.
        accepted: what can be believed of who published it.

    Returns:
        None if all stays as it was.
    """
    outer = current_context()
    above = None if outer is None else outer.scope
    if above is not None and not (isinstance(above, StarterScope) and above.ended):
        return None
    actor, origin, parent = Actor(id=name, type="system"), None, ""
    overrides = () if outer is None else outer.overrides
    if accepted is not None:
        actor, origin = accepted.actor(actor), accepted.origin
        parent = "" if origin is None else origin.request
        if accepted.tenant:
            overrides = ({"tenant": accepted.tenant}, *overrides)
    scope = SystemScope(actor, name, parent, origin)
    return Entered(enter_context(AuditContext(scope, overrides)), scope)
