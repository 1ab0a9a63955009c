"""Starlette and FastAPI instrumented by the real instrumentor, for a ``with`` block or a whole test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from otel_audit.config.model import AuditConfig, ContextConfig, RedactionConfig, StarletteConfig
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited

Instrumented = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.fixture
def instrumented() -> Instrumented:
    """Instrument with a configuration of the test's own."""

    @contextmanager
    def instrument(
        *,
        context: ContextConfig | None = None,
        redaction: RedactionConfig | None = None,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[CapturedAudit]:
        whole = AuditConfig(
            starlette=StarletteConfig(**options),
            context=context or ContextConfig(),
            redaction=redaction or RedactionConfig(),
            **(config or {}),
        )
        with audited(StarletteAuditInstrumentor(), whole) as captured:
            yield captured

    return instrument


@pytest.fixture
def audit(instrumented: Instrumented) -> Iterator[CapturedAudit]:
    """Instrumented with nothing but the defaults."""
    with instrumented() as captured:
        yield captured
