"""Sealing: gives each record its place in its stream, once, in the order of the spool.

A pure function of what the cursor says and what the spool holds: whoever seals the same content after the
same state gets the same records, so a resend has the same bytes. Hash chain and signature belong in
:meth:`Sealer._seal`, where the number is given.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

import msgspec

from otel_audit.audit_record import AuditRecord, Sequence
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline import pipeline_records
from otel_audit.pipeline.spool.cursor import StreamState
from otel_audit.pipeline.spool.frames import Identity
from otel_audit.pipeline.spool.reader import Content, Damage, StreamEnd


class Sealed(NamedTuple):
    """A record with its place in its stream, and the state of that stream after it."""

    record: AuditRecord
    state: StreamState


def stream_id(incarnation: str, log: str, epoch: int = 0) -> str:
    """Return the id of the stream of ``log`` that an incarnation writes: opaque, never used twice."""
    try:
        namespace = uuid.UUID(incarnation)
    except ValueError:
        namespace = uuid.NAMESPACE_OID
    return str(uuid.uuid5(namespace, f"{log}#{epoch}" if epoch else log))


class Sealer:
    """Seals the content of one incarnation in order.

    Args:
        identity: whose content it is.
        streams: how far the numbering has come, by log.
        epoch, reason: above 0 and why, if the numbering begins anew because the cursor was lost.
    """

    def __init__(
        self, identity: Identity, streams: Mapping[str, StreamState], epoch: int = 0, reason: str = ""
    ) -> None:
        self._identity = identity
        self._streams = dict(streams)
        self._epoch = epoch
        self._reason = reason

    def seal(self, content: Content) -> Iterator[Sealed]:
        """Yield the sealed records ``content`` stands for; before a stream's first, its start record."""
        if isinstance(content, StreamEnd):
            yield from self._end(content)
            return
        if isinstance(content, Damage):
            content = pipeline_records.spool_damaged(
                self._identity, content.segment, content.offset, content.length, content.after, content.what
            )
        state = self._streams.get(content.log)
        if state is None:
            stream = stream_id(self._identity.incarnation, content.log, self._epoch)
            state = StreamState(stream)
            start = pipeline_records.stream_start(self._identity, content.log, stream, self._reason)
            sealed = self._seal(start, state)
            yield sealed
            state = sealed.state
        yield self._seal(content, state)

    def _end(self, end: StreamEnd) -> Iterator[Sealed]:
        for log, state in sorted(self._streams.items()):
            if not state.ended:
                yield self._seal(
                    pipeline_records.stream_end(self._identity, log, state.stream, end.time), state, end=True
                )

    def _seal(self, record: AuditRecord, state: StreamState, *, end: bool = False) -> Sealed:
        sequence = Sequence(
            stream=state.stream, number=state.number + 1, previous_record=state.record, end=end
        )
        after = StreamState(state.stream, sequence.number, record.id, end)
        self._streams[record.log] = after
        return Sealed(msgspec.structs.replace(record, sequence=sequence), after)
