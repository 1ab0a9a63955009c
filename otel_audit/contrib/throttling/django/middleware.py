"""The middleware of Django, which the instrumentor places right inside that of audit.

Views are looked at when they are known, before they run. What no view answers (a wrong path, a redirect of
another middleware, a token that is nobody's) is counted afterwards, and the next one is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase

from otel_audit.config.model import AuditConfig
from otel_audit.contrib.throttling.asking import Asking
from otel_audit.contrib.throttling.counters.choice import counter_of_django
from otel_audit.contrib.throttling.counters.windows import Counter
from otel_audit.contrib.throttling.django.answers import answer
from otel_audit.contrib.throttling.django.authentication import Logins
from otel_audit.contrib.throttling.django.request import DjangoAsked, asks_late, view_marks
from otel_audit.contrib.throttling.rules import ThrottlingException
from otel_audit.contrib.throttling.throttler import Throttler, failures_of
from otel_audit.contrib.throttling.work import Work, current_work
from otel_audit.instrumentation.django.requests.loading import loading_with
from otel_audit.instrumentation.django.requests.middleware import AUDIT_MIDDLEWARE
from otel_audit.interruptions import faults
from otel_audit.pipeline import provider

_log: Final = logging.getLogger("otel_audit")
_OTEL: Final = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"


class DjangoThrottling:
    """Throttling of this process's requests, as configured."""

    def __init__(self, config: AuditConfig) -> None:
        self._config = config
        self._failures = failures_of(config)
        self.throttle: Throttler | None = None
        """Made with the first request: only then caches are ready."""
        self._made: list[Throttler] = []
        self._told = False
        self.logins = Logins()

    def start(self) -> None:
        """Let the middleware of every handler throttle."""
        ViewThrottlingMiddleware.throttling = self
        self.logins.start()

    def stop(self) -> None:
        """Let the middleware pass requests through."""
        self.logins.stop()
        ViewThrottlingMiddleware.throttling = None

    def work(self, request: HttpRequest) -> Work:
        """Return what is looked at in a request."""
        throttle = self.throttle or self._make()
        if not throttle.counter.shared and not self._told and request.META.get("wsgi.multiprocess"):
            self._told = True
            _log.warning(
                "each process counts requests by itself, and there are several: limits are as many times as "
                "high. Set throttling.cache to a cache that they share, such as Redis"
            )
        return Work(throttle, DjangoAsked(request, throttle.trusted_proxies))

    def _make(self) -> Throttler:
        counter: Counter
        try:
            counter = counter_of_django(self._config)
        except faults() as fault:  # no such cache, no client of Redis: a system check tells of it, too
            counter = _Nothing(fault)
        self._made.append(Throttler(self._config, counter, self._failures))
        self.throttle = self._made[0]  # another thread may have been first, and counted by now
        return self.throttle

    def load_middleware(self, original: Callable[..., None]) -> Callable[..., None]:
        """Wrap ``BaseHandler.load_middleware``: it reads a list with our middleware in it."""
        return loading_with(with_throttling, original)

    def response_for_exception(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap Django's: what a view or another middleware lets through is a refusal, and no error."""

        def response_for_exception(request: HttpRequest, exc: Exception) -> Any:
            if isinstance(exc, ThrottlingException):
                return answer(current_work.get() or self.work(request), exc)
            return original(request, exc)

        return response_for_exception

    def check_throttles(self, original: Callable[..., None]) -> Callable[..., None]:
        """Wrap DRF's: by now it has found out who asks."""

        def check_throttles(view: Any, request: Any) -> None:
            work = current_work.get()
            if work is not None and work.deferred:
                work.asked.known = request.user  # type: ignore[attr-defined]
                work.run(work.when_known())
            original(view, request)

        return check_throttles


class _Nothing:
    """Counts nothing, for want of what counts."""

    instant = True
    shared = True

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def step(self, windows: Any, change: Any) -> None:
        raise self._fault

    async def step_async(self, windows: Any, change: Any) -> None:
        raise self._fault


class ViewThrottlingMiddleware:
    """Refuses requests above the limits, sync and async."""

    sync_capable = True
    async_capable = True
    throttling: ClassVar[DjangoThrottling | None] = None

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        self.process_view: Callable[..., Any] = self._look
        if self._async:
            markcoroutinefunction(self)
            self.process_view = self._look_async

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        throttling = self.throttling
        if throttling is None or provider.held_because():  # in tests, but where they look at what is recorded
            return self.get_response(request)  # type: ignore[no-any-return]
        work = throttling.work(request)
        if self._async:
            return self._respond_async(work, request)
        token = current_work.set(work)
        try:
            response: HttpResponseBase = self.get_response(request)
            return _refused(work, work.what_is_left()) or response
        finally:
            current_work.reset(token)

    async def _respond_async(self, work: Work, request: HttpRequest) -> HttpResponseBase:
        token = current_work.set(work)
        try:
            response: HttpResponseBase = await self.get_response(request)
            return await _refused_async(work, work.what_is_left()) or response
        finally:
            current_work.reset(token)

    def _look(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
        """Look at the view that will answer; called by Django."""
        work = current_work.get()
        return None if work is None else _refused(work, _of_view(work, view))

    async def _look_async(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        work = current_work.get()
        return None if work is None else await _refused_async(work, _of_view(work, view))


def _of_view(work: Work, view: Any) -> Asking | None:
    found = view_marks(view, work.asked.method)
    if found.exempt:
        work.pass_by()
        return None
    return work.begin(found.rules, defaults=found.keep_default, users=not asks_late(view))


def _refused(work: Work, asking: Asking | None) -> HttpResponseBase | None:
    """Return the answer that stands for a refusal; None if nothing is refused, or nothing asked."""
    try:
        if asking is not None:
            work.run(asking)
    except ThrottlingException as refusal:
        return answer(work, refusal)
    return None


async def _refused_async(work: Work, asking: Asking | None) -> HttpResponseBase | None:
    try:
        if asking is not None:
            await work.run_async(asking)
    except ThrottlingException as refusal:
        return await sync_to_async(answer)(work, refusal)
    return None


THROTTLING_MIDDLEWARE: Final = (
    f"{ViewThrottlingMiddleware.__module__}.{ViewThrottlingMiddleware.__qualname__}"
)


def with_throttling(configured: list[str] | tuple[str, ...]) -> list[str]:
    """Return the list with our middleware inside that of audit and OpenTelemetry's, or first."""
    middleware = list(configured)
    if THROTTLING_MIDDLEWARE in middleware:
        return middleware
    outer = [middleware.index(each) for each in (AUDIT_MIDDLEWARE, _OTEL) if each in middleware]
    middleware.insert(max(outer) + 1 if outer else 0, THROTTLING_MIDDLEWARE)
    return middleware
