"""What was recorded while a test ran: as records, and sorted by what they are about."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline import provider
from otel_audit.pipeline.spool.cursor import Position
from otel_audit.pipeline.spool.reader import StreamReader
from otel_audit.testing.instrumented import NOT_INSTRUMENTED, is_instrumented
from otel_audit.testing.parts import (
    CapturedCall,
    CapturedChange,
    CapturedCommand,
    CapturedLogin,
    CapturedPart,
    CapturedPublish,
    CapturedRead,
    CapturedRequest,
    CapturedRun,
)

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.testing.watched_writes import Written

_Part = TypeVar("_Part", bound=CapturedPart)


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

    @property
    def changes(self) -> list[CapturedChange]:
        """What was written to audited models and tables, one of each record: of one row or of many."""
        return self._sorted(CapturedChange)

    @property
    def reads(self) -> list[CapturedRead]:
        """What was read of models whose reads are recorded, one of each query."""
        return self._sorted(CapturedRead)

    @property
    def logins(self) -> list[CapturedLogin]:
        """Logins, successful and failed."""
        return self._sorted(CapturedLogin)

    @property
    def requests(self) -> list[CapturedRequest]:
        """Requests that the application answered."""
        return self._sorted(CapturedRequest)

    @property
    def outgoing(self) -> list[CapturedCall]:
        """Requests that the application made."""
        return self._sorted(CapturedCall)

    @property
    def commands(self) -> list[CapturedCommand]:
        """Commands and jobs that have ended."""
        return self._sorted(CapturedCommand)

    @property
    def tasks_published(self) -> list[CapturedPublish]:
        """Tasks that were sent to a queue."""
        return self._sorted(CapturedPublish)

    @property
    def tasks_run(self) -> list[CapturedRun]:
        """Tasks that were run, each try by itself."""
        return self._sorted(CapturedRun)

    def _sorted(self, kind: type[_Part]) -> list[_Part]:
        return [kind(record) for record in self.records if kind.is_of(record)]

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
