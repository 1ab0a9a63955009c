"""Who, where and how: what the current work carries, kept in a context variable.

A *scope* is a piece of work that can say who does it: a request, a command, a task. It is kept itself, not
its values, because the actor is often known only later (token authentication runs inside the view).
:func:`context` lays explicit values over it. Both are resolved when a record is made.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from opentelemetry.trace import Span, get_current_span

from otel_audit.record import Actor, Request, Source, portable


class ContextFields(msgspec.Struct, frozen=True):
    """What a record takes from its context."""

    actor: Actor = Actor()
    source: Source = Source()
    request: Request = Request()
    tenant: str = ""
    reason: str = ""
    system: str = ""
    attributes: dict[str, Any] = {}


class Scope(Protocol):
    """A request, command or task: anything that can say who does the current work."""

    def fields(self) -> ContextFields:
        """Say what is known now. Must not raise, query a database or evaluate a lazy user."""
        ...


class AuditContext:
    """A scope, and the explicit values laid over it, innermost last."""

    __slots__ = ("overrides", "scope")

    def __init__(self, scope: Scope | None, overrides: tuple[dict[str, Any], ...] = ()) -> None:
        self.scope = scope
        self.overrides = overrides

    def fields(self) -> ContextFields:
        """Resolve scope and overrides to values."""
        fields = process_scope.fields() if self.scope is None else self.scope.fields()
        for override in self.overrides:
            if "attributes" in override:
                override = override | {"attributes": fields.attributes | override["attributes"]}
            fields = msgspec.structs.replace(fields, **override)
        return fields


class ProcessScope:
    """The scope outside any request: the command this process runs, as a ``system`` actor."""

    def __init__(self, name: str = "") -> None:
        self._fields = ContextFields()
        self.name = name

    @property
    def name(self) -> str:
        return self._fields.actor.id

    @name.setter
    def name(self, name: str) -> None:
        self._fields = ContextFields(actor=Actor(id=name or _process_name(), type="system"))

    def fields(self) -> ContextFields:
        """Give the ``system`` actor of this process."""
        return self._fields


def _process_name() -> str:
    arguments = getattr(sys, "argv", None) or [""]
    program = os.path.basename(arguments[0]) or "python"
    if program == "__main__.py":  # python -m package
        program = os.path.basename(os.path.dirname(arguments[0])) or program
    if program in ("manage.py", "django-admin", "django") and len(arguments) > 1:
        return f"{program} {arguments[1]}"
    return program


process_scope: Final = ProcessScope()
_current: ContextVar[AuditContext | None] = ContextVar("otel_audit_context", default=None)


class Moment(NamedTuple):
    """When something happened, under which context and span: all a record needs to be made later."""

    time: int
    context: AuditContext | None
    span: Span

    def fields(self) -> ContextFields:
        """Resolve the context of this moment."""
        return process_scope.fields() if self.context is None else self.context.fields()


def moment() -> Moment:
    """Take the present moment; nothing is resolved yet."""
    return Moment(time.time_ns(), _current.get(), get_current_span())


def current_fields() -> ContextFields:
    """Resolve the current context."""
    context = _current.get()
    return process_scope.fields() if context is None else context.fields()


def enter_scope(scope: Scope) -> Token[AuditContext | None]:
    """Make ``scope`` the current work; give the token to :func:`leave_scope`."""
    return _current.set(AuditContext(scope))


def leave_scope(token: Token[AuditContext | None]) -> None:
    """Restore what was current before :func:`enter_scope`."""
    _current.reset(token)


@contextmanager
def context(
    *,
    actor: Actor | str | None = None,
    on_behalf_of: str | None = None,
    reason: str | None = None,
    tenant: str | None = None,
    system: str | None = None,
    **attributes: Any,
) -> Iterator[None]:
    """Lay values over the current context, as ``with`` block or decorator; blocks nest and merge.

    Args:
        actor: an :class:`Actor`, or the id of a user.
        on_behalf_of: the id of the user the actor acts for.
        reason: why; stands on every record made inside.
        tenant, system: override the configured ones.
        attributes: anything else, kept on the record as the application's own.
    """
    override: dict[str, Any] = {}
    if isinstance(actor, str):
        actor = Actor(id=actor, type="user")
    outer = _current.get()
    if on_behalf_of is not None:
        base = actor or (outer.fields() if outer else process_scope.fields()).actor
        actor = msgspec.structs.replace(base, on_behalf_of=on_behalf_of)
    if actor is not None:
        override["actor"] = actor
    for name, value in (("reason", reason), ("tenant", tenant), ("system", system)):
        if value is not None:
            override[name] = value
    if attributes:
        override["attributes"] = {name: portable(value) for name, value in attributes.items()}
    scope, overrides = (None, ()) if outer is None else (outer.scope, outer.overrides)
    token = _current.set(AuditContext(scope, (*overrides, override)))
    try:
        yield
    finally:
        _current.reset(token)
