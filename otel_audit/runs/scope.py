"""A command or job as a piece of work: without a request or a task around it, it is the actor."""

from __future__ import annotations

from contextlib import suppress
from contextvars import Token

import msgspec

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    current_context,
    enter_context,
    laid_over,
    leave_scope,
)
from otel_audit.audit_record import Actor, new_record_id
from otel_audit.named_tuples import NamedTuple


class Entered(NamedTuple):
    """The current work; give it to :func:`leave`. ``scope``: its own, None where it is part of a request."""

    token: Token[AuditContext | None]
    scope: SystemScope | None


def enter(actor: str, view: str, *, recorded: bool) -> Entered | None:
    """Make a command or job the current work.

    One called by another, or by a task, keeps the outer one as actor and says its own ``view`` as the
    way through. In a request the user acts, and the request stays the way through: what is ``recorded`` there
    gets an id of its own, with the request as its parent.

    Args:
        actor: its id as an actor: ``manage.py migrate``.
        view: its function.
        recorded: whether it has a record of its own.

    Returns:
        None if all stays as it was.
    """
    outer = current_context()
    scope = None if outer is None else outer.scope
    overrides = () if outer is None else outer.overrides
    if outer is None or scope is None:
        inside = SystemScope(Actor(id=actor, type="system"), view, is_parent=recorded)
    elif isinstance(scope, StarterScope) and scope.ended:
        origin = scope.fields().origin
        inside = SystemScope(Actor(id=actor, type="system"), view, origin=origin, is_parent=recorded)
    elif isinstance(scope, SystemScope):
        fields = scope.fields()
        is_parent = recorded or scope.is_parent
        inside = SystemScope(fields.actor, view, fields.request.id, fields.origin, is_parent=is_parent)
    elif recorded:
        request = outer.fields().request
        own = msgspec.structs.replace(request, id=new_record_id(), parent=request.id)
        return Entered(enter_context(laid_over(outer, {"request": own})), None)
    else:
        return None
    return Entered(enter_context(AuditContext(inside, overrides)), inside)


def leave(entered: Entered | None) -> None:
    """End the work; None: it was not made the current one."""
    if entered is None:
        return
    if entered.scope is not None:
        entered.scope.ended = True
    # ValueError: left in another context than it was entered in: a pool that switches.
    # RuntimeError: left already, before the one who left it was interrupted.
    with suppress(ValueError, RuntimeError):
        leave_scope(entered.token)
