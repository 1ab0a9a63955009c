"""A request as a piece of work: who makes it, from where, through which view."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from otel_audit.audit_context import ContextFields
from otel_audit.audit_record import Actor, Request, Source, new_record_id
from otel_audit.config.model import AuditConfig
from otel_audit.http.actor import ANONYMOUS_ACTOR
from otel_audit.http.source import client_address, forwarded_request_id, source_of
from otel_audit.instrumentation.django.identity.actor import (
    actor_before_login,
    evaluated_user,
    request_actor,
    session_key,
)
from otel_audit.location import view_name
from otel_audit.notes import Notes
from otel_audit.propagation import acceptance

if TYPE_CHECKING:
    from otel_audit.http.requests.recording import RequestRecording
    from otel_audit.propagation.incoming import Acceptance, Accepted

_NOTHING: Final = ContextFields()
_TELLING: Final = frozenset({"user", "_cached_user", "_acached_user", "session", "COOKIES"})
"""What may say who makes a request; where there is none, nobody has been authenticated."""


class ScopeSettings(msgspec.Struct, frozen=True, eq=False):
    """What a request's scope needs of the configuration.

    ``redact`` takes the name and the value of a path parameter and gives what may be shown of it,
    ``redact_key`` a model and the key of one of its objects.
    """

    trusted_proxies: int
    request_id_header: str
    hmac_key: str
    redact: Callable[[str, str], Any]
    redact_key: Callable[[Any, str], str]
    impersonator_key: str = ""
    roles: bool = False
    acceptance: Acceptance | None = None

    @classmethod
    def of(
        cls, config: AuditConfig, redact: Callable[[str, str], Any], redact_key: Callable[[Any, str], str]
    ) -> ScopeSettings:
        """Take the settings from ``config``; the header becomes its WSGI name."""
        header = config.context.request_id_header
        trusted = config.context.trusted_proxies
        return cls(
            trusted_proxies=trusted,
            request_id_header=f"HTTP_{header.upper().replace('-', '_')}" if header and trusted else "",
            hmac_key=config.redaction.hmac_key,
            redact=redact,
            redact_key=redact_key,
            impersonator_key=config.context.impersonator_session_key,
            roles=config.context.actor_roles,
            acceptance=acceptance(config),
        )


class RequestScope:
    """A request that says who makes it, and through what, whenever it is asked.

    The request itself is kept: token authentication sets its user inside the view, and the route is known
    only once it is resolved. A login or logout inside the request begins a new phase; what was written before
    it keeps the actor of its own phase, also if its transaction commits later.

    ``unsaid`` records what is to be recorded at the end of the request unless something better comes before.
    """

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_address",
        "_answer",
        "_key",
        "_phase",
        "_phases",
        "_real",
        "_settings",
        "_user",
        "_user_actor",
        "_user_shown",
        "_user_values",
        "ended",
        "id",
        "notes",
        "parent",
        "recording",
        "request",
        "unsaid",
    )

    def __init__(self, request: HttpRequest, settings_: ScopeSettings, parent: str = "") -> None:
        self.request = request
        self.ended = False
        self.parent = parent
        self.notes: Notes | None = None
        self.unsaid: Callable[[], None] | None = None
        self.recording: RequestRecording | None = None
        self._settings = settings_
        header = settings_.request_id_header
        forwarded = forwarded_request_id(request.META.get(header, "")) if header else ""
        self.id = forwarded or new_record_id()
        self._accepted = None if settings_.acceptance is None else _accepted(settings_.acceptance, request)
        self._phase = 0
        self._phases: list[Actor] = []
        self._real: Actor | None = None
        self._address: tuple[str, str] | None = None
        self._key: tuple[Any, ...] | None = None
        self._answer = _NOTHING
        self._user: Any = None
        self._user_actor = ANONYMOUS_ACTOR
        self._user_shown: Any = None
        self._user_values: dict[str, Any] = {}

    @property
    def is_parent(self) -> bool:
        """Whether requests made in it, to an application of this process, say so."""
        return not self.ended

    @property
    def actor(self) -> Actor:
        """Who acts now, as far as that is known. A user once seen keeps its id if its account is deleted."""
        values = self.request.__dict__
        if _TELLING.isdisjoint(values) and not self.request.META.get("HTTP_COOKIE"):
            return ANONYMOUS_ACTOR
        shown = values.get("user")
        if (
            shown is not None
            and shown is self._user_shown
            and self._user_values.get("_wrapped") is self._user
        ):
            return (
                self._user_actor
            )  # asked at every write and span: the same lazy object, evaluated as before
        user = evaluated_user(self.request)
        if user is not None and user is self._user and not self._settings.impersonator_key:
            return self._user_actor
        chosen = self._settings
        actor = request_actor(
            self.request, user, chosen.impersonator_key, roles=chosen.roles, real=self._real
        )
        if user is not None and actor.type == "user":
            self._user, self._user_actor = user, actor
            if type(shown) is SimpleLazyObject and not chosen.impersonator_key:
                self._user_shown, self._user_values = shown, object.__getattribute__(shown, "__dict__")
        return actor

    def who(self) -> tuple[Actor, str]:
        """Say who acts now and the id of the request, and nothing else."""
        return self.actor, self.id

    def take_requester(self) -> Actor:
        """Return who made the request: who acts now, or before a logout in it."""
        actor = self.actor
        if actor.type != "user":
            return next((each for each in reversed(self._phases) if each.type == "user"), actor)
        return actor

    def take_actor(self) -> object:
        """Take down the user if there is one; an anonymous visitor may yet be authenticated, so the phase."""
        actor = self.actor
        return actor if actor.type == "user" else self._phase

    def logged_in(self, *, taken_over: bool = False) -> None:
        """Begin a new phase: the request's user has just been replaced.

        ``taken_over``: by the user before, who goes on acting.
        """
        before = actor_before_login(self.request)
        self._end_phase(before)
        if self._user is not None:
            before = self._user_actor
        self._real = _without_customer(before) if taken_over and before.type == "user" else None

    def look_again(self) -> None:
        """Forget who acts: the session has come to say so by now."""
        self._real = self._user = self._user_shown = None

    def logged_out(self, actor: Actor) -> None:
        """Begin a new phase: up to now it was ``actor``."""
        self._end_phase(actor)

    def _end_phase(self, actor: Actor) -> None:
        self._phases.append(actor)
        self._phase += 1

    def fields(self, noticed: object = None) -> ContextFields:
        """Resolve the request as it is now, with the actor of the moment ``noticed`` was taken in."""
        if isinstance(noticed, Actor):
            actor = noticed
        elif isinstance(noticed, int) and noticed < self._phase:
            actor = self._phases[noticed]
        else:
            actor = self.actor
        request = self.request
        session = session_key(request)
        key = (actor, request.resolver_match, session)
        if key != self._key:
            fields = ContextFields(actor=actor, source=self._source(session), request=self._request())
            self._answer = fields if self._accepted is None else self._accepted.over(fields)
            self._key = key
        return self._answer

    def address(self) -> tuple[str, str]:
        """Return the address of the client and its kind, as :func:`client_address` does."""
        if self._address is None:
            self._address = client_of(self.request, self._settings.trusted_proxies)
        return self._address

    def _source(self, session: str) -> Source:
        agent = str(self.request.META.get("HTTP_USER_AGENT") or "")
        return source_of(self.address(), agent, session, self._settings.hmac_key)

    def _request(self) -> Request:
        request = self.request
        match = request.resolver_match
        return Request(
            id=self.id,
            method=request.method or "",
            route=route_of(match),
            path=request.path if not getattr(match, "kwargs", None) else shown_path(request, self._settings),
            view=view_of(match),
            parent=self.parent,
        )


def client_of(request: HttpRequest, trusted_proxies: int) -> tuple[str, str]:
    """Return the address of a request's client and its kind, as :func:`client_address` does."""
    meta = request.META
    peer, forwarded = meta.get("REMOTE_ADDR"), meta.get("HTTP_X_FORWARDED_FOR")
    return client_address(str(peer or ""), str(forwarded or ""), trusted_proxies)


def route_of(match: Any) -> str:
    """Return the route of a resolver match; empty where nothing was resolved."""
    return getattr(match, "route", "") or ""


def view_of(match: Any) -> str:
    """Return the name of the function or class of a resolver match; empty where nothing was resolved."""
    return "" if match is None else view_name(getattr(match.func, "view_class", match.func))


def _accepted(by: Acceptance, request: HttpRequest) -> Accepted | None:
    baggage = request.META.get("HTTP_BAGGAGE", "")
    return by.accepted(baggage) if baggage else None


def _without_customer(actor: Actor) -> Actor:
    return msgspec.structs.replace(actor, on_behalf_of="", on_behalf_of_name="")


def shown_path(request: HttpRequest, settings: ScopeSettings) -> str:
    """Return the path without the values of sensitive path parameters.

    A link that resets a password has a token, and the admin's page of a token has its key.
    """
    path: str = request.path
    match: Any = request.resolver_match
    for name, value in match.kwargs.items():
        text = str(value) if isinstance(value, str | int | UUID) else ""
        if not text or text not in path:
            continue
        shown = settings.redact(name, text)
        if shown == text and len(text) >= _SHORTEST_KEY:
            model = view_model(match.func)
            if model is not None and name in (*_KEY_PARAMETERS, getattr(model._meta.pk, "name", "")):
                shown = settings.redact_key(model, text)
        if shown != text:
            path = path.replace(text, "" if shown is None else str(shown))
    return path


_SHORTEST_KEY: Final = 8
_KEY_PARAMETERS: Final = ("object_id", "pk", "id")


def view_model(view: Any) -> Any:
    """Return the model a view of the admin, a generic view or a view set is about, if it says so."""
    for name in ("model_admin", "view_class", "cls"):
        holder = getattr(view, name, None)
        model = getattr(holder, "model", None) or getattr(getattr(holder, "queryset", None), "model", None)
        if hasattr(model, "_meta"):
            return model
    return None
