"""For tests of applications: what was recorded.

::

    with capture_audit() as captured:
        client.post("/orders/7/", {"status": "paid"})
    record = captured.one(event_name="shop.order.update")
    assert record.changed_fields == ["status"]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from otel_audit.config.model import AuditConfig
from otel_audit.pipeline import provider
from otel_audit.pipeline.logger import Redacts
from otel_audit.pipeline.spool.cursor import Place
from otel_audit.pipeline.spool.reader import StreamReader
from otel_audit.record import AuditRecord


class CapturedAudit:
    """The records kept since :func:`capture_audit` began, read back from its spool.

    A record of a transaction appears when the transaction has ended, in the order of the ends.
    """

    def __init__(self, pipeline: provider.AuditPipeline) -> None:
        self.pipeline = pipeline
        self._records: list[AuditRecord] = []
        self._reader: StreamReader | None = None

    @property
    def records(self) -> list[AuditRecord]:
        """All records so far."""
        self._read()
        return list(self._records)

    def clear(self) -> None:
        """Forget the records so far."""
        self._read()
        self._records.clear()

    def find(self, **expected: Any) -> list[AuditRecord]:
        """Give the records whose attributes equal ``expected``; ``target`` may be text, ``shop.Order/7``."""
        return [record for record in self.records if _matches(record, expected)]

    def one(self, **expected: Any) -> AuditRecord:
        """Give the only record that matches; AssertionError says what was recorded instead."""
        found = self.find(**expected)
        if len(found) != 1:
            seen = "\n".join(
                f"  {r.event_name} {r.action} {r.target or ''} {r.outcome}" for r in self.records
            )
            raise AssertionError(f"{len(found)} records match {expected}, recorded were:\n{seen or '  none'}")
        return found[0]

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def _read(self) -> None:
        spool = self.pipeline.spool
        if self._reader is None:
            if spool.lock is None:  # nothing was written yet
                return
            self._reader = StreamReader(spool.lock.path, Place(), lambda: spool.committed)
        for item in self._reader.items():
            if isinstance(item.content, AuditRecord):
                self._records.append(item.content)

    def _close(self) -> None:
        self._read()
        if self._reader is not None:
            self._reader.close()


def _matches(record: AuditRecord, expected: dict[str, Any]) -> bool:
    for name, value in expected.items():
        actual = getattr(record, name)
        if name == "target" and isinstance(value, str):
            actual = "" if actual is None else str(actual)
        if actual != value:
            return False
    return True


@contextmanager
def capture_audit(
    config: AuditConfig | None = None, *, redactor: Redacts | None = None
) -> Iterator[CapturedAudit]:
    """Record into a spool of its own, through the real logger, and ship nothing.

    Args:
        config: default that of the running pipeline, or the defaults.
        redactor: default the configured one.
    """
    running = provider.current()
    if config is None:
        config = running.config if running is not None else AuditConfig()
    with tempfile.TemporaryDirectory(prefix="otel-audit-") as directory:
        spool = msgspec.structs.replace(config.spool, directory=directory)
        pipeline = provider.AuditPipeline(
            msgspec.structs.replace(config, spool=spool),
            redactor=redactor,
            ship=False,
            directory=Path(directory),
        )
        captured = CapturedAudit(pipeline)
        before = provider.replace(pipeline)
        try:
            yield captured
        finally:
            provider.replace(before)
            captured._close()
            pipeline.shutdown(0)
