"""For tests of applications: check what was recorded, what was not, and that no secret was.

::

    with capture_audit() as captured:
        client.post("/orders/7/", {"status": "paid"})
    record = captured.one(event_name="shop.order.update")
    assert record.changed_fields == ["status"]
    captured.assert_no_secrets("hunter2")
    captured.assert_every_write_recorded()

pytest has it as the fixture ``audited`` (:mod:`otel_audit.pytest_plugin`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig
from otel_audit.pipeline import provider
from otel_audit.pipeline.logger import Redacts
from otel_audit.pipeline.spool.cursor import Position
from otel_audit.pipeline.spool.reader import StreamReader

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.testing.watched_writes import Written


class CapturedAudit:
    """The records kept since :func:`capture_audit` began, read back from its spool.

    A record of a transaction appears when the transaction has ended, in the order of the ends.
    """

    def __init__(self, pipeline: provider.AuditPipeline, writes: Sequence[Written] = ()) -> None:
        self.pipeline = pipeline
        self._writes = writes
        self._records: list[AuditRecord] = []
        self._reader: StreamReader | None = None

    @property
    def records(self) -> list[AuditRecord]:
        """All records so far."""
        self._read()
        return list(self._records)

    def clear(self) -> None:
        """Discard the records so far."""
        self._read()
        self._records.clear()

    def find(self, **expected: Any) -> list[AuditRecord]:
        """Return the records whose attributes equal ``expected``; ``target`` may be ``shop.Order/7``."""
        return [record for record in self.records if _matches(record, expected)]

    def one(self, **expected: Any) -> AuditRecord:
        """Return the only record that matches; otherwise raise an AssertionError that lists the records."""
        found = self.find(**expected)
        if len(found) != 1:
            seen = "\n".join(
                f"  {r.event_name} {r.action} {r.target or ''} {r.outcome}" for r in self.records
            )
            none = f"  none{'' if is_instrumented() else f': {NOT_INSTRUMENTED}'}"
            raise AssertionError(f"{len(found)} records match {expected}; recorded:\n{seen or none}")
        return found[0]

    def assert_no_secrets(self, secret: str, *more: str) -> None:
        """Check that no part of any record contains one of these strings.

        Raises:
            AssertionError: one does. The message names the record and the part, but not the secret.
        """
        secrets = (secret, *more)
        for record in self.records:
            for name, value in msgspec.to_builtins(record).items():
                text = json.dumps(value, ensure_ascii=False, default=str)
                for number, secret in enumerate(secrets, 1):
                    if secret in text or json.dumps(secret, ensure_ascii=False)[1:-1] in text:
                        raise AssertionError(
                            f"record {record.id} ({record.event_name} {record.target or ''}): "
                            f"{name} holds secret {number} of {len(secrets)}"
                        )

    def unrecorded_writes(self, ignore: Collection[str] = ()) -> list[str]:
        """Return the writes to tables of Django models that no record tells of, as ``shop.Order: UPDATE …``.

        These are writes to models that ``[django] models`` does not name, by the ORM or by raw SQL; raw SQL
        on a model that it names is on record. Statements are seen on the connections of the thread that
        captures, not on those of others, and not where they go to the driver past Django's cursor.

        Args:
            ignore: patterns of models to leave out, ``sessions.*``.
        """
        told = {
            record.target.type
            for record in self.records
            if record.target is not None and record.completeness == "statement"
        }
        return [
            str(written)
            for written in self._writes
            if not (written.captured or written.model in told)
            and not any(fnmatch(written.model.lower(), pattern.lower()) for pattern in ignore)
        ]

    def assert_every_write_recorded(self, ignore: Collection[str] = ()) -> None:
        """Check that :meth:`unrecorded_writes` is empty; AssertionError lists what is not."""
        found = self.unrecorded_writes(ignore)
        if found:
            listed = "\n".join(f"  {each}" for each in found)
            raise AssertionError(f"{len(found)} writes were not recorded:\n{listed}")

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def _read(self) -> None:
        spool = self.pipeline.spool
        if self._reader is None:
            if spool.lock is None:  # nothing was written yet
                return
            self._reader = StreamReader(spool.lock.path, Position(), lambda: spool.committed)
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


NOT_INSTRUMENTED: Final = (
    "nothing is instrumented, so changes, logins and requests are not recorded: run the tests under "
    "opentelemetry-instrument, call otel_audit.setup() before them, or use pytest's fixture `audited`"
)


def is_instrumented() -> bool:
    """Say whether any of our instrumentors is active in this process."""
    return any(instrumentor.is_instrumented_by_opentelemetry for instrumentor in _instrumentors())


def _instrumentors() -> list[Any]:
    """Return the instrumentors of ours that were made in this process, active or not."""
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

    found, kinds = [], [BaseInstrumentor]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        made = vars(kind).get("_instance")
        if made is not None and kind.__module__.startswith("otel_audit."):
            found.append(made)
    return found


def _watched_writes(config: AuditConfig) -> AbstractContextManager[list[Written]]:
    """Watch Django's writes, where this is a process of Django."""
    apps = sys.modules.get("django.apps")
    if apps is None or not apps.apps.models_ready:
        return nullcontext([])
    from otel_audit.instrumentation.django.testing.watched_writes import watch

    return watch(config.django)


@contextmanager
def capture_audit(
    config: AuditConfig | None = None, *, redactor: Redacts | None = None
) -> Iterator[CapturedAudit]:
    """Record into a separate spool, through the real logger, and send nothing.

    Works in Django's test environment, where nothing else is recorded. Warns if nothing was recorded and no
    library is instrumented.

    Args:
        config: Default: that of the running pipeline, or the defaults.
        redactor: Default: the configured one.
    """
    running = provider.configured()
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
        before = provider.replace(pipeline)
        try:
            with _watched_writes(config) as writes:
                captured = CapturedAudit(pipeline, writes)
                yield captured
        finally:
            provider.replace(before)
            captured._close()
            pipeline.shutdown(0)
    if not captured and not _instrumentors():
        warnings.warn(f"capture_audit() recorded nothing: {NOT_INSTRUMENTED}", stacklevel=3)
