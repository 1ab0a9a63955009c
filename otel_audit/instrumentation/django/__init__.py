"""Django: records what the ORM writes, who logs in, and what is read of sensitive models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.audit_context import process_scope
from otel_audit.config.django_setting import is_configured
from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Listener, Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class DjangoAuditInstrumentor(AuditInstrumentor):
    """Wrap Django for auditing.

    Neither Django's settings nor its apps need to be ready: models are looked at when they are first used.
    """

    library = "Django"
    section = "django"
    requires = ("Django >= 5.2",)

    def prepare(self) -> None:
        from otel_audit.instrumentation.django import checks

        process_scope.starters.add("manage.py")
        checks.register()  # they tell of all that may fail afterwards

    def withdraw(self) -> None:
        from otel_audit.instrumentation.django import checks

        checks.unregister()

    def preflight(self, config: AuditConfig) -> Iterable[str]:
        from otel_audit.capture.opt_in import code_rules

        section = config.django
        if (
            section.enabled
            and (section.models or section.reads or section.model or code_rules())
            and not os.environ.get("DJANGO_SETTINGS_MODULE")
            and not is_configured()
        ):
            yield (
                "DJANGO_SETTINGS_MODULE is not set. OpenTelemetry's Django instrumentation then configures "
                "empty settings, and the application will run with them; manage.py and wsgi.py set it too "
                "late. Export it before Python starts: DJANGO_SETTINGS_MODULE=x.settings "
                "opentelemetry-instrument ..."
            )

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        from otel_audit.instrumentation.django.auth import AuthCapture
        from otel_audit.instrumentation.django.inspection.inventory import Announcement
        from otel_audit.instrumentation.django.patches import later, reads_table
        from otel_audit.instrumentation.django.reads.wrappers import ReadCapture
        from otel_audit.instrumentation.django.requests.middleware import RequestCapture
        from otel_audit.instrumentation.django.testing.test_runs import TestRuns
        from otel_audit.instrumentation.django.writes.wrappers import WriteCapture

        writes = WriteCapture(config, pipeline, later)
        capture = writes.capture
        requests = RequestCapture(config, capture.logger, capture.failures, capture.policy)
        reads = ReadCapture(
            capture.policy,
            config.django,
            capture.logger,
            capture.failures,
            capture.database,
            reads_table,
        )
        parts: list[Part] = [writes, requests, Announcement(config), reads]
        if config.django.auth_events:
            parts.append(AuthCapture(capture.logger, capture.failures, requests, reads.internal))
        if pipeline is None and not config.record_tests:
            parts.append(TestRuns())
        return parts

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        from otel_audit.instrumentation.django.patches import table

        return table(parts)
