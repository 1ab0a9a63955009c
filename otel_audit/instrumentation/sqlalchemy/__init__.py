"""SQLAlchemy: records what its ORM and its Core write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, OnceImported, Part
from otel_audit.instrumentation.patching import Listener, Patch
from otel_audit.targets import Recognizer, recognize, recognize_no_longer

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
        return [_Captured(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        for part in parts:
            if isinstance(part, _Captured):
                yield part.listener("sqlalchemy")


class _Captured(OnceImported):
    _recognizer: Recognizer | None = None

    def begin(self) -> None:
        from otel_audit.instrumentation.sqlalchemy.patches import table
        from otel_audit.instrumentation.sqlalchemy.writes.state import Capture

        capture = Capture(self.config, self.pipeline)
        self.patches.apply(table(capture))
        self._recognizer = capture.plans.target_of
        recognize(self._recognizer)

    def end(self) -> None:
        super().end()
        if self._recognizer is not None:
            recognize_no_longer(self._recognizer)
