"""ASGI: makes each request and each websocket connection a scope, and records those that were denied.

Knows no framework. What one of them says better (a route's template) is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from contextvars import Token
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from otel_audit import semconv
from otel_audit.audit_context import AuditContext, SystemScope, enter_context, leave_scope
from otel_audit.audit_record import Actor
from otel_audit.config.model import AuditConfig
from otel_audit.http.denials import DENYING, denial, record_denial
from otel_audit.http.headers import asgi_headers
from otel_audit.http.lifespan import send_what_is_left
from otel_audit.http.request_scope import SEEN, Endpoint, RequestScope, RequestSettings
from otel_audit.interruptions import faults
from otel_audit.location import view_name
from otel_audit.otel_api import current_span
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.propagation import annotate, enter, leave

if TYPE_CHECKING:
    from otel_audit.http.requests.asgi import ASGIRecords

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[..., Awaitable[None]]

PEER: Final = "otel_audit.peer"
"""In an ASGI scope: its ``client`` before the server believed a header."""
_MAPPINGS: Final = (dict, MutableMapping)
_PAIRS: Final = frozenset({tuple})
_KINDS: Final = frozenset({"http", "websocket"})
_REFUSED: Final = frozenset({1008, 3000, 3003})
"""Close codes of a websocket that deny: policy violation (RFC 6455), unauthorized, forbidden (IANA)."""
_LAST: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})


class ASGIRequestScope(RequestScope):
    """A request or a websocket connection, by its ASGI scope: the innermost that an application was given."""

    __slots__ = ("_headers", "_named", "application", "asgi", "find")

    def __init__(self, asgi: Scope, settings: RequestSettings, find: Callable[..., Endpoint]) -> None:
        self.asgi = asgi
        self.application: Any = None
        self.find = find
        self._headers: list[Any] | None = None
        self._named: dict[bytes, list[bytes]] = {}
        super().__init__(settings)

    @property
    def request(self) -> Any:
        """The ASGI scope."""
        return self.asgi

    def header(self, name: str) -> str:
        headers = self.asgi.get("headers") or ()
        if self.recording is None:  # few are asked for
            wanted = name.encode("latin-1")
            return _joined(name, [value for key, value in headers if key.lower() == wanted])
        if headers != self._headers:  # an application may have changed them, or been given others
            self._named = _by_name(headers)
            self._headers = list(headers) if _PAIRS.issuperset(map(type, headers)) else None
        return _joined(name, self._named.get(name.encode("latin-1")))

    def peer(self) -> str:
        client = self.asgi[PEER] if PEER in self.asgi else self.asgi.get("client")
        return str(client[0] or "") if client else ""

    def users(self) -> Iterator[Any]:
        yield self.asgi.get("user")
        state = self.asgi.get("state")
        if state is not None:
            yield state.get("user") if isinstance(state, dict) else getattr(state, "user", None)

    def method(self) -> str:
        return str(self.asgi.get("method") or "GET")  # a websocket begins with one

    def path(self) -> str:
        """Return the whole path."""
        return str(self.asgi.get("path") or "")

    def scheme(self) -> str:
        """Return ``https``, ``http``, ``wss`` or ``ws``."""
        return str(self.asgi.get("scheme") or ("ws" if self.asgi["type"] == "websocket" else "http"))

    def query(self) -> str:
        """Return the query string as it came."""
        return bytes(self.asgi.get("query_string") or b"").decode("latin-1")

    def headers(self) -> list[tuple[str, str]]:
        """Return all headers."""
        return asgi_headers(self.asgi.get("headers") or ())

    def view(self) -> Any:
        """Return the function or class that answers, or Litestar's handler with it; else the application."""
        return self.asgi.get("route_handler") or self.asgi.get("endpoint") or self.application

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of the path."""
        found = self.asgi.get("path_params")
        return found if isinstance(found, Mapping) else {}

    def endpoint(self) -> Endpoint:
        return self.find(self.asgi, self.settings.show)

    def routed(self) -> Any:
        return id(self.asgi.get("endpoint") or self.asgi.get("route_handler"))


def _joined(name: str, values: list[bytes] | None) -> str:
    return (b"; " if name == "cookie" else b", ").join(values).decode("latin-1") if values else ""


def _by_name(headers: Iterable[Any]) -> dict[bytes, list[bytes]]:
    named: dict[bytes, list[bytes]] = {}
    for key, value in headers:
        named.setdefault(key.lower(), []).append(value)
    return named


def plain_endpoint(asgi: Scope, show: Callable[[str, str], Any]) -> Endpoint:
    """Say what an ASGI scope tells of its route: Litestar's has its template, others their endpoint."""
    handler = asgi.get("route_handler")
    endpoint = getattr(handler, "fn", None) if handler is not None else asgi.get("endpoint")
    return Endpoint(
        str(asgi.get("path_template") or ""),
        shown_path(str(asgi.get("path") or ""), asgi.get("path_params") or {}, show),
        view_name(endpoint),
    )


def shown_path(path: str, parameters: MutableMapping[str, Any], show: Callable[[str, str], Any]) -> str:
    """Return a path without the values of sensitive parameters."""
    for name, value in parameters.items():
        found = str(value)
        shown = show(name, found) if found and found in path else found
        if shown != found:
            path = path.replace(found, shown if isinstance(shown, str) else "")
    return path


class ASGIRequests:
    """What is done with each request, as configured.

    Args:
        logger: the current one, if any.
        make: makes the scope of a request.
        denials: whether requests that were denied are recorded.
        is_dependency: as for :class:`~otel_audit.http.actor.ActorSource`.
    """

    active: ClassVar[ASGIRequests | None] = None
    """That of an instrumentor, while it is active."""

    def __init__(
        self,
        config: AuditConfig,
        logger: Callable[[], AuditLogger | None],
        failures: Failures,
        *,
        make: Callable[[Scope, RequestSettings], ASGIRequestScope] | None = None,
        denials: bool = True,
        is_dependency: Callable[[Any], bool] = lambda function: False,
    ) -> None:
        self.settings = RequestSettings.of(config, is_dependency)
        self._logger = logger
        self._failures = failures
        self._make = make or (lambda asgi, settings: ASGIRequestScope(asgi, settings, plain_endpoint))
        self._denials = denials
        self._records: ASGIRecords | None = None
        if config.requests.enabled:
            from otel_audit.http.requests.asgi import ASGIRecords

            self._records = ASGIRecords(config, logger, failures)

    async def serve(self, application: Application, asgi: Scope, receive: Any, send: Send) -> None:
        """Have ``application`` answer one request, connection or lifespan."""
        if asgi["type"] not in _KINDS or SEEN in asgi:
            if asgi["type"] == "lifespan":
                await self._live(application, asgi, receive, send)
            else:
                await application(asgi, receive, send)
            return
        try:
            request = self._make(asgi, self.settings)
            request.application = application
            asgi[SEEN] = request.id
        except faults() as fault:  # headers that are none
            self._failures.report("request", fault)
            await application(asgi, receive, send)
            return
        context = AuditContext(request)
        token = enter_context(context)
        baggage = enter(request.baggage, visible=self.settings.visible)
        send = self._watched(context, request, send)
        records = self._records
        recording = None if records is None else records.recording(request, context)
        try:
            if records is None or recording is None:
                await application(asgi, receive, send)
            else:
                request.recording = recording
                await records.serve(recording, application, asgi, receive, send)
        finally:
            request.ended = True
            leave(baggage)
            _leave(token)

    async def _live(self, application: Application, asgi: Scope, receive: Any, send: Send) -> None:
        """Start and stop an application: what it does then, and what it starts then, is its own work."""
        work = SystemScope(Actor("lifespan", "system"), _lifespan_view(application), is_parent=False)
        token = enter_context(AuditContext(work))

        async def sending(message: Message) -> None:
            if _kind(message) in _LAST:
                await send_what_is_left()
            await send(message)

        try:
            await application(asgi, receive, sending)
        finally:
            _leave(token)

    def _watched(self, context: AuditContext, request: ASGIRequestScope, send: Send) -> Send:
        """Wrap ``send``: an answer begins when who asked is known, and says whether they were denied."""
        accepted = False

        def sending(message: Message) -> Awaitable[None]:
            nonlocal accepted
            kind = _kind(message)
            if kind == "http.response.body":
                pass
            elif kind in ("http.response.start", "websocket.http.response.start"):
                self._answered(context, request, message)
            elif kind == "websocket.accept":
                accepted = True
                annotate(current_span(), context)
            elif kind == "websocket.close":
                self._closed(request, message, accepted=accepted)
            return send(message)

        return sending

    def _answered(self, context: AuditContext, request: ASGIRequestScope, message: Message) -> None:
        span = current_span()
        annotate(span, context)  # the request's own span began before anyone was known
        if request.recording is not None:
            request.recording.seen_in(span)
        status = message.get("status")
        if self._denials and status in DENYING:
            try:
                location = _header(message, b"location")
                error = denial(status, location, _Asked(request.asgi).matches)
            except faults() as fault:
                self._failures.report("denial", fault, lost=1)
                return
            if error is not None:
                self._denied(request, error, {semconv.STATUS_CODE: status})

    def _closed(self, request: ASGIRequestScope, message: Message, *, accepted: bool) -> None:
        """Record that a connection was denied: by none of its routes it is only not found."""
        code = message.get("code", 1000)
        if not self._denials:
            return
        if accepted and code in _REFUSED:
            self._denied(request, str(code), {"websocket.close.code": code})
        elif not accepted and request.asgi.get("endpoint") is not None:
            self._denied(request, "403", {semconv.STATUS_CODE: 403})  # what the server answers then

    def _denied(self, request: ASGIRequestScope, error: str, attributes: dict[str, Any]) -> None:
        logger = self._logger()
        if logger is None:
            return
        try:
            route, path, _ = request.endpoint()
        except faults() as fault:
            self._failures.report("denial", fault, lost=1)
            return
        record_denial(logger, route or path, error, attributes)


def _kind(message: Any) -> Any:
    """Return the type of a message; an application may send anything, and its server says what is wrong."""
    return message.get("type") if isinstance(message, _MAPPINGS) else None


def _leave(token: Token[AuditContext | None]) -> None:
    with suppress(ValueError):  # closed by another task than it was begun in
        leave_scope(token)


def _header(message: Message, name: bytes) -> str:
    for key, value in message.get("headers") or ():
        if key.lower() == name:
            return bytes(value).decode("latin-1")
    return ""


class _Asked:
    """What a request has asked for."""

    def __init__(self, asgi: Scope) -> None:
        self._asgi = asgi

    def matches(self, address: str) -> bool:
        """Say whether ``address`` is what was asked for, with or without scheme and host."""
        asgi = self._asgi
        query = bytes(asgi.get("query_string") or b"").decode("latin-1")
        path = f"{asgi.get('path', '')}{'?' if query else ''}{query}"
        if address in (path, f"{quote(asgi.get('path', ''))}{'?' if query else ''}{query}"):
            return True
        scheme, separator, rest = address.partition("://")
        _, slash, asked = rest.partition("/")
        return bool(separator and slash) and scheme == asgi.get("scheme") and f"/{asked}" == path


def _lifespan_view(application: Any) -> str:
    """Name the function that a Starlette application starts and stops by; empty for the default."""
    try:
        router = getattr(getattr(application, "__self__", application), "router", None)
        lifespan = getattr(router, "lifespan_context", None)
        if lifespan is None or type(lifespan).__module__.startswith(("starlette.", "fastapi.")):
            return ""
        return view_name(lifespan)
    except faults():  # only a name
        return ""


class ASGIAuditMiddleware:
    """ASGI middleware for frameworks that no instrumentor of ours knows: put it around the application.

    ::

        app = ASGIAuditMiddleware(Litestar(...))

    Who acts is ``scope["user"]``, ``scope["state"]["user"]``, or what ``context.actor_from`` or
    :func:`otel_audit.set_actor` says. Passes everything through while audit is not running.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self._requests: ASGIRequests | None = None
        self._config: AuditConfig | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        requests = ASGIRequests.active or self._own()
        if requests is None:
            await self.app(scope, receive, send)
        else:
            await requests.serve(self.app, scope, receive, send)

    def _own(self) -> ASGIRequests | None:
        pipeline = provider.current()
        if pipeline is None:
            return None
        if self._requests is None or pipeline.config is not self._config:
            self._config = pipeline.config
            failures = Failures("ASGI", pipeline.config, provider.current_health)
            self._requests = ASGIRequests(pipeline.config, provider.current_logger, failures)
        return self._requests
