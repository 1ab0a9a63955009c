"""Switches throttling on: ``[throttling] enabled = true`` is all that Django needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, OnceImported, Part
from otel_audit.instrumentation.patching import Listener, Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.contrib.throttling.django.middleware import DjangoThrottling
    from otel_audit.pipeline.provider import AuditPipeline


class ThrottlingInstrumentor(AuditInstrumentor):
    """Throttle Django, once the application has imported it; count what applications say of their logins."""

    library = "Throttling"
    section = "throttling"

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        return [_Logins(), _Django(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        from otel_audit.instrumentation.starlette.middleware import keeping_peer

        for part in parts:
            if isinstance(part, _Django):
                yield part.listener("django.core.handlers.base")
        yield Patch(
            "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware.__call__",
            keeping_peer,
            "replaces the peer of the socket by what a header says, by default for 127.0.0.1",
            late=True,
        )


class _Logins(Part):
    def start(self) -> None:
        from otel_audit.contrib.throttling.logins import listen

        listen()

    def stop(self) -> None:
        from otel_audit.contrib.throttling.logins import forget

        forget()


class _Django(OnceImported):
    _throttling: DjangoThrottling | None = None

    def begin(self) -> None:
        from otel_audit.contrib.throttling.django import checks
        from otel_audit.contrib.throttling.django.middleware import DjangoThrottling
        from otel_audit.contrib.throttling.django.patches import table

        checks.register(self.config)
        self._throttling = DjangoThrottling(self.config)
        self.patches.apply(table(self._throttling))
        self._throttling.start()

    def end(self) -> None:
        from otel_audit.contrib.throttling.django import checks

        if self._throttling is not None:
            self._throttling.stop()
        super().end()
        checks.unregister()
