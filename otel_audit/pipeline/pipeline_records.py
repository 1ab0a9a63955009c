"""Records the pipeline makes about itself: where a stream begins and ends, what was lost on the way.

Those that belong to a place in the spool are the same however often that place is read: their ids and times
come from the spool's content, never from a clock or a random source.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from otel_audit.audit_record import Actor, AuditRecord, Outcome, Target, new_record_id, uuid7
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.spool.frames import Identity

STREAM_START: Final = "audit.stream.start"
STREAM_END: Final = "audit.stream.end"
SPOOL_DAMAGED: Final = "audit.spool.damaged"
RECORDS_DROPPED: Final = "audit.records.dropped"
RECORD_QUARANTINED: Final = "audit.record.quarantined"

_SPOOL: Final = "audit.spool"
_STREAM: Final = "audit.stream"
_EVENT_NAMES: Final = 50


def derived_id(timestamp: int, *seed: object) -> str:
    """Make a UUIDv7 for ``timestamp`` (ns) whose random part is the hash of ``seed``."""
    digest = int.from_bytes(hashlib.sha256("\0".join(map(str, seed)).encode()).digest()[:10], "big")
    return uuid7(timestamp // 1_000_000, digest)


def _of(identity: Identity) -> Actor:
    return Actor(id=str(identity.resource.get("service.name", "otel-audit")), type="system")


def _made(
    event_name: str,
    action: str,
    *,
    target: Target,
    attributes: Mapping[str, Any],
    actor: Actor | None = None,
    timestamp: int = 0,
    record_id: str = "",
    outcome: Outcome = "success",
    log: str = "audit",
    message: str = "",
) -> AuditRecord:
    """Make a record, without a ``timestamp`` one of now."""
    timestamp = timestamp or time.time_ns()
    return AuditRecord(
        id=record_id or new_record_id(timestamp),
        timestamp=timestamp,
        observed_timestamp=timestamp,
        event_name=event_name,
        action=action,
        outcome=outcome,
        log=log,
        actor=actor or Actor(id="otel-audit", type="system"),
        target=target,
        attributes=dict(attributes),
        message=message,
    )


def stream_start(identity: Identity, log: str, stream: str, reason: str = "") -> AuditRecord:
    """Make the first record of a stream: who writes it, where, and which stream came before."""
    resource = identity.resource
    attributes: dict[str, Any] = {
        "service": resource.get("service.name", ""),
        "host": identity.host,
        "pid": identity.pid,
        "version": identity.version,
        "incarnation": identity.incarnation,
    }
    if log in identity.previous:
        previous, number, record = identity.previous[log]
        attributes |= {"previous_stream": previous, "previous_number": number, "previous_record": record}
    if reason:
        attributes["reason"] = reason
    return _made(
        STREAM_START,
        "START",
        actor=_of(identity),
        record_id=derived_id(identity.created, stream, "start"),
        timestamp=identity.created,
        target=Target(_STREAM, stream),
        attributes=attributes,
        log=log,
    )


def stream_end(identity: Identity, log: str, stream: str, timestamp: int) -> AuditRecord:
    """Make the last record of a stream whose process stopped gracefully at ``timestamp`` (ns)."""
    return _made(
        STREAM_END,
        "STOP",
        actor=_of(identity),
        record_id=derived_id(timestamp, stream, "end"),
        timestamp=timestamp,
        target=Target(_STREAM, stream),
        attributes={"pid": identity.pid},
        log=log,
    )


def spool_damaged(
    identity: Identity, segment: int, offset: int, length: int, timestamp: int, what: str
) -> AuditRecord:
    """Make the record that stands where ``length`` bytes of a segment could not be read."""
    return _made(
        SPOOL_DAMAGED,
        "LOSE",
        actor=_of(identity),
        record_id=derived_id(timestamp, identity.incarnation, segment, offset, length),
        timestamp=timestamp,
        target=Target(_SPOOL, f"{identity.incarnation}/{segment:08d}"),
        attributes={"segment": segment, "offset": offset, "bytes": length, "pid": identity.pid},
        outcome="failure",
        message=what,
    )


def record_quarantined(record: AuditRecord, reason: str, path: str) -> AuditRecord:
    """Make the record that tells of one the sink refuses for good: the gap in its stream has this reason."""
    sequence = record.sequence
    return _made(
        RECORD_QUARANTINED,
        "LOSE",
        outcome="failure",
        target=Target("audit.record", record.id),
        message=f"the sink refuses this record: {reason}",
        attributes={
            "event_name": record.event_name,
            "stream": sequence.stream if sequence else "",
            "number": sequence.number if sequence else 0,
            "kept": path,
        },
    )


class Loss(NamedTuple):
    """Records that could not be kept: how many, of which time (ns), by event name, and why."""

    number: int = 0
    first: int = 0
    last: int = 0
    events: Mapping[str, int] = MappingProxyType({})
    reason: str = ""

    def __add__(self, other: Loss) -> Loss:  # type: ignore[override]
        events = dict(self.events)
        for name, count in other.events.items():
            if name in events or len(events) < _EVENT_NAMES:
                events[name] = events.get(name, 0) + count
        return Loss(
            self.number + other.number,
            min(self.first or other.first, other.first or self.first),
            max(self.last, other.last),
            events,
            other.reason or self.reason,
        )

    def record(self) -> AuditRecord:
        """Make the record that tells of the loss."""
        return _made(
            RECORDS_DROPPED,
            "LOSE",
            outcome="failure",
            target=Target(_SPOOL),
            message=f"{self.number} records could not be kept: {self.reason}",
            attributes={
                "count": self.number,
                "first": self.first,
                "last": self.last,
                "events": dict(self.events),
            },
        )


def loss_of(records: Sequence[AuditRecord], reason: str) -> Loss:
    """Count records lost for ``reason``."""
    times = [record.timestamp for record in records]
    events: dict[str, int] = {}
    for record in records:
        events[record.event_name] = events.get(record.event_name, 0) + 1
    return Loss(len(records), min(times, default=0), max(times, default=0), events, reason)
