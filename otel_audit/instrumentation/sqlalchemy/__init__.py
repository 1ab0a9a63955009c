"""SQLAlchemy: records what its ORM and its Core write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import AppliedPatches, Listener, Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class SQLAlchemyAuditInstrumentor(AuditInstrumentor):
    """Listen to SQLAlchemy for auditing: to every engine, connection and session, whenever it was made.

    SQLAlchemy itself is not imported for this: it is listened to once the application has imported it.
    """

    library = "SQLAlchemy"
    section = "sqlalchemy"
    requires = ("SQLAlchemy >= 2.0",)

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        return [_OnceImported(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        for part in parts:
            if isinstance(part, _OnceImported):
                yield Listener(
                    "sqlalchemy:import", part.listen, part.forget, "there is nothing before", late=True
                )


class _OnceImported(Part):
    """What captures, made when SQLAlchemy is there."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None) -> None:
        self._config = config
        self._pipeline = pipeline
        self._patches = AppliedPatches()

    def listen(self) -> None:
        from otel_audit.instrumentation.sqlalchemy.patches import table
        from otel_audit.instrumentation.sqlalchemy.writes.state import Capture

        self._patches.apply(table(Capture(self._config, self._pipeline)))

    def forget(self) -> None:
        self._patches.undo()
