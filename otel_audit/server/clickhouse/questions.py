"""Who looked at the trail is on record: each question to the query port makes a record of its own.

The record is on disk, in a spool of the server's own, before the question is answered; from there it goes
into the store as any other does, many in one insert. It belongs to the log ``access``. The same question,
asked again by the same client within a minute, is counted, and a second record says how often: a dashboard
that asks every few seconds leaves two records per minute and question.

Only questions make records. Their records are written by the OTLP port, so none is ever about itself.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from otel_audit.audit_record import Actor, AuditRecord, Source, Target
from otel_audit.config.model import AuditConfig, SinkConfig
from otel_audit.errors import AuditError, SpoolError, StoreError
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.sender import Sender
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import Identity
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.redaction.redactor import Redactor
from otel_audit.server.otlp.commit import Busy
from otel_audit.store.schema import ACCESS_LOG
from otel_audit.version import __version__

_logger: Final = logging.getLogger(__name__)

ACTION: Final = "QUERY"
EVENT: Final = "audit.store.query"
SERVICE: Final = "otel-audit serve"
_TARGET: Final = "audit.store"

MOST_TEXT: Final = 4096
"""Bytes of a question on record; redaction sees twice as much, so that no secret is cut in halves first."""
_MOST_PARAMETERS: Final = 50
_PERIOD: Final = 60.0
_MOST_GROUPS: Final = 10_000
"""Questions counted at a time; above it each is recorded, none is left out."""
_DELAY: Final = 0.5
_STOP_SECONDS: Final = 5.0

_TIME: Final = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?\b"
    r"|(?<=toDateTime\()\d+|(?<=toDateTime64\()\d+|(?<=fromUnixTimestamp64Milli\()\d+"
)
"""Times in a question: a dashboard asks the same with another one each time."""


class Asker(NamedTuple):
    """Who asks: the name of the token that was presented, if one was asked for, and the address."""

    token: str
    address: str
    agent: str = ""


class Question(NamedTuple):
    """A question and how it was answered: ``error`` is empty, or says why it was not."""

    asker: Asker
    text: str
    parameters: Mapping[str, str]
    rows: int
    seconds: float
    error: str = ""


class _Group:
    """The same question within a minute: its first record, and what was asked since."""

    __slots__ = ("count", "first", "rows", "seconds", "until")

    def __init__(self, first: AuditRecord, until: float) -> None:
        self.first = first
        self.until = until
        self.count = self.rows = 0
        self.seconds = 0.0


class Questions:
    """Records the questions of one server; any thread may call.

    Args:
        config: the configuration; its redaction, spool sizes and ``on_error`` hold here, too.
        directory: where the records wait until they are in the store.
        endpoint: the OTLP address of this server, and the token to write there.
        period: seconds for which the same question is counted.

    Raises:
        StoreError: the directory cannot be written, and ``on_error`` is ``fail_closed``.
    """

    def __init__(
        self, config: AuditConfig, directory: Path, endpoint: str, token: str, *, period: float = _PERIOD
    ) -> None:
        self._database = config.store.database
        self._closed = config.fail_closed
        self._period = period
        self._groups: dict[tuple[object, ...], _Group] = {}
        self._mutex = threading.Lock()
        redactor = self._redactor = Redactor(config.redaction)
        self._health = health = Health()
        try:
            layout.prepare(directory)
        except SpoolError as error:
            if self._closed:
                raise StoreError(f"queries cannot be recorded: {error}") from error
            _logger.error("queries cannot be recorded: %s", error)
        self._spool = SpoolWriter(config.spool, directory, _identity, health)
        sink = SinkConfig(endpoint=endpoint, token=token, compression="none", max_delay=_DELAY)
        self._sender = Sender(sink, self._spool, health)
        self._spool.written = self._sender.wake
        self._log = AuditLogger(config, redactor, self._spool, health)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)

    @property
    def written(self) -> int:
        """How many records were written."""
        return self._health.emitted

    @property
    def dropped(self) -> int:
        """How many records could not be written; their questions were answered nevertheless."""
        return self._health.dropped

    def start(self) -> None:
        """Send what was left by a server that was killed, and count from now on; call when it listens."""
        self._sender.wake()
        self._thread.start()

    def asked(self, question: Question) -> None:
        """Keep a question on record; it may be answered when this returns.

        Raises:
            Busy: it could not be kept, and ``on_error`` is ``fail_closed``.
        """
        asker = question.asker
        key = (
            *asker,
            _TIME.sub("", question.text),
            tuple((name, _TIME.sub("", value)) for name, value in question.parameters.items()),
            question.error,
        )
        now = time.monotonic()
        with self._mutex:
            group = self._groups.get(key)
            if group is not None and now < group.until:
                group.count += 1
                group.rows += question.rows
                group.seconds += question.seconds
                return
            ended = [] if group is None else [self._groups.pop(key)]
        try:
            record = self._record(question)
        except AuditError as error:  # whatever is odd about it, it must not pass unseen
            _logger.error("a query is recorded without its parameters: %s", error)
            plain = question.text.encode("ascii", "backslashreplace").decode()
            record = self._record(question._replace(text=plain, parameters={}))
        self._keep([*self._repeated(ended), record])
        with self._mutex:
            # Asked by two at the same moment, it has two records; one of them counts what comes after.
            if len(self._groups) < _MOST_GROUPS:
                self._groups.setdefault(key, _Group(record, now + self._period))

    def close(self) -> None:
        """Record what was counted, wait a moment until it is in the store, and stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._end(float("inf"))
        self._spool.close()
        self._sender.stop(_STOP_SECONDS)
        self._spool.release()

    def _run(self) -> None:
        while not self._stop.wait(self._period / 4):
            self._end(time.monotonic())

    def _end(self, now: float) -> None:
        """Record how often the questions were asked whose minute is over."""
        with self._mutex:
            over = [key for key, group in self._groups.items() if group.until <= now]
            ended = [self._groups.pop(key) for key in over]
        try:
            self._keep(self._repeated(ended))
        except Busy as error:
            _logger.error("the number of repeated queries could not be recorded: %s", error)

    def _keep(self, records: list[AuditRecord]) -> None:
        if not records:
            return
        try:
            self._log.keep(records)
        except SpoolError as error:
            raise Busy(f"not answered, because the query could not be recorded: {error}") from error

    def _record(self, question: Question) -> AuditRecord:
        asker = question.asker
        try:
            kind = f"ipv{ipaddress.ip_address(asker.address).version}"
        except ValueError:
            kind = ""
        attributes: dict[str, Any] = {"rows": question.rows, "seconds": round(question.seconds, 6)}
        if question.parameters:
            attributes["parameters"] = dict(list(question.parameters.items())[:_MOST_PARAMETERS])
        record = self._log.record(
            EVENT,
            ACTION,
            outcome="failure" if question.error else "success",
            log=ACCESS_LOG,
            actor=Actor(asker.token, "service")
            if asker.token
            else Actor(asker.address or "unknown", "unknown"),
            target=Target(_TARGET, self._database),
            message=question.text[: 2 * MOST_TEXT],
            error=question.error,
            attributes=attributes,
        )
        kept = record.attributes.get("parameters")
        if kept is not None and len(msgspec.json.encode(kept)) > MOST_TEXT:
            shortened = {name: str(value)[: MOST_TEXT // _MOST_PARAMETERS] for name, value in kept.items()}
            record = msgspec.structs.replace(
                record, attributes={**record.attributes, "parameters": shortened}, truncated=True
            )
        text = record.message.encode("utf-8", "replace")
        if len(text) > MOST_TEXT or len(question.text) > 2 * MOST_TEXT:
            message = text[:MOST_TEXT].decode("utf-8", "ignore")
            record = msgspec.structs.replace(record, message=message, truncated=True)
        return msgspec.structs.replace(
            record,
            source=Source(asker.address, kind, user_agent=self._redactor.text(asker.agent[:256])),
            code="",
        )

    def _repeated(self, groups: list[_Group]) -> list[AuditRecord]:
        return [
            msgspec.structs.replace(
                self._log.record(EVENT, ACTION, log=ACCESS_LOG, outcome=first.outcome, actor=first.actor),
                target=first.target,
                source=first.source,
                message=first.message,
                error=first.error,
                truncated=first.truncated,
                attributes={
                    "repeated": group.count,
                    "first": first.id,
                    "rows": group.rows,
                    "seconds": round(group.seconds, 6),
                },
                code="",
            )
            for group in groups
            if group.count
            for first in [group.first]
        ]


def _identity() -> Identity:
    host = socket.gethostname()
    resource: dict[str, str | int | bool | float] = {"service.name": SERVICE, "host.name": host}
    return Identity(incarnation="", host=host, version=__version__, resource=resource)
