"""A service to call, and calls that are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest

from otel_audit.config.model import AuditConfig, OutgoingConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.http_clients.service import Service, serving


def recording(
    *rules: PolicyRule, on_error: Literal["fail_open", "fail_closed"] = "fail_open", **settings: Any
) -> AbstractContextManager[CapturedAudit]:
    """Record calls within a block, by these rules and settings of ``[outgoing]``."""
    instrumentor = HttpClientsAuditInstrumentor()
    instrumentor.uninstrument()  # another test may have left it, with nothing to do
    outgoing = OutgoingConfig(enabled=True, **settings)
    return audited(instrumentor, AuditConfig(outgoing=outgoing, policy=list(rules), on_error=on_error))


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def captured() -> Iterator[CapturedAudit]:
    """Calls recorded at the level that stands where no rule does."""
    with recording() as captured:
        yield captured
