"""Who, where and how: what the current work carries, kept in a context variable.

A *scope* is a piece of work that can say who does it: a request, a command, a task. It is kept itself, not
its values, because the actor is often known only later (token authentication runs inside the view).
:func:`context` lays explicit values over it. Both are resolved when a record is made.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span

from otel_audit.audit_record import UNKNOWN, Actor, Origin, Request, Source, Target, new_record_id
from otel_audit.interruptions import faults
from otel_audit.location import application_function
from otel_audit.notes import Notes
from otel_audit.otel_api import current_span
from otel_audit.targets import targets_of
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
    origin: Origin | None = None
    slug: str = ""
    related: tuple[Target, ...] = ()


def actor_of(value: Any, convert: Conversion) -> Actor:
    """Make an actor of what a caller names one by: an :class:`Actor`, the id of a user, or a user object."""
    if isinstance(value, Actor):
        return convert.texts(value)
    return Actor(id=convert.text(value), type="user")


class Scope(Protocol):
    """A request, command or task: anything that can say who does the current work.

    One of ours has an attribute ``notes``: what the application says of the work itself, None as long as it
    has said nothing.
    """

    def fields(self) -> ContextFields:
        """Say what is known now. Must not raise, query a database or evaluate a lazy user."""
        ...


class NoticingScope(Protocol):
    """A scope whose actor may change, or be deleted, between a write and the record made of it."""

    def take_actor(self) -> object:
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
    ``pinned`` is what :meth:`take_actor` gave when the work was handed over to where this context is used; it
    keeps saying who acted then. ``ended``: the block that laid values over no scope has been left.
    """

    __slots__ = ("__weakref__", "_noticing", "ended", "overrides", "pinned", "scope", "span")

    def __init__(
        self,
        scope: Scope | None,
        overrides: tuple[dict[str, Any], ...] = (),
        span: Span | None = None,
        pinned: object = None,
    ) -> None:
        self.ended = False
        self.pinned = pinned
        self.scope = scope
        self.overrides = overrides
        self.span = span
        # Not isinstance(): a check against a protocol costs more than the rest of a request's scope.
        self._noticing: NoticingScope | None = scope if hasattr(scope, "take_actor") else None  # type: ignore[assignment]

    @property
    def is_noticing(self) -> bool:
        """Whether the actor may change while the work goes on, as a request's may."""
        return self._noticing is not None

    def take_actor(self) -> object:
        """Take down who acts now; give it to :meth:`fields` later."""
        if self.pinned is not None:
            return self.pinned
        return None if self._noticing is None else self._noticing.take_actor()

    def who(self) -> tuple[Actor, str]:
        """Say who acts now, and the id of the request: all that a span is told."""
        if self._noticing is not None and not self.overrides and self.pinned is None:
            return self._noticing.who()
        fields = self.fields(self.pinned)
        return fields.actor, fields.request.id

    def fields(self, noticed: object = None) -> ContextFields:
        """Resolve scope and overrides to values."""
        if self.scope is None:
            fields = process_scope.fields()
        elif self._noticing is None:
            fields = self.scope.fields()
        else:
            fields = self._noticing.fields(self.pinned if noticed is None else noticed)
        for override in self.overrides:
            if "attributes" in override:
                override = override | {"attributes": fields.attributes | override["attributes"]}
            if "related" in override and fields.related:
                override = override | {"related": (*fields.related, *override["related"])}
            fields = msgspec.structs.replace(fields, **override)
        return fields


class ProcessScope:
    """The scope outside any known piece of work: the service this process belongs to, by ``service.name``.

    Where nobody has named the service, the application's own script acts, as a ``system`` actor:
    ``python fix_prices.py``. A server's or a tool's script is not who acts.

    Attributes:
        starters: names of scripts that only start the work; an instrumentor adds its library's.
    """

    def __init__(self) -> None:
        self.service: Callable[[], str] | None = None
        """Returns the ``service.name`` of this process; called for each record made outside a scope."""
        self.starters = {"__main__.py"}
        self._service = ""
        self._fields: ContextFields | None = None

    @property
    def name(self) -> str:
        """The id of the actor."""
        return self.fields().actor.id

    def fields(self) -> ContextFields:
        """Return the service of this process as the actor."""
        service = "" if self.service is None else self.service()
        if self._fields is None or service != self._service:
            self._service, self._fields = service, ContextFields(actor=self._actor(service))
        return self._fields

    def _actor(self, service: str) -> Actor:
        if not service or service.partition(":")[0] == UNKNOWN_SERVICE:
            # Looked at as late as this: a worker that is spawned gets its arguments after it has begun.
            script = os.path.basename((getattr(sys, "argv", None) or [""])[0])
            if script.endswith(".py") and script not in self.starters:
                return Actor(id=text(script), type="system")
        return Actor(id=text(service) or UNKNOWN_SERVICE, type="service")


class SystemScope:
    """A command, a task or a job: a ``system`` actor, and the way through, as records name it.

    Args:
        actor: who acts.
        view: the function.
        parent: the id of the request, command or task in which it happens.
        origin: who asked for it, in an ended request or another service.
        is_parent: whether requests made in it say so; not those of a server that it only starts.
    """

    __slots__ = ("__weakref__", "_fields", "ended", "id", "is_parent", "notes")

    def __init__(
        self,
        actor: Actor,
        view: str,
        parent: str = "",
        origin: Origin | None = None,
        *,
        is_parent: bool = True,
    ) -> None:
        self.id = new_record_id()
        self.is_parent = is_parent
        self.notes: Notes | None = None
        request = Request(id=self.id, view=view, parent=parent)
        self._fields = ContextFields(actor=actor, request=request, origin=origin)
        self.ended = False

    def fields(self) -> ContextFields:
        """Return the command, task or job."""
        return self._fields


UNKNOWN_SERVICE: Final = "unknown_service"
"""What OpenTelemetry calls a service that nobody has named; ``:`` and a program may follow."""
process_scope: Final = ProcessScope()
_current: ContextVar[AuditContext | None] = ContextVar("otel_audit_context", default=None)


class Moment(msgspec.Struct, frozen=True, eq=False):
    """When something happened, under which context and span: all a record needs to be made later.

    ``tenant`` is what the application's function said then (``tenant_from``), None if it could not.
    """

    time: int
    context: AuditContext | None
    span: Span
    noticed: object = None
    code: str = ""
    tenant: str | None = ""

    def fields(self) -> ContextFields:
        """Resolve the context of this moment."""
        return process_scope.fields() if self.context is None else self.context.fields(self.noticed)

    def without_context(self) -> Moment:
        """Return the moment alone, of which a record can be made whatever the context holds."""
        return Moment(self.time, None, INVALID_SPAN, tenant=self.tenant)


_locate: Callable[[], str] | None = None


def locate_code(enabled: bool) -> None:
    """Make moments say which function of the application they were taken in, or no longer."""
    global _locate  # noqa: PLW0603 - as the pipeline, one a process
    _locate = application_function if enabled else None


_tenant_of: Callable[[Any], str | None] | None = None


def ask_tenant(function: Callable[[Any], str | None] | None) -> None:
    """Ask ``function`` at every moment whose data the work is about, or nobody any longer.

    It is given the request of the current scope, None outside of any.
    """
    global _tenant_of  # noqa: PLW0603 - as above
    _tenant_of = function


def moment() -> Moment:
    """Take the present moment; nothing is resolved yet."""
    context = _current.get()
    span = current_span()
    code = "" if _locate is None else _locate()
    tenant = "" if _tenant_of is None else _tenant_of(_request_of(context))
    if context is None:
        return Moment(time.time_ns(), None, span, None, code, tenant)
    if span is INVALID_SPAN and context.span is not None:
        span = context.span
    return Moment(time.time_ns(), context, span, context.take_actor(), code, tenant)


def moment_of(context: AuditContext, at: int, span: Span, noticed: object) -> Moment:
    """Make the moment of something that began at ``at`` (nanoseconds) and has ended; whose, is asked now."""
    return Moment(at, context, span, noticed, "", tenant_said_of(context))


def tenant_said_of(context: AuditContext | None) -> str | None:
    """Return whose data some work is about by the application's function, asked now, as a moment has it."""
    return "" if _tenant_of is None else _tenant_of(_request_of(context))


def _request_of(context: AuditContext | None) -> Any:
    return None if context is None else getattr(context.scope, "request", None)


def current_context() -> AuditContext | None:
    """The context of the current work, None outside any."""
    return _current.get()


def parent_of_request(context: AuditContext | None) -> str:
    """Return the id of the work in which a request begins, such as a command with a test client; or empty."""
    if context is None or not getattr(context.scope, "is_parent", False):
        return ""
    try:
        return context.fields().request.id
    except faults():  # a user model may do anything; the request goes on
        return ""


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


def restore_context(context: AuditContext | None) -> None:
    """Restore what :func:`current_context` was; for whom an interruption has cost the token."""
    _current.set(context)


def laid_over(outer: AuditContext | None, override: dict[str, Any]) -> AuditContext:
    """Return the context of a block in which values are laid over those of the work around it, if any."""
    if outer is None:
        return AuditContext(None, (override,))
    return AuditContext(outer.scope, (*outer.overrides, override), outer.span, outer.pinned)


def without_context() -> Token[AuditContext | None]:
    """Stand outside any work, as for starting a worker; give the token to :func:`leave_scope`."""
    return _current.set(None)


def handed_over() -> AuditContext | None:
    """Return the current context for a call that will run elsewhere, as it is now; None outside any.

    Who acts stays who acts now, also if a login or logout comes before the call does.
    """
    context = _current.get()
    if context is None:
        return None
    span = current_span()
    return AuditContext(
        context.scope,
        context.overrides,
        context.span if span is INVALID_SPAN else span,
        context.take_actor(),
    )


def notes_of(scope: Any) -> Notes | None:
    """Return the notes of a piece of work, to add to them; None of what keeps none."""
    try:
        notes = scope.notes
        if notes is None:
            notes = scope.notes = Notes()
    except AttributeError:  # a scope of others, or nobody's
        return None
    return notes if isinstance(notes, Notes) else None


class StarterScope:
    """A thread of the application's own: its starter acts while the work that started it goes on.

    What it does afterwards is done by the service, and the record says whose work began it (``origin``): a
    thread that goes on may by then work for anybody. The starter's scope is not kept alive. A scope says that
    its work is over by an attribute ``ended``.
    """

    __slots__ = ("__weakref__", "_origin", "_overrides", "_pinned", "_scope", "_span")

    def __init__(self, context: AuditContext) -> None:
        self._overrides = context.overrides
        self._span = context.span
        self._pinned = context.pinned
        # Without a scope the block of values is what goes on, or is over.
        scope: Any = context if context.scope is None else context.scope
        self._scope: Callable[[], Any] = partial(_itself, scope)
        if not isinstance(scope, StarterScope):
            with suppress(TypeError):  # a scope of others, with slots
                self._scope = weakref.ref(scope)
        self._origin = _origin(context)

    @property
    def ended(self) -> bool:
        """Whether the starter's work is over."""
        return self._context() is None

    @property
    def is_parent(self) -> bool:
        """Whether requests that the thread makes say in which work."""
        context = self._context()
        return context is not None and getattr(context.scope, "is_parent", False)

    @property
    def notes(self) -> Notes | None:
        """What is said of the starter's work, while it goes on."""
        context = self._context()
        return None if context is None else notes_of(context.scope)

    def _context(self) -> AuditContext | None:
        """Return the starter's context while it goes on."""
        scope = self._scope()
        if scope is None:
            return None
        if isinstance(scope, AuditContext):
            context = scope
        else:
            context = AuditContext(scope, self._overrides, self._span, self._pinned)
        if not getattr(scope, "ended", False):
            return context
        try:
            self._origin = _origin(context)  # authenticated, maybe, after the thread was started
        except faults():  # somebody's scope; what was known at the start stays
            pass
        self._scope = _gone
        return None

    def take_actor(self) -> object:
        """Take down whether the starter still acts, and as whom."""
        context = self._context()
        return _OVER if context is None else (context, context.take_actor())

    def who(self) -> tuple[Actor, str]:
        """Say who acts now, and the id of the request."""
        fields = self.fields()
        return fields.actor, fields.request.id

    def fields(self, noticed: object = None) -> ContextFields:
        """Resolve the starter, or the service and where its work came from."""
        if noticed is None:
            noticed = self.take_actor()
        if isinstance(noticed, tuple):
            context, inner = noticed
            fields: ContextFields = context.fields(inner)
            return fields
        return msgspec.structs.replace(process_scope.fields(), origin=self._origin)

    @classmethod
    def of_parent(cls, context: AuditContext) -> StarterScope:
        """Make the scope of a process that was forked in the middle of a request, which is its parent's."""
        scope = cls(context)
        scope._scope = _gone
        return scope


def _leave_request_to_parent() -> None:
    """Stand outside the request a process was forked in: it may be the worker of a pool.

    A command or a task goes on in the processes it forks.
    """
    context = _current.get()
    if context is not None and context.is_noticing:
        try:
            _current.set(AuditContext(StarterScope.of_parent(context)))
        except faults():
            pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_request_to_parent)

_OVER: Final = "over"


def _itself(scope: Any) -> Any:
    return scope


def _gone() -> None:
    return None


def _origin(context: AuditContext) -> Origin:
    fields = context.fields()
    return fields.origin or Origin(fields.actor.id, fields.actor.name, fields.request.id)


@contextmanager
def context(
    *,
    actor: Actor | Any = None,
    on_behalf_of: Any = None,
    reason: Any = None,
    tenant: Any = None,
    system: Any = None,
    slug: Any = None,
    related: Any = None,
    **attributes: Any,
) -> Iterator[None]:
    """Add values to the current context, as a ``with`` block or decorator; blocks nest and merge.

    Ids and texts may have any type with a text form: a number, a UUID, a member of an enumeration, a lazy
    translation. They are converted when the block starts. Values that cannot be converted are omitted from
    the records made inside, which are marked ``truncated``.

    Args:
        actor: an :class:`Actor`, the id of a user, or a user object with a primary key.
        on_behalf_of: the user on whose behalf the actor acts: an id, or an :class:`Actor` with a name.
        reason: why; recorded with every record made inside.
        tenant, system: override the configured values.
        slug: a short name for what is done: ``pay-invoice``.
        related: the objects that it is about, or one: objects of Django or SQLAlchemy, a :class:`Target`, or
            ``shop.Order/7``. Those of outer blocks stay.
        attributes: additional values for every record made inside.
    """
    override: dict[str, Any] = {}
    convert = Conversion()
    outer = _current.get()
    if actor is not None:
        override["actor"] = _known(actor_of(actor, convert), convert)
    if on_behalf_of is not None:
        base = override.get("actor") or (outer.fields() if outer else process_scope.fields()).actor
        customer = actor_of(on_behalf_of, convert)
        override["actor"] = msgspec.structs.replace(
            base, on_behalf_of=customer.id, on_behalf_of_name=customer.name
        )
    for name, value in (("reason", reason), ("tenant", tenant), ("system", system), ("slug", slug)):
        if value is not None:
            override[name] = convert.text(value)
    if attributes:
        override["attributes"] = convert.named(attributes)
    if related is not None:
        override["related"], complete = targets_of(related)
        convert.complete = convert.complete and complete
    if not convert.complete:
        override["truncated"] = True
    inside = laid_over(outer, override)
    token = _current.set(inside)
    try:
        yield
    finally:
        _current.reset(token)
        inside.ended = True


def annotate(
    *, slug: Any = None, event_code: Any = None, event_type: Any = None, system: Any = None, **attributes: Any
) -> None:
    """Say something of the current request, command, task or job itself; it stands on its own record.

    Values of any type are converted. Outside such work nothing happens; :func:`context` says something of
    every record made inside its block.

    Args:
        slug: a short name for what is done: ``pay-invoice``.
        event_code: the application's code for this kind of event.
        event_type: the application's own kind of event.
        system: overrides the configured value.
        attributes: additional values.
    """
    notes = _current_notes()
    if notes is not None:
        notes.say(
            slug=slug, event_code=event_code, event_type=event_type, system=system, attributes=attributes
        )


def relate(*objects: Any) -> None:
    """Name objects that the current request, command, task or job is about: its record is in their history.

    Args:
        objects: objects of Django or SQLAlchemy that have been saved, :class:`Target`, or ``shop.Order/7``.
    """
    notes = _current_notes()
    if notes is not None:
        targets, complete = targets_of(objects)
        notes.relate(targets, complete=complete)


def _current_notes() -> Notes | None:
    context = _current.get()
    return None if context is None else notes_of(context.scope)


def _known(actor: Actor, convert: Conversion) -> Actor:
    if actor.id:
        return actor
    convert.complete = False
    return msgspec.structs.replace(actor, id=UNKNOWN)
