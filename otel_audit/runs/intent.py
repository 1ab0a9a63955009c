"""The record of a run that has not ended: on disk, and ``unknown`` if its process is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_audit.audit_record import AuditRecord
    from otel_audit.pipeline.logger import AuditLogger


class Intent:
    """What is on disk of a run, until its handle is settled.

    Attributes:
        logger: keeps it.
        handle: what the logger settles it by.
        record: as it is on disk.
    """

    __slots__ = ("_segment", "handle", "logger", "record")

    def __init__(self, logger: AuditLogger, record: AuditRecord) -> None:
        """Write it.

        Raises:
            SpoolError: it could not be written and ``on_error`` is ``fail_closed``.
        """
        self.logger = logger
        self.handle = 0
        try:
            self._write(record)
        except BaseException:  # a time limit: nobody has this to settle it
            if self.handle:
                logger.settle(self.handle, "failure", [])
            raise

    def _write(self, record: AuditRecord) -> None:
        self.record = record
        self.handle = self.logger.intend([record])
        self._segment = self.logger.segment

    @property
    def holds_back(self) -> bool:
        """Whether segments are kept because of it: those after the one it lies in."""
        return self.logger.segment != self._segment

    def renew(self, record: AuditRecord) -> None:
        """Write ``record`` in its stead, behind what was written since; it holds nothing back then.

        Raises:
            SpoolError: as for a new one.
        """
        before = self.handle
        self._write(record)
        self.logger.settle(before, "unknown", [])
