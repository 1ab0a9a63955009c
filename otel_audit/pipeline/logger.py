"""AuditLogger: makes records and puts them into the spool.

``record`` builds (context, portable values, hooks, redaction, size), ``emit`` keeps: when it returns, the
record is on disk. Inside a transaction records are kept in two steps, ``intend`` before the commit and
``settle`` after it. What cannot be kept obeys ``on_error``: logged and counted, or raised.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from otel_audit import forks
from otel_audit.audit_context import ContextFields, Moment, moment
from otel_audit.audit_record import (
    UNKNOWN,
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Completeness,
    Database,
    OldValues,
    Outcome,
    Target,
    new_record_id,
)
from otel_audit.config.model import AuditConfig
from otel_audit.errors import InvalidRecord, SpoolError
from otel_audit.interruptions import faults
from otel_audit.otel_api import trace_ids
from otel_audit.pipeline import limits, pipeline_records
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.lone_records import LoneRecords
from otel_audit.pipeline.record_heads import NO_DATABASE, EncodedRecord, Looks, Made, RecordHeads, whole
from otel_audit.pipeline.span_event import MAX_EVENTS, add_span_event
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.pipeline.validation import (
    UNWEIGHED,
    checked,
    name_of,
    portable_bulk,
    portable_parts,
    repaired,
    with_texts,
)
from otel_audit.values import MAX_PARTS, text

if TYPE_CHECKING:
    from otel_audit.pipeline.work_records import WorkRecords

_KNOWN_NAMES: Final = 10_000
_LONG_NAME: Final = 200

Hook = Callable[[AuditRecord], AuditRecord]


class Redacts(Looks, Protocol):
    """What the logger needs of a redactor."""

    @property
    def has_own_values(self) -> bool:
        """Whether values must be looked at one by one."""
        ...

    def record(
        self,
        record: AuditRecord,
        strategies: Mapping[str, str] | None = None,
        key: Sequence[str] | None = None,
    ) -> AuditRecord:
        """Return the record without sensitive values; the same object if there are none."""
        ...

    def shortened(self, record: AuditRecord, strategies: Mapping[str, str] | None, limit: int) -> AuditRecord:
        """Return the record with texts of at most ``limit`` characters; the same object if none is longer."""
        ...

    def mapping(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Return a mapping without sensitive values."""
        ...

    def digest(self, digest: bytes) -> str:
        """Return the keyed hash of the hash of a value; empty without a key."""
        ...


class AuditLogger:
    """Makes audit records and keeps them.

    Args:
        config: the whole configuration.
        redactor: removes sensitive values before anything is kept.
        spool: where records are kept.
        health: counters to keep.
        hooks: called in order with each record before redaction; each gives the record or another one.
    """

    def __init__(
        self,
        config: AuditConfig,
        redactor: Redacts,
        spool: SpoolWriter,
        health: Health,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.config = config
        self.health = health
        self._redactor = redactor
        self._spool = spool
        self._hooks = tuple(hooks)
        self.failures = Failures("records", config, lambda: self.health)
        self._fail_closed = config.fail_closed
        self._content = config.span_event.content
        self._tenant = config.tenant
        self._system = config.system
        self._lone = LoneRecords(redactor, config.tenant, config.system)
        self._works: WorkRecords | None = None
        self._by_value = bool(self._hooks) or redactor.has_own_values
        self._known: set[tuple[str, str]] = set()
        self._mutex = threading.RLock()
        self._unwritten: dict[int, list[AuditRecord]] = {}
        self._last_unwritten = 0
        self._loss: pipeline_records.Loss | None = None

    # --- making ------------------------------------------------------------------------------

    def record(
        self,
        event_name: str,
        action: str,
        *,
        at: Moment | None = None,
        outcome: Outcome = "success",
        log: str = "audit",
        actor: Actor | None = None,
        target: Target | None = None,
        changes: Sequence[Change] = (),
        image: Mapping[str, Any] | None = None,
        bulk: Bulk | None = None,
        portable: bool = False,
        fields: Sequence[str] = (),
        database: Database = NO_DATABASE,
        completeness: Completeness = "full",
        old_values: OldValues | None = None,
        message: str = "",
        error: str = "",
        code: str = "",
        related: Sequence[Target] = (),
        attributes: Mapping[str, Any] | None = None,
        shown: Mapping[str, Any] | None = None,
        strategies: Mapping[str, str] | None = None,
        key_strategies: Sequence[str] | None = None,
        record_id: str | None = None,
        event_type: str = "",
        event_code: str = "",
        slug: str = "",
        system: str = "",
        truncated: bool = False,
    ) -> AuditRecord:
        """Make a record of what happened at a moment; nothing is kept yet.

        Values, ids and texts of any type are converted; ``truncated`` says that something was left out.

        Args:
            event_name: dot-separated and stable, ``shop.order.update``.
            action: upper-case verb, ``UPDATE``.
            at: when, under which context and span; default now.
            actor: overrides the actor of the context.
            related: objects it is about, beside those of the context.
            slug, system: override those of the context.
            shown: more attributes that are portable and redacted already, as those of
                :class:`~otel_audit.http.contents.Contents` are.
            strategies: redaction strategy by field name, over the configured rules.
            key_strategies: redaction strategy by part of the target's key, empty for the rules; without it
                the type of the target decides.
            portable: the values of ``bulk`` are, and nothing of them was left out.
            record_id: an id made before, default a new one.

        Raises:
            InvalidRecord: what happened is not said: a name is no name, a part is empty or no valid choice.
        """
        if at is None:
            at = moment()
        timestamp = at.time
        observed = time.time_ns()
        try:
            context = at.fields()
        except faults() as fault:  # a scope may be anybody's; what happened is recorded anyway
            context = self._no_context(fault)
        tenant = context.tenant
        unnamed = not tenant and at.tenant is None
        if not tenant and not unnamed:
            tenant = at.tenant or self._tenant
        trace_id, span_id = trace_ids(at.span)
        if type(event_name) is not str or type(action) is not str:
            event_name, action = name_of(event_name), name_of(action)
            self._check_names(event_name, action)
        elif (event_name, action) not in self._known:
            self._check_names(event_name, action)
        changes, image, attributes, weight, complete = portable_parts(
            changes, image, attributes, self._redactor.digest
        )
        if bulk is not None and not portable:
            bulk, whole = portable_bulk(bulk, self._redactor.digest)
            complete = complete and whole
        if context.attributes:
            attributes = context.attributes | attributes
            weight = UNWEIGHED
        record = AuditRecord(
            id=record_id or new_record_id(timestamp),
            timestamp=timestamp,
            # A clock that was set back must not make a record observed before it happened.
            observed_timestamp=observed if observed >= timestamp else timestamp,
            event_name=event_name,
            action=action,
            outcome=outcome,
            log=log,
            actor=context.actor if actor is None else actor,
            target=target,
            source=context.source,
            request=context.request,
            origin=context.origin,
            database=database,
            changes=changes,
            image=image,
            bulk=bulk,
            fields=[fields] if isinstance(fields, str) else list(islice(fields, MAX_PARTS + 1)),
            completeness=completeness,
            old_values=old_values,
            message=message,
            reason=context.reason,
            tenant=tenant,
            system=system or context.system or self._system,
            event_type=event_type,
            event_code=event_code,
            slug=slug or context.slug,
            error=error,
            code=code or at.code,
            related=list(islice(_united(related, context.related), MAX_PARTS + 1)),
            attributes=attributes,
            truncated=truncated or context.truncated or unnamed or not complete,
            trace_id=trace_id,
            span_id=span_id,
        )
        record, length = checked(record)
        weight += length + 16 * (len(record.fields) + len(record.related))
        if self._hooks and shown:  # they may see all of it
            record = msgspec.structs.replace(record, attributes={**record.attributes, **shown})
            shown = None
        for hook in self._hooks:
            record = self._enrich(hook, record)
            weight = UNWEIGHED
        if weight >= limits.SMALL or record.bulk is not None:
            record = self._shortened(record, strategies)
        record = self._redact(record, strategies, key_strategies)
        if shown:
            record = msgspec.structs.replace(record, attributes={**record.attributes, **shown})
            weight += sum(map(_weight_of_shown, shown.values()))
        if weight < limits.SMALL and record.bulk is None:
            return record
        try:
            return limits.fit(record)
        except UnicodeEncodeError:  # a lone surrogate, which has no bytes
            return limits.fit(repaired(record))

    def work(
        self,
        event_name: str,
        action: str,
        *,
        at: Moment,
        target: Target,
        outcome: Outcome = "success",
        log: str = "activity",
        error: str = "",
        related: Sequence[Target] = (),
        attributes: Mapping[str, Any] | None = None,
        shown: Mapping[str, Any] | None = None,
        record_id: str | None = None,
        event_type: str = "",
        event_code: str = "",
        slug: str = "",
        system: str = "",
        truncated: bool = False,
        fields: ContextFields | None = None,
    ) -> Made:
        """Make the record of a piece of work itself, a request or a call: as :meth:`record`, but quicker.

        ``fields``: what ``at`` says of its context, where it was asked just before.

        Raises:
            InvalidRecord: as :meth:`record`.
        """
        known = (event_name, action) in self._known
        if known and not (related or truncated or self._by_value):
            try:
                works = self._works
                if works is None:
                    works = self._works = self._work_records()
                made = works.record(
                    event_name,
                    action,
                    at,
                    target,
                    outcome,
                    log,
                    error,
                    attributes or {},
                    shown or {},
                    record_id,
                    slug,
                    event_type,
                    event_code,
                    system,
                    fields,
                )
            except faults():  # the general way finds out what is wrong
                made = None
            if made is not None:
                return made
        return self.record(
            event_name,
            action,
            at=at,
            outcome=outcome,
            log=log,
            target=target,
            error=error,
            related=related,
            attributes=attributes,
            shown=shown,
            record_id=record_id,
            event_type=event_type,
            event_code=event_code,
            slug=slug,
            system=system,
            truncated=truncated,
        )

    def _work_records(self) -> WorkRecords:
        from otel_audit.pipeline.work_records import WorkRecords  # a process that records no work needs none

        return WorkRecords(self._redactor, self.config)

    def heads(self) -> RecordHeads | None:
        """Return what makes records that have much in common; None where each must be made by itself.

        Hooks and own patterns may find something else in each record.
        """
        return None if self._hooks or self._redactor.has_own_values else RecordHeads(self._redactor)

    def lone_records(self) -> LoneRecords | None:
        """Return what makes a record by itself in the quick way; None where each must go the general way."""
        return None if self._hooks or self._redactor.has_own_values else self._lone

    def _no_context(self, error: Exception) -> ContextFields:
        self.health.log(
            logging.ERROR,
            "context",
            "the context of a record cannot be read (%r); its actor is 'unknown'",
            error,
        )
        return ContextFields(actor=Actor(UNKNOWN, "unknown"), truncated=True)

    def _check_names(self, event_name: str, action: str) -> None:
        if not _is_name(event_name):
            raise InvalidRecord(
                f"event name is {_said(event_name)}; write a dotted name such as 'shop.order.update'"
            )
        if not _is_name(action) or not (action.isupper() or action == action.upper()):
            raise InvalidRecord(f"action is {_said(action)}; write an upper-case verb such as 'UPDATE'")
        if len(self._known) < _KNOWN_NAMES and len(event_name) + len(action) <= _LONG_NAME:
            self._known.add((event_name, action))

    def _enrich(self, hook: Hook, record: AuditRecord) -> AuditRecord:
        try:
            return checked(hook(record))[0]
        except faults() as error:  # a hook is the application's, the record is ours
            self.health.log(
                logging.ERROR, "hook", "hook %r failed (%r); records are made without it", hook, error
            )
            return record

    def _shortened(self, record: AuditRecord, strategies: Mapping[str, str] | None) -> AuditRecord:
        limit = limits.MAX_TEXT if record.bulk is None else limits.MAX_CELL
        try:
            return self._redactor.shortened(record, strategies, limit)
        except faults() as error:  # it only spares work: the record is cut to size afterwards
            self.health.log(
                logging.ERROR,
                "limits",
                "the long texts of %s cannot be shortened (%r)",
                record.event_name,
                error,
            )
            return record

    def _redact(
        self, record: AuditRecord, strategies: Mapping[str, str] | None, key: Sequence[str] | None
    ) -> AuditRecord:
        try:
            return self._redacted(record, strategies, key)
        except faults() as error:  # whatever it was, no value may pass
            if not isinstance(error, UnicodeError):
                return self._without_values(record, repr(error))
        try:  # half a surrogate pair, somewhere
            return self._redacted(repaired(record), strategies, key)
        except faults():
            return self._without_values(record, "text that cannot be encoded")

    def _redacted(
        self, record: AuditRecord, strategies: Mapping[str, str] | None, key: Sequence[str] | None
    ) -> AuditRecord:
        if key is None:
            return self._redactor.record(record, strategies)
        return self._redactor.record(record, strategies, key)

    def _without_values(self, record: AuditRecord, why: str) -> AuditRecord:
        # What could not be redacted must not be kept: only names and counts are left.
        self.health.log(
            logging.ERROR,
            "redaction",
            "redaction of %s failed (%s); the record is kept without any values",
            record.event_name,
            why,
        )
        return limits.without_any_values(record)

    # --- keeping -----------------------------------------------------------------------------

    def emit(self, *records: Made, at: Moment | None = None) -> bool:
        """Keep records that are settled: on disk when this returns. Adds their events to the span.

        Returns False if they were not kept, which is logged and counted.

        Raises:
            SpoolError: they could not be kept and ``on_error`` is ``fail_closed``.
            InvalidRecord: one cannot be represented, likewise.
        """
        if not self.keep(records):
            return False
        if self._content != "none":
            at = at or moment()
            for record in records[:MAX_EVENTS]:
                self.span_event(record, at)
        return True

    def log(self, event_name: str, action: str, **parts: Any) -> AuditRecord | None:
        """Record something that has happened and is settled: a login, a denial, the application's own.

        Args:
            event_name: as for :meth:`record`.
            action: as for :meth:`record`.
            parts: what else :meth:`record` takes.

        Returns:
            The record; None if it could not be made or was not kept, which is logged and counted.

        Raises:
            AuditError: the same, and ``on_error`` is ``fail_closed``.
        """
        try:
            if parts.get("changes"):
                parts["changes"] = with_texts(parts["changes"])
            parts["at"] = parts.get("at") or moment()
            record = self.record(event_name, action, **parts)
        except faults() as error:  # whatever was handed over
            self.failures.report("record", error, what=text(event_name), lost=1)
            return None
        return record if self.emit(record, at=parts["at"]) else None

    def keep(self, records: Sequence[Made], *, may_raise: bool = True) -> bool:
        """Keep settled records without any span event; what was dropped before is told of first.

        Gives False if they could not be kept, which is logged and counted.

        Raises:
            SpoolError: they could not be kept, ``on_error`` is ``fail_closed`` and ``may_raise``.
        """
        forks.check()
        payloads = self._encode(records)
        if not payloads:
            return not records
        loss = self._take_loss() if self._loss is not None else None
        try:
            self._spool.append(payloads if loss is None else [encode_record(loss.record()), *payloads])
        except SpoolError as error:
            self._spool_trouble(error)
            if loss is not None:
                self._add_loss(loss)
            if self._fail_closed and may_raise:
                raise
            self.health.dropped += len(records)
            self._add_loss(pipeline_records.loss_of([whole(record) for record in records], str(error)))
            return False
        return True

    def intend(self, records: Sequence[Made]) -> int:
        """Write records ahead of their commit; durable when this returns. Gives a handle for :meth:`settle`.

        A handle below zero means that they could not be written and wait in memory (``fail_open``).

        Raises:
            SpoolError: they could not be written and ``on_error`` is ``fail_closed``.
        """
        forks.check()
        payloads = self._encode(records)
        try:
            return self._spool.intend(payloads)
        except SpoolError as error:
            if self._fail_closed:
                raise
            self._spool_trouble(error)
            return self._remember([whole(record) for record in records])

    def settle(self, intent: int, outcome: Outcome, records: Sequence[Made] | None = None) -> None:
        """Say how an intent ended: writes its marker.

        Args:
            intent: the handle that :meth:`intend` gave.
            outcome: stands on every record of the intent that is shipped.
            records: ship these instead of the intended ones; may be fewer, more or none.

        Raises:
            SpoolError: the marker could not be written yet and ``on_error`` is ``fail_closed``. It is written
                once there is room; if the process dies before, the records say ``unknown``.
        """
        forks.check()
        if intent < 0:
            self._settle_unwritten(intent, outcome, records)
            return
        payloads = None if records is None else self._encode(records)
        try:
            self._spool.settle(intent, outcome, payloads)
        except SpoolError as error:
            self._spool_trouble(error)
            if self._fail_closed:
                raise

    @property
    def segment(self) -> int:
        """The number of the segment written to: one with an open intent is kept, and all after it."""
        return self._spool.committed[0]

    def span_event(self, record: Made, at: Moment) -> None:
        """Add the event of a record to the span of ``at`` while that records, else to the current one."""
        try:
            add_span_event(record, at, self._content)
        except faults() as error:  # a foreign Span may do anything; the record is safe
            self.health.log(logging.WARNING, "span event", "span event not added: %r", error)

    def _encode(self, records: Sequence[Made]) -> list[bytes]:
        try:
            return [
                record.payload if type(record) is EncodedRecord else encode_record(record)
                for record in records
            ]
        except faults():  # an encoder meets any type, and its methods
            return [payload for record in records for payload in self._encode_repaired(whole(record))]

    def _encode_repaired(self, record: AuditRecord) -> list[bytes]:
        """Encode a record, with lone surrogates and foreign types turned into text."""
        try:
            return [encode_record(record)]
        except faults():
            pass
        try:
            return [encode_record(repaired(record))]
        except faults() as error:  # an encoder meets any type, and its methods
            self.failures.report("encode", error, what=record.event_name, lost=1)
            return []

    # --- trouble -----------------------------------------------------------------------------

    def _spool_trouble(self, error: SpoolError) -> None:
        self.health.log(logging.ERROR, "spool", "audit records cannot be written: %s", error)

    def _take_loss(self) -> pipeline_records.Loss | None:
        with self._mutex:
            loss, self._loss = self._loss, None
            return loss

    def _add_loss(self, loss: pipeline_records.Loss) -> None:
        with self._mutex:
            self._loss = loss if self._loss is None else self._loss + loss

    def _remember(self, records: list[AuditRecord]) -> int:
        with self._mutex:
            self._last_unwritten -= 1
            self._unwritten[self._last_unwritten] = records
            return self._last_unwritten

    def _settle_unwritten(self, intent: int, outcome: Outcome, records: Sequence[Made] | None) -> None:
        intended = self._unwritten.pop(intent, None)
        if intended is not None and records is None:
            records = [msgspec.structs.replace(record, outcome=outcome) for record in intended]
        if intended is not None and records:
            self.keep(records)

    def begin_in_child(self) -> None:
        """Forget what a fork inherited: the parent settles its transactions and tells of its losses."""
        self._mutex = threading.RLock()
        # Handles go on: the parent's must not be taken for one of our own.
        self._unwritten = {}
        self._loss = None


def _weight_of_shown(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return len(value)
    return UNWEIGHED if kind is dict or kind is list else 16


def _united(own: Sequence[Target], of_context: Sequence[Target]) -> Sequence[Target]:
    return own if not of_context else (*own, *of_context)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _said(name: object) -> str:
    """Return what is no name as a message shows it."""
    return repr(name[:_LONG_NAME] + "…" if isinstance(name, str) and len(name) > _LONG_NAME else name)
