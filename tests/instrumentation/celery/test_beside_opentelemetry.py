"""Tasks are on record in the span that OpenTelemetry's instrumentation of Celery begins, in either order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.conftest import done
from tests.instrumentation.celery.shop import bill, fail

Audited = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_run_and_what_it_does_are_in_one_span(celery_audited: Audited, theirs_first: bool) -> None:
    theirs: Any = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    try:
        if theirs_first:
            theirs.instrument(tracer_provider=TracerProvider())
        with celery_audited() as captured:
            if not theirs_first:
                theirs.instrument(tracer_provider=TracerProvider())
            done(captured, bill.delay(7))
            run, inside = captured.one(event_name="task.run"), captured.one(event_name="shop.invoice.create")
            assert (run.trace_id, run.span_id) == (inside.trace_id, inside.span_id)
            assert run.span_id
            captured.clear()
            done(captured, fail.delay())
            assert captured.one(event_name="task.run").span_id
    finally:
        theirs.uninstrument()
