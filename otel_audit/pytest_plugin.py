"""pytest's fixture ``audited``: what a test of an application recorded.

Loaded by entry point where otel-audit is installed; imports nothing of it until the fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_audit.testing import CapturedAudit


@pytest.fixture(scope="session")
def _audit_instrumented() -> Iterator[None]:
    """Wrap the libraries by the project's configuration, unless the agent or ``setup()`` did before."""
    from otel_audit import startup
    from otel_audit.testing import capture_audit, is_instrumented

    if is_instrumented():
        yield
        return
    config = startup.load_config().config
    with capture_audit(config):
        instrumentors = startup.instrument_all()
    yield
    for instrumentor in reversed(instrumentors):
        instrumentor.uninstrument()


@pytest.fixture
def audited(_audit_instrumented: None) -> Iterator[CapturedAudit]:
    """Capture what is recorded while the test runs: a :class:`otel_audit.testing.CapturedAudit`.

    Nothing reaches the sink. The configuration is that of the running pipeline, or the project's own
    (``otel-audit.toml``, ``OTEL_AUDIT_*``, Django's setting ``OTEL_AUDIT``).
    """
    from otel_audit import startup
    from otel_audit.pipeline import provider
    from otel_audit.testing import capture_audit

    config = None if provider.configured() is not None else startup.load_config().config
    with capture_audit(config) as captured:
        yield captured
