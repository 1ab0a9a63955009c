"""Throttling for ASGI: Starlette, FastAPI, Litestar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from otel_audit.audit_context import current_context
from otel_audit.config.model import AuditConfig
from otel_audit.contrib.throttling import answers, logins
from otel_audit.contrib.throttling.counters.choice import counter_of
from otel_audit.contrib.throttling.counters.windows import Counter
from otel_audit.contrib.throttling.rules import ThrottlingException
from otel_audit.contrib.throttling.throttler import Throttler, failures_of
from otel_audit.contrib.throttling.work import Work, current_work
from otel_audit.http.asgi import ASGIRequestScope, Message, Scope, Send, plain_endpoint
from otel_audit.http.request_scope import RequestSettings
from otel_audit.interruptions import faults
from otel_audit.pipeline import provider
from otel_audit.pipeline.application_function import imported

_KINDS: Final = frozenset({"http", "websocket"})
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_REFUSED: Final = 1008


class ThrottlingMiddleware:
    """ASGI middleware that refuses requests above the limits of ``[throttling]``, while that is enabled.

    Args:
        app: the application.
        validators: more rules and validators, for all of its requests. The latter are given the ASGI scope.
        counter: what counts; default what ``throttling.storage`` names.
    """

    def __init__(
        self, app: Callable[..., Awaitable[None]], *validators: Any, counter: Counter | None = None
    ) -> None:
        self.app = app
        self._validators = [(each, "middleware") for each in validators]
        self._counter = counter
        self._config: AuditConfig | None = None
        self._throttle: Throttler | None = None
        self._settings: RequestSettings | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        throttle = self._current() if scope["type"] in _KINDS else None
        if throttle is None or self._settings is None:
            await self.app(scope, receive, send)
            return
        work = Work(throttle, _Asked(scope, self._settings))
        if not throttle.counter.instant:
            work.later = []
        sending = _Sending(work, scope, receive, send)
        token = current_work.set(work)
        try:
            await work.run_async(work.begin(self._validators))
            await self.app(scope, receive, sending)
        except ThrottlingException as refusal:
            if sending.started:
                raise
            await sending.refuse(refusal)
        finally:
            current_work.reset(token)
            await _catch_up(work)

    def _current(self) -> Throttler | None:
        pipeline = provider.configured()
        if pipeline is None or provider.held_because() or not pipeline.config.throttling.enabled:
            return None
        config = pipeline.config
        if config is not self._config:
            self._config = config
            self._settings = RequestSettings.of(config)
            counter = counter_of(config) if self._counter is None else self._counter
            self._throttle = Throttler(config, counter, failures_of(config))
            logins.listen()
        return self._throttle


async def _catch_up(work: Work) -> None:
    """Count what could not be while the application had the event loop."""
    later, work.later = work.later, None
    for asking in later or ():
        try:
            await work.run_async(asking)
        except ThrottlingException:  # nothing can be counted, as whoever comes next will hear
            return
        except faults() as fault:
            work.throttle.failed(fault, "counting a login", "it is not counted")


class _Asked:
    """A request, by its ASGI scope."""

    def __init__(self, scope: Scope, settings: RequestSettings) -> None:
        context = current_context()
        request = None if context is None else context.scope
        if not isinstance(request, ASGIRequestScope):
            request = ASGIRequestScope(scope, settings, plain_endpoint)
        self._request = request
        self.request = scope
        self.path = str(scope.get("path") or "")
        self.method = str(scope.get("method") or "GET")

    @property
    def address(self) -> str:
        return self._request.address()

    @property
    def route(self) -> str:
        route, path, _ = self._request.endpoint()
        return route or path

    def user(self) -> str:
        actor = self._request.actor
        return actor.id if actor.type == "user" else ""

    async def user_async(self) -> str:
        return self.user()


class _Sending:
    """What the application sends; and what is sent in its place if the request is refused."""

    def __init__(self, work: Work, scope: Scope, receive: Any, send: Send) -> None:
        self._work = work
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if message.get("type") in _STARTS:
            refusal = self._work.refusal
            if refusal is not None and message.get("status", 0) >= 500:
                # The framework knows the exception no better than any other.
                self._replaced = True
                await self.refuse(refusal)
                return
            self.started = True
        await self._send(message)

    async def refuse(self, refusal: ThrottlingException) -> None:
        """Answer that the request is refused."""
        work = self._work
        try:
            work.throttle.record(refusal, work.asked.route)
            view = work.throttle.section.failure_view
            if view and self._scope["type"] == "http":
                answer = imported(view)(self._scope, refusal)
                await answer(self._scope, self._receive, self._watching)
                return
        except faults() as fault:
            work.throttle.failed(fault, "the failure view", "a plain answer is sent")
            if self.started:
                raise
        await self._plain(refusal)

    async def _watching(self, message: Message) -> None:
        self.started = True
        await self._send(message)

    async def _plain(self, refusal: ThrottlingException) -> None:
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": _REFUSED, "reason": ""})
                return
            kind = "websocket.http.response"
        request = {key.lower(): value for key, value in self._scope.get("headers") or ()}
        accept, sent = (request.get(name, b"").decode("latin-1") for name in (b"accept", b"content-type"))
        if "html" in accept and not answers.wants_json(accept, sent):
            text, media = answers.page("Too many requests", str(refusal)), "text/html; charset=utf-8"
        else:
            text, media = answers.data(str(refusal), refusal.retry_after), "application/json"
        body = text.encode()
        headers = answers.headers(refusal.retry_after)
        headers |= {"Content-Type": media, "Content-Length": str(len(body))}
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": f"{kind}.start", "status": refusal.status, "headers": lines})
        await self._send({"type": f"{kind}.body", "body": body})
