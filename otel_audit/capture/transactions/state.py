"""What the connections of one instrumentor share in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_audit.capture.freshness import Freshness
from otel_audit.capture.table_policy import TablePolicy
from otel_audit.capture.transactions.transaction_buffer import TransactionBuffer
from otel_audit.config.model import AuditConfig, CaptureSection
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures

if TYPE_CHECKING:
    from otel_audit.pipeline.health import Health
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.pipeline.provider import AuditPipeline


class CaptureState:
    """What is configured, what was written lately, and where records go.

    Args:
        library: whose instrumentor it is, as messages name it.
        config: the whole configuration.
        section: the instrumentor's own part of it.
        pipeline: keeps the records; default the current one at the time.
    """

    def __init__(
        self,
        library: str,
        config: AuditConfig,
        section: CaptureSection,
        pipeline: AuditPipeline | None = None,
    ) -> None:
        self.config = section
        self.policy = TablePolicy(section, config.policy)
        self.freshness = Freshness()
        self.failures = Failures(library, config, self._health)
        self._pipeline = pipeline

    def schema_changed(self) -> None:
        """Forget what was asked of tables: the application has changed one."""

    def logger(self) -> AuditLogger | None:
        """Return the logger of the pipeline: the one given, or the current one."""
        return provider.current_logger() if self._pipeline is None else self._pipeline.logger

    def buffer(self) -> TransactionBuffer:
        """Make the buffer of a new connection."""
        logger = None if self._pipeline is None else self._pipeline.logger
        return TransactionBuffer(logger, self.failures, keep_failed=self.config.failures)

    def _health(self) -> Health | None:
        logger = self.logger()
        return None if logger is None else logger.health
