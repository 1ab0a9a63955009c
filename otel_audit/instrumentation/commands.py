"""Commands: records of management commands of Django, and of commands of Click and Typer.

That a command is who acts needs none of this: it holds with any of our instrumentors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.command_scope import record_commands
from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class CommandsAuditInstrumentor(AuditInstrumentor):
    """Record commands."""

    library = "commands"
    section = "commands"

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        return [CommandRecords(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch]:
        return ()  # with any instrumentor commands are wrapped already: they are who acts


class CommandRecords(Part):
    """Has commands recorded while started."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None) -> None:
        from otel_audit.pipeline import provider
        from otel_audit.runs.recording import Recording

        self._recording = Recording(
            config, provider.current_logger if pipeline is None else lambda: pipeline.logger
        )

    def start(self) -> None:
        """Record commands."""
        record_commands(self._recording)

    def stop(self) -> None:
        """Record them no longer."""
        record_commands(None)
