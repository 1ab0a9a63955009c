"""Who, where and how: what the current work carries, kept in a context variable.

A *scope* is a piece of work that can say who does it: a request, a command, a task. It is kept itself, not
its values, because the actor is often known only later (token authentication runs inside the view).
:func:`context` lays explicit values over it. Both are resolved when a record is made.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final, Protocol

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span

from otel_audit.location import application_function
from otel_audit.otel_api import current_span
from otel_audit.record import UNKNOWN, Actor, Request, Source
from otel_audit.values import Conversion, text


class ContextFields(msgspec.Struct, frozen=True):
    """What a record takes from its context; ``truncated``: a part of it could not be converted."""

    actor: Actor = Actor()
    source: Source = Source()
    request: Request = Request()
    tenant: str = ""
    reason: str = ""
    system: str = ""
    attributes: dict[str, Any] = {}
    truncated: bool = False


def actor_of(value: Any, convert: Conversion) -> Actor:
    """Make an actor of what a caller names one by: an :class:`Actor`, the id of a user, or a user object."""
    if isinstance(value, Actor):
        return convert.texts(value)
    return Actor(id=convert.text(value), type="user")


class Scope(Protocol):
    """A request, command or task: anything that can say who does the current work."""

    def fields(self) -> ContextFields:
        """Say what is known now. Must not raise, query a database or evaluate a lazy user."""
        ...


class NoticingScope(Protocol):
    """A scope whose actor may change, or be deleted, between a write and the record made of it."""

    def notice(self) -> object:
        """Take down who acts now, at next to no cost; nothing is decided that is not known yet."""
        ...

    def who(self) -> tuple[Actor, str]:
        """Say who acts now, and the id of the request."""
        ...

    def fields(self, noticed: object = None) -> ContextFields:
        """Say what is known now of the moment that ``noticed`` was taken in (None: of this one)."""
        ...


class AuditContext:
    """A scope, and the explicit values laid over it, innermost last.

    ``span`` stands in where no span is current: the body of a streaming response runs after its span ended.
    """

    __slots__ = ("_noticing", "overrides", "scope", "span")

    def __init__(
        self,
        scope: Scope | None,
        overrides: tuple[dict[str, Any], ...] = (),
        span: Span | None = None,
    ) -> None:
        self.scope = scope
        self.overrides = overrides
        self.span = span
        # Not isinstance(): a check against a protocol costs more than the rest of a request's scope.
        self._noticing: NoticingScope | None = scope if hasattr(scope, "notice") else None  # type: ignore[assignment]

    def notice(self) -> object:
        """Take down who acts now; give it to :meth:`fields` later."""
        return None if self._noticing is None else self._noticing.notice()

    def who(self) -> tuple[Actor, str]:
        """Say who acts now, and the id of the request: all that a span is told."""
        if self._noticing is not None and not self.overrides:
            return self._noticing.who()
        fields = self.fields()
        return fields.actor, fields.request.id

    def fields(self, noticed: object = None) -> ContextFields:
        """Resolve scope and overrides to values."""
        if self.scope is None:
            fields = process_scope.fields()
        elif self._noticing is None:
            fields = self.scope.fields()
        else:
            fields = self._noticing.fields(noticed)
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
        self._fields = ContextFields(actor=Actor(id=text(name or _process_name()), type="system"))

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


class Moment(msgspec.Struct, frozen=True, eq=False):
    """When something happened, under which context and span: all a record needs to be made later."""

    time: int
    context: AuditContext | None
    span: Span
    noticed: object = None
    code: str = ""

    def fields(self) -> ContextFields:
        """Resolve the context of this moment."""
        return process_scope.fields() if self.context is None else self.context.fields(self.noticed)


_locate: Callable[[], str] | None = None


def locate_code(enabled: bool) -> None:
    """Make moments say which function of the application they were taken in, or no longer."""
    global _locate  # noqa: PLW0603 - as the pipeline, one a process
    _locate = application_function if enabled else None


def moment() -> Moment:
    """Take the present moment; nothing is resolved yet."""
    context = _current.get()
    span = current_span()
    code = "" if _locate is None else _locate()
    if context is None:
        return Moment(time.time_ns(), None, span, None, code)
    if span is INVALID_SPAN and context.span is not None:
        span = context.span
    return Moment(time.time_ns(), context, span, context.notice(), code)


def current_context() -> AuditContext | None:
    """The context of the current work, None outside any."""
    return _current.get()


def current_fields() -> ContextFields:
    """Resolve the current context."""
    context = _current.get()
    return process_scope.fields() if context is None else context.fields()


def enter_scope(scope: Scope) -> Token[AuditContext | None]:
    """Make ``scope`` the current work; give the token to :func:`leave_scope`."""
    return _current.set(AuditContext(scope))


def enter_context(context: AuditContext) -> Token[AuditContext | None]:
    """Go on with work that was left, or take over its overrides; give the token to :func:`leave_scope`."""
    return _current.set(context)


def leave_scope(token: Token[AuditContext | None]) -> None:
    """Restore what was current before :func:`enter_scope` or :func:`enter_context`."""
    _current.reset(token)


@contextmanager
def context(
    *,
    actor: Actor | Any = None,
    on_behalf_of: Any = None,
    reason: Any = None,
    tenant: Any = None,
    system: Any = None,
    **attributes: Any,
) -> Iterator[None]:
    """Lay values over the current context, as ``with`` block or decorator; blocks nest and merge.

    Ids and texts may be of any type that has a text: a number, a UUID, a member of an enumeration, a lazy
    translation. They are converted when the block begins; what cannot be converted is left out of the records
    made inside, and ``truncated`` says so.

    Args:
        actor: an :class:`Actor`, the id of a user, or a user object with a primary key.
        on_behalf_of: the id of the user the actor acts for.
        reason: why; stands on every record made inside.
        tenant, system: override the configured ones.
        attributes: anything else, kept on the record as the application's own.
    """
    override: dict[str, Any] = {}
    convert = Conversion()
    outer = _current.get()
    if actor is not None:
        override["actor"] = _known(actor_of(actor, convert), convert)
    if on_behalf_of is not None:
        base = override.get("actor") or (outer.fields() if outer else process_scope.fields()).actor
        override["actor"] = msgspec.structs.replace(base, on_behalf_of=convert.text(on_behalf_of))
    for name, value in (("reason", reason), ("tenant", tenant), ("system", system)):
        if value is not None:
            override[name] = convert.text(value)
    if attributes:
        override["attributes"] = {
            convert.text(name): convert.portable(value) for name, value in attributes.items()
        }
    if not convert.complete:
        override["truncated"] = True
    if outer is None:
        token = _current.set(AuditContext(None, (override,)))
    else:
        token = _current.set(AuditContext(outer.scope, (*outer.overrides, override), outer.span))
    try:
        yield
    finally:
        _current.reset(token)


def _known(actor: Actor, convert: Conversion) -> Actor:
    if actor.id:
        return actor
    convert.complete = False
    return msgspec.structs.replace(actor, id=UNKNOWN)
