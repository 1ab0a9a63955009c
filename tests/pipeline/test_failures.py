"""Our own failures: one message, one metric, one decision about ``fail_closed``."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_audit.config.model import AuditConfig
from otel_audit.errors import AuditError, InvalidRecord
from otel_audit.pipeline import metrics
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.health import Health


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def counted(health: Health) -> dict[str, float]:
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader])
    metrics.register(lambda: health, meters.get_meter("test"))
    data = reader.get_metrics_data()
    meters.shutdown()
    assert data is not None
    return {
        str(point.attributes["otel_audit.capture.place"]): point.value  # type: ignore[index,union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "audit.capture.failures"
        for point in metric.data.data_points
    }


def test_failures_are_counted_by_the_place_they_happened_at() -> None:
    """One metric for all; of what it failed for there may be many."""
    health = Health()
    failures = Failures("the toy", AuditConfig(), lambda: health)
    for place, what in (("plan", "shop.Order"), ("plan", "shop.Item"), ("build", "")):
        failures.report(place, ValueError("x"), what=what)
    assert counted(health) == {"plan": 2, "build": 1}


def test_the_message_names_the_library_the_place_and_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures("the toy", AuditConfig(), lambda: None)
    failures.note("plan", ValueError("none"), what="Order", lost=1)
    failures.note("build", Unspeakable())
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (
            logging.ERROR,
            "capture of the toy failed in plan of Order: ValueError: none; 1 change(s) are not recorded",
        ),
        (logging.ERROR, "capture of the toy failed in build: Unspeakable; the record is incomplete"),
    ]


def test_fail_closed_raises_into_the_application() -> None:
    """An error of ours as it is, any other one as what it caused; what must not raise does not."""
    failures = Failures("the toy", AuditConfig(on_error="fail_closed"), lambda: None)
    failures.note("build", ValueError("x"))
    with pytest.raises(AuditError, match=r"the toy failed in build: ValueError: x, .* \"fail_closed\""):
        failures.report("build", ValueError("x"))
    with pytest.raises(InvalidRecord):
        failures.report("record", InvalidRecord("y"))
