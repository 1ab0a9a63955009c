"""A request as a piece of work, where the application says by itself who makes it: without Django."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit.audit_context import ContextFields, current_context, parent_of_request, process_scope
from otel_audit.audit_record import Actor, Origin, Request, Source, new_record_id
from otel_audit.config.model import AuditConfig
from otel_audit.http.actor import ANONYMOUS_ACTOR, UNKNOWN_ACTOR, ActorSource, authenticated
from otel_audit.http.source import client_address, forwarded_request_id, source_of
from otel_audit.named_tuples import NamedTuple
from otel_audit.notes import Notes
from otel_audit.propagation import acceptance
from otel_audit.redaction.redactor import Redactor

if TYPE_CHECKING:
    from otel_audit.http.requests.recording import RequestRecording
    from otel_audit.propagation.incoming import Acceptance

SEEN: Final = "otel_audit.request"
"""In an ASGI scope or a WSGI environment: the id of a request that has a scope."""
_OVER: Final = "over"
_NOTHING: Final = ContextFields()


class Endpoint(NamedTuple):
    """Through what a request came: its route's template, its path without what is sensitive, its function."""

    route: str = ""
    path: str = ""
    view: str = ""


class RequestSettings(msgspec.Struct, frozen=True, eq=False):
    """What a request's scope needs of the configuration.

    ``show`` takes the name and the value of a path parameter and returns what may be shown of it.
    ``visible``: the ids of the request stand in the baggage of this process.
    """

    trusted_proxies: int
    request_id_header: str
    hmac_key: str
    session_cookie: str
    actor_from: ActorSource | None
    show: Callable[[str, str], Any]
    visible: bool
    acceptance: Acceptance | None = None

    @classmethod
    def of(
        cls, config: AuditConfig, is_dependency: Callable[[Any], bool] = lambda function: False
    ) -> RequestSettings:
        """Take the settings from ``config``; ``is_dependency`` as for :class:`ActorSource`."""
        context = config.context
        return cls(
            trusted_proxies=context.trusted_proxies,
            request_id_header=context.request_id_header.lower() if context.trusted_proxies else "",
            hmac_key=config.redaction.hmac_key,
            session_cookie=context.session_cookie,
            actor_from=ActorSource(context.actor_from, is_dependency) if context.actor_from else None,
            show=Redactor(config.redaction).field,
            visible=context.baggage == "process",
            acceptance=acceptance(config),
        )


class RequestScope:
    """A request that says who makes it, and through what, whenever it is asked.

    Who makes it is, in this order: whom :func:`otel_audit.set_actor` or :func:`otel_audit.login` named, whom
    ``context.actor_from`` returns, and what the application keeps on the request as its user. It may become
    known in the middle of the request. A login or logout begins a new phase; what was written before it keeps
    the actor of its own phase.

    Work that goes on when the request is over, in a task it has started, is done by the service; the record
    says whose request began it (``origin``).

    ``baggage`` is the header of that name: what other services say, believed only where it is signed.
    """

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_address",
        "_answer",
        "_chosen",
        "_cookie",
        "_credentials",
        "_found",
        "_key",
        "_phase",
        "_phases",
        "_user",
        "_user_actor",
        "baggage",
        "ended",
        "id",
        "notes",
        "parent",
        "recording",
        "settings",
    )

    def __init__(self, settings: RequestSettings) -> None:
        self.settings = settings
        self.ended = False
        self.parent = parent_of_request(current_context())
        self.notes: Notes | None = None
        self.recording: RequestRecording | None = None
        header = settings.request_id_header
        self.id = (forwarded_request_id(self.header(header)) if header else "") or new_record_id()
        self.baggage = self.header("baggage")
        accepts = settings.acceptance
        self._accepted = accepts.accepted(self.baggage) if accepts is not None and self.baggage else None
        self._phase = 0
        self._phases: list[Actor] = []
        self._chosen: Actor | None = None
        self._found: Actor | None = None
        self._user: Any = None
        self._user_actor = ANONYMOUS_ACTOR
        self._address: tuple[str, str] | None = None
        self._cookie: str | None = None
        self._credentials: bool | None = None
        self._key: tuple[Any, ...] | None = None
        self._answer = _NOTHING

    # --- what each kind of server and framework says by itself ----------------------------------

    @property
    def request(self) -> Any:
        """The request as functions of the application are given it."""
        raise NotImplementedError

    def header(self, name: str) -> str:
        """Return a header by its lower-case name, several of them joined; empty if there is none."""
        raise NotImplementedError

    def peer(self) -> str:
        """Return the address at the other end of the socket, as far as it can be known."""
        raise NotImplementedError

    def users(self) -> Iterator[Any]:
        """Yield what the application keeps for its user, best first, without evaluating anything."""
        raise NotImplementedError

    def method(self) -> str:
        """Return the method."""
        raise NotImplementedError

    def path(self) -> str:
        """Return the whole path, as text."""
        raise NotImplementedError

    def endpoint(self) -> Endpoint:
        """Say through what the request came, as far as that is known by now."""
        raise NotImplementedError

    def routed(self) -> Any:
        """Return anything that changes when the request is routed."""
        raise NotImplementedError

    @property
    def is_parent(self) -> bool:
        """Whether requests made in it, to an application of this process, say so."""
        return not self.ended

    # --- who ------------------------------------------------------------------------------------

    @property
    def actor(self) -> Actor:
        """Who acts now, as far as that is known."""
        if self._chosen is not None:
            return self._chosen
        if self._found is not None:
            return self._found
        source = self.settings.actor_from
        if source is not None:
            self._found = source(self.request)
            if self._found is not None:
                return self._found
        for user in self.users():
            if user is None:
                continue
            if user is self._user:
                return self._user_actor
            actor = authenticated(user)
            if actor is not None:
                if actor is not UNKNOWN_ACTOR:  # an account that is being made has no key yet
                    self._user, self._user_actor = user, actor
                return actor
        return UNKNOWN_ACTOR if self._has_credentials() else ANONYMOUS_ACTOR

    def _has_credentials(self) -> bool:
        """Say whether the client has sent what may authenticate it, and the application has not told whom."""
        if self._credentials is None:
            self._credentials = bool(self.header("authorization") or self._session())
        return self._credentials

    def set_actor(self, actor: Actor | None) -> None:
        """Take ``actor`` for who acts from now on, and who did if nobody was known; None: look again."""
        self._chosen = actor

    def found(self, actor: Actor) -> None:
        """Take ``actor`` for whom ``context.actor_from`` names."""
        self._found = actor

    def logged_in(self, actor: Actor) -> None:
        """Begin a new phase: from now on it is ``actor``."""
        self._end_phase(self.actor)
        self._chosen = actor

    def logged_out(self) -> Actor:
        """Begin a new phase, in which nobody acts, and return who did."""
        actor = self.actor
        self._end_phase(actor)
        self._chosen = ANONYMOUS_ACTOR
        return actor

    def _end_phase(self, actor: Actor) -> None:
        self._phases.append(actor)
        self._phase += 1

    def who(self) -> tuple[Actor, str]:
        """Say who acts now and the id of the request, and nothing else."""
        if self.ended:
            return process_scope.fields().actor, ""
        return self.actor, self.id

    def take_requester(self) -> Actor:
        """Return who made the request: who acts now, or before a logout in it."""
        actor = self.actor
        if actor.type == "unknown":
            return next((each for each in reversed(self._phases) if each.type != "unknown"), actor)
        return actor

    def take_actor(self) -> object:
        """Take down who acts if somebody is known; a visitor may yet be authenticated, so the phase."""
        if self.ended:
            return _OVER
        actor = self.actor
        return self._phase if actor.type == "unknown" else actor

    # --- everything -----------------------------------------------------------------------------

    def fields(self, noticed: object = None) -> ContextFields:
        """Resolve the request as it is now, with the actor of the moment ``noticed`` was taken in."""
        if noticed is None:
            noticed = self.take_actor()
        if isinstance(noticed, Actor):
            actor = noticed
        elif isinstance(noticed, int) and noticed < self._phase:
            actor = self._phases[noticed]
        else:
            actor = self.actor
        if noticed is _OVER:
            origin = Origin(actor.id, actor.name, self.id)
            return msgspec.structs.replace(process_scope.fields(), origin=origin)
        session = self._session()
        key = (actor, self.routed(), session)
        if key != self._key:
            fields = ContextFields(actor=actor, source=self._source(session), request=self._request())
            self._answer = fields if self._accepted is None else self._accepted.over(fields)
            self._key = key
        return self._answer

    def address(self) -> str:
        """Return the address of the client."""
        return self._client()[0]

    def _client(self) -> tuple[str, str]:
        if self._address is None:
            trusted = self.settings.trusted_proxies
            forwarded = self.header("x-forwarded-for") if trusted else ""
            self._address = client_address(self.peer(), forwarded, trusted)
        return self._address

    def _source(self, session: str) -> Source:
        return source_of(self._client(), self.header("user-agent"), session, self.settings.hmac_key)

    def _session(self) -> str:
        """Return the key of the session: the value of the cookie that the configuration names."""
        if self._cookie is None:
            name = self.settings.session_cookie
            self._cookie = _cookie(self.header("cookie"), name) if name else ""
        return self._cookie

    def _request(self) -> Request:
        route, path, view = self.endpoint()
        return Request(self.id, self.method(), route, path, view, self.parent)


def _cookie(header: str, name: str) -> str:
    for pair in header.split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""
