"""Starlette and FastAPI: who makes each request, and which were denied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, OnceImported, Part
from otel_audit.instrumentation.patching import Listener, Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.instrumentation.starlette.scope import StarletteRequests
    from otel_audit.pipeline.provider import AuditPipeline


class StarletteAuditInstrumentor(AuditInstrumentor):
    """Make a scope of every request of Starlette's and FastAPI's applications, made before or after this.

    Starlette itself is not imported for this: it is wrapped once the application has imported it.
    """

    library = "Starlette"
    section = "starlette"
    requires = ("starlette >= 0.46",)

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        return [_Scopes(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        for part in parts:
            if isinstance(part, _Scopes):
                yield part.listener("starlette.applications")


class _Scopes(OnceImported):
    _requests: StarletteRequests | None = None

    def begin(self) -> None:
        from otel_audit.instrumentation.starlette.middleware import table
        from otel_audit.instrumentation.starlette.scope import StarletteRequests

        self._requests = StarletteRequests(self.config, self.pipeline)
        self.patches.apply(table(self._requests))
        self._requests.start()

    def end(self) -> None:
        if self._requests is not None:
            self._requests.stop()
        super().end()
