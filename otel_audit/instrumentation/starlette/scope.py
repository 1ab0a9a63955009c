"""A request of a Starlette or FastAPI application as a piece of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_audit.http.asgi import ASGIRequests, ASGIRequestScope, Scope
from otel_audit.http.request_scope import RequestSettings
from otel_audit.instrumentation.starlette.dependencies import is_dependency
from otel_audit.instrumentation.starlette.routes import starlette_endpoint
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class StarletteRequestScope(ASGIRequestScope):
    """A request, given to functions of the application as they know it."""

    __slots__ = ()

    @property
    def request(self) -> Any:
        """The request as Starlette has it, of either kind, and without its body."""
        from starlette.requests import HTTPConnection

        return HTTPConnection(self.asgi)


def _scope(asgi: Scope, settings: RequestSettings) -> StarletteRequestScope:
    return StarletteRequestScope(asgi, settings, starlette_endpoint)


class StarletteRequests(ASGIRequests):
    """What is done with each request while the instrumentor is active."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None) -> None:
        logger = provider.current_logger if pipeline is None else (lambda: pipeline.logger)
        super().__init__(
            config,
            logger,
            Failures("Starlette", config, provider.current_health),
            make=_scope,
            denials=config.starlette.auth_events,
            is_dependency=is_dependency,
        )

    def start(self) -> None:
        """Work for the middleware that the application places itself, too."""
        ASGIRequests.active = self

    def stop(self) -> None:
        """Leave it alone again."""
        ASGIRequests.active = None
