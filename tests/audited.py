"""A library audited within a test, by one of our instrumentors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from otel_audit.config.model import AuditConfig
from otel_audit.instrumentation.instrumentor import AuditInstrumentor
from otel_audit.testing import CapturedAudit, capture_audit


@contextmanager
def audited(instrumentor: AuditInstrumentor, config: AuditConfig) -> Iterator[CapturedAudit]:
    """Audit with a configuration of the test's own, and leave no trace."""
    with capture_audit(config) as captured:
        instrumentor.instrument(config=config)
        try:
            yield captured
        finally:
            instrumentor.uninstrument()
