"""A site of Django's that is throttled by the real instrumentors, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.core.cache import cache
from django.test import override_settings

from otel_audit.config.model import AuditConfig, ContextConfig, ThrottlingConfig, ThrottlingRuleConfig
from otel_audit.contrib.throttling.instrumentor import ThrottlingInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.contrib.throttling.clock import Clock
from tests.instrumentation.django.project import alice, clinic, clinic_database

__all__ = ["alice", "clinic", "clinic_database"]

Throttled = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttled(clinic: None, clock: Clock) -> Iterator[Throttled]:
    """Throttle with settings of the test's own; Django's default cache counts, by the clock of the test."""
    from otel_audit.contrib.throttling.counters.cache import CacheCounter
    from otel_audit.contrib.throttling.counters.choice import counter_of_django
    from otel_audit.contrib.throttling.django.middleware import ViewThrottlingMiddleware
    from otel_audit.contrib.throttling.throttler import Throttler
    from otel_audit.instrumentation.django import DjangoAuditInstrumentor
    from tests.contrib.throttling import site

    @contextmanager
    def throttle(
        *, context: ContextConfig | None = None, config: dict[str, Any] | None = None, **options: Any
    ) -> Iterator[CapturedAudit]:
        options["rules"] = {
            name: ThrottlingRuleConfig(**rule) for name, rule in options.get("rules", {}).items()
        }
        whole = AuditConfig(
            throttling=ThrottlingConfig(enabled=True, **options),
            context=context or ContextConfig(),
            **(config or {}),
        )
        with audited(DjangoAuditInstrumentor(), whole) as captured:
            instrumentor = ThrottlingInstrumentor()
            instrumentor.instrument(config=whole)
            try:
                throttling = ViewThrottlingMiddleware.throttling
                assert throttling is not None
                counter = counter_of_django(whole)
                if isinstance(counter, CacheCounter):
                    counter._storage._clock = clock
                throttling.throttle = Throttler(whole, counter, throttling._failures, clock)
                yield captured
            finally:
                instrumentor.uninstrument()

    cache.clear()
    site.RUNS.clear()
    with override_settings(ROOT_URLCONF="tests.contrib.throttling.site"):
        yield throttle
