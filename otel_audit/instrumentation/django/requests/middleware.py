"""Makes each request a scope, and records the requests that were denied.

The instrumentor places the middleware when a handler loads its middleware, without touching
``settings.MIDDLEWARE``: right inside OpenTelemetry's own, so that its span is current, and outside all
others, so that everything they write has a request.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextvars import Token
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponseBase, StreamingHttpResponse
from opentelemetry.context import Context

from otel_audit import semconv
from otel_audit.audit_context import (
    AuditContext,
    current_context,
    enter_context,
    leave_scope,
    parent_of_request,
)
from otel_audit.config.model import AuditConfig
from otel_audit.http.denials import DENYING, record_denial
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.instrumentation.django.requests.denials import denial
from otel_audit.instrumentation.django.requests.loading import loading_with
from otel_audit.instrumentation.django.scope import RequestScope, ScopeSettings, route_of
from otel_audit.interruptions import faults
from otel_audit.otel_api import current_span
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.propagation import annotate, enter, leave
from otel_audit.redaction.redactor import Redactor

if TYPE_CHECKING:
    from otel_audit.http import request_scope as http
    from otel_audit.instrumentation.django.requests.records import DjangoRecords

_OTEL_MIDDLEWARE: Final = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"


def _get_ready_to_fork() -> None:
    """A handler is made before workers are."""
    pipeline = provider.current()
    if pipeline is not None:
        try:
            pipeline.get_ready_to_fork()
        except faults():  # whoever sends will hear of it
            return


class RequestCapture:
    """What the middleware does with a request, as configured."""

    def __init__(
        self,
        config: AuditConfig,
        logger: Callable[[], AuditLogger | None],
        failures: Failures,
        policy: ModelPolicy,
    ) -> None:
        self._logger = logger
        self._failures = failures
        redactor = Redactor(config.redaction)
        self.settings = ScopeSettings.of(
            config, redactor.field, lambda model, key: redactor.key(key, policy.keys(model).key)
        )
        self._record_denials = config.django.auth_events
        self._visible = config.context.baggage == "process"
        self.records: DjangoRecords | None = None
        if config.requests.enabled:
            from otel_audit.instrumentation.django.requests.records import DjangoRecords

            self.records = DjangoRecords(config, logger, failures)

    def start(self) -> None:
        """Let the middleware of every handler work for this capture."""
        AuditMiddleware.capture = self

    def stop(self) -> None:
        """Let the middleware pass requests through; handlers keep it until they are made anew."""
        AuditMiddleware.capture = None

    def scope(self, request: HttpRequest) -> RequestScope:
        """Make the scope of ``request``."""
        return RequestScope(request, self.settings, parent_of_request(current_context()))

    def context(self, request: HttpRequest) -> AuditContext:
        """Make the context of ``request``, and begin its record if there is to be one."""
        around, outer = current_context(), None
        if around is None:
            scope = RequestScope(request, self.settings)
        else:
            scope = RequestScope(request, self.settings, parent_of_request(around))
            outer = outer_scope(around, request)
            if outer is not None:
                scope.id, scope.parent = outer.id, outer.parent
        context = AuditContext(scope)
        if self.records is not None:
            self.records.begin(context, scope, outer)
        return context

    def baggage(self, request: HttpRequest) -> Token[Context] | None:
        """Make OpenTelemetry's context fit for ``request``; give the token to ``leave``."""
        return enter(request.META.get("HTTP_BAGGAGE", ""), visible=self._visible)

    def load_middleware(self, original: Callable[..., None]) -> Callable[..., None]:
        """Wrap ``BaseHandler.load_middleware``: it reads a list with our middleware in it."""
        loading = loading_with(with_audit_middleware, original)

        def load_middleware(handler: Any, /, *args: Any, **kwargs: Any) -> None:
            loading(handler, *args, **kwargs)
            _get_ready_to_fork()

        return load_middleware

    def finish(self, context: AuditContext, request: HttpRequest, response: HttpResponseBase) -> None:
        """Record a denial; let the body of a streaming response run in the request's context."""
        scope = context.scope if isinstance(context.scope, RequestScope) else None
        if scope is not None and scope.unsaid is not None:
            unsaid, scope.unsaid = scope.unsaid, None
            unsaid()
        annotate(current_span(), context)  # the request's own span began before anyone was known
        if self.records is not None and scope is not None and scope.recording is not None:
            self.records.answered(scope.recording, response)
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            from otel_audit.http.streaming import in_context, in_context_async  # most answers are whole

            body = AuditContext(context.scope, context.overrides, current_span())
            content: Any = response.streaming_content
            stream = in_context_async if response.is_async else in_context
            response.streaming_content = stream(content, body, partial(_streamed, context))
        else:
            _end(context)
        if self._record_denials and response.status_code in DENYING:
            self._denied(request, response)

    def _denied(self, request: HttpRequest, response: HttpResponseBase) -> None:
        logger = self._logger()
        if logger is None:
            return
        try:
            error = denial(request, response, settings.LOGIN_URL)
            if error is None:
                return
            route = route_of(request.resolver_match) or request.path
        except faults() as fault:
            self._failures.report("denial", fault, lost=1)
            return
        record_denial(logger, route, error, {semconv.STATUS_CODE: response.status_code})


class AuditMiddleware:
    """Puts each request into its scope, sync and async."""

    sync_capable = True
    async_capable = True
    capture: ClassVar[RequestCapture | None] = None

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)
        capture = self.capture
        if capture is not None and capture.records is not None and capture.records.starts:
            # Only for rules that ask for it: Django calls it for each request, if there is one.
            self.process_view = self._before_view_async if self._async else self._before_view

    def _before_view(self, request: HttpRequest, *_: Any) -> None:
        scope = request_scope(request)
        if scope is not None and scope.recording is not None:
            scope.recording.begin()

    async def _before_view_async(self, request: HttpRequest, *_: Any) -> None:
        self._before_view(request)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        capture = self.capture
        if capture is None:
            return self.get_response(request)  # type: ignore[no-any-return]
        if self._async:
            return self._respond_async(capture, request)
        context = capture.context(request)
        token = enter_context(context)
        baggage = capture.baggage(request)
        try:
            response: HttpResponseBase = self.get_response(request)
            capture.finish(context, request, response)
        except BaseException as error:
            _end(context, error)
            raise
        finally:
            leave(baggage)
            leave_scope(token)
        return response

    async def _respond_async(self, capture: RequestCapture, request: HttpRequest) -> HttpResponseBase:
        context = capture.context(request)
        token = enter_context(context)
        baggage = capture.baggage(request)
        try:
            response: HttpResponseBase = await self.get_response(request)
            capture.finish(context, request, response)
        except BaseException as error:
            _end(context, error)
            raise
        finally:
            leave(baggage)
            leave_scope(token)
        return response


def _end(context: AuditContext, error: BaseException | None = None) -> None:
    """Note that a request is over: threads it has started work for themselves from now on."""
    scope = context.scope
    if isinstance(scope, RequestScope):
        scope.ended = True
        if scope.recording is not None:
            if error is not None:
                scope.recording.failed(error)
            scope.recording.end()


def _streamed(context: AuditContext) -> None:
    """Note that the body has been sent, has failed or was given up."""
    _end(context, sys.exception())


AUDIT_MIDDLEWARE: Final = f"{AuditMiddleware.__module__}.{AuditMiddleware.__qualname__}"


def with_audit_middleware(configured: list[str] | tuple[str, ...]) -> list[str]:
    """Return the list with our middleware inside OpenTelemetry's, or first; a place the user chose stays."""
    middleware = list(configured)
    if AUDIT_MIDDLEWARE not in middleware:
        position = middleware.index(_OTEL_MIDDLEWARE) + 1 if _OTEL_MIDDLEWARE in middleware else 0
        middleware.insert(position, AUDIT_MIDDLEWARE)
    return middleware


def outer_scope(context: AuditContext, request: HttpRequest) -> http.RequestScope | None:
    """Return the scope that an application around Django has made of the same request, if any."""
    from otel_audit.http.request_scope import SEEN, RequestScope

    scope = context.scope
    if not isinstance(scope, RequestScope) or scope.ended:
        return None
    handed_on = getattr(request, "scope", request.META)  # of ASGI, or of WSGI
    if isinstance(handed_on, dict) and handed_on.get(SEEN) == scope.id:
        return scope
    return scope if (scope.method(), scope.path()) == (request.method, request.path) else None


def request_scope(request: Any) -> RequestScope | None:
    """Return the current scope if it is that of ``request``, also behind another framework's wrapper."""
    context = current_context()
    scope = None if context is None else context.scope
    request = getattr(request, "_request", request)  # Django REST framework's
    return scope if isinstance(scope, RequestScope) and scope.request is request else None
