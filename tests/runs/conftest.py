"""Commands recorded by the real instrumentor, for a ``with`` block or a whole test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from otel_audit.config.model import AuditConfig, CommandsConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.instrumentation.commands import CommandsAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited

Recorded = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.fixture
def recorded() -> Recorded:
    """Record commands with a configuration of the test's own: ``output``, or the rules of a policy."""

    @contextmanager
    def record(
        *, output: bool = False, policy: list[PolicyRule] | None = None, config: Any = None, **options: Any
    ) -> Iterator[CapturedAudit]:
        rules = policy or ([PolicyRule(command="*", level="request_response")] if output else [])
        whole = AuditConfig(
            commands=CommandsConfig(**{"enabled": True, **options}), policy=rules, **(config or {})
        )
        with audited(CommandsAuditInstrumentor(), whole) as captured:
            yield captured

    return record


@pytest.fixture
def audit(recorded: Recorded) -> Iterator[CapturedAudit]:
    """Commands recorded with nothing but the defaults."""
    with recorded() as captured:
        yield captured


@pytest.fixture
def printed(recorded: Recorded) -> Iterator[CapturedAudit]:
    """Commands recorded with all that they print; what is printed meanwhile is taken when a run ends."""
    with recorded(output=True, flush=0) as captured:
        yield captured
