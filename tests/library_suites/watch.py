"""Inside the run of a library's tests: note what capture says of itself, test by test.

Nothing that the tests cannot see may stay unseen here: each line we log at WARNING or above (without the
limit of one per minute), and each record that is less than whole.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from unittest import mock

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import SpoolConfig
from otel_audit.pipeline.health import Throttle
from otel_audit.pipeline.logger import AuditLogger

SPOOL: Final = SpoolConfig(max_bytes=64 * 1024**3)
"""Room for the records of all tests."""


class Kind(msgspec.Struct):
    """How often something was, and where first."""

    count: int = 0
    tests: list[str] = []
    detail: str = ""


class Report(msgspec.Struct):
    """What a run says of capture.

    Attributes:
        lines: what we logged, by message.
        records: how many records there are of each completeness.
        lessened: records that are less than whole, by what they are about.
    """

    lines: dict[str, Kind] = {}
    records: dict[str, int] = {}
    lessened: dict[str, Kind] = {}


_R = TypeVar("_R", bound=Report)


class Watch(Generic[_R]):
    """Notes what happens, and in which test: ``test``, which the library's own way of running tests sets."""

    def __init__(self, report: _R) -> None:
        self.report = report
        self.records: Counter[str] = Counter()
        self.test = "(before the first test)"

    def start(self) -> None:
        """Wrap what is watched, for the rest of the process."""
        self._lines()
        self._made()

    def _lines(self) -> None:
        log = Throttle.__call__

        def called(
            throttle: Throttle, level: int, key: str, message: str, *args: object, exc_info: bool = False
        ) -> None:
            if level >= logging.WARNING:
                self._note(self.report.lines, _kind(message, args), _trace(args) or message % args)
            log(throttle, level, key, message, *args, exc_info=exc_info)

        replace(Throttle, "__call__", called)

    def _made(self) -> None:
        record = AuditLogger.record

        def recorded(logger: AuditLogger, *args: Any, **parts: Any) -> AuditRecord:
            made = record(logger, *args, **parts)
            self.records[made.completeness] += 1
            if made.truncated or _says_less(made):
                truncated = ", truncated" if made.truncated else ""
                name = self.test.removeprefix("(after ").split(".")[0]
                self._note(
                    self.report.lessened,
                    f"{made.completeness}{truncated}: {made.action} of {name}",
                    msgspec.json.encode(made).decode()[:1500],
                )
            return made

        replace(AuditLogger, "record", recorded)

    def _note(self, kinds: dict[str, Kind], kind: str, detail: str) -> None:
        found = kinds.setdefault(kind, Kind(tests=[], detail=detail))
        found.count += 1
        if self.test not in found.tests:
            found.tests.append(self.test)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        self.report.records = dict(self.records)
        path.write_bytes(msgspec.json.encode(self.report))


def replace(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Replace a method for the rest of the process."""
    mock.patch.object(owner, name, function).start()


def _says_less(record: AuditRecord) -> bool:
    """Whether a write is recorded less completely than one of the ORM that the database took should be."""
    raw = bool(record.database.query)
    return (
        record.completeness != "full" and record.outcome != "failure" and record.action != "READ" and not raw
    )


def _kind(message: str, args: tuple[object, ...]) -> str:
    """A line without what differs each time: exceptions by their class."""
    short = [type(arg).__qualname__ if isinstance(arg, BaseException) else str(arg)[:100] for arg in args]
    return message % tuple(short) if len(short) == message.replace("%%", "").count("%") else message


def _trace(args: tuple[object, ...]) -> str:
    error = next((arg for arg in args if isinstance(arg, BaseException)), None)
    return "" if error is None else "".join(traceback.format_exception(error))[-4000:]
