"""Ships one incarnation: spool content in, sealed batches out, the cursor behind what was acknowledged.

Order is kept: the cursor only moves over a prefix. What a sink refuses for good is set aside, visibly
(:mod:`~otel_audit.pipeline.delivery.rejections`); everything else waits, for ever if need be.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import SinkConfig
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline import pipeline_records
from otel_audit.pipeline.delivery import backoff, otlp_encoding
from otel_audit.pipeline.delivery.otlp_http import Answer, Transport, Verdict
from otel_audit.pipeline.delivery.rejections import BY_CONTENT, Rejections
from otel_audit.pipeline.delivery.sealing import Sealer
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool import tips
from otel_audit.pipeline.spool.cursor import CursorFile, CursorState, Position, StreamState
from otel_audit.pipeline.spool.reader import Damage, Item, StreamReader

_log = logging.getLogger("otel_audit")

_NEIGHBOURS: Final = 8
"""Records behind a refused one that are tried, to see whether the sink takes any."""


class Progress(enum.Enum):
    """What one step came to."""

    IDLE = "nothing waits"
    DELIVERED = "delivered"
    FAILED = "wait before the next step"
    FINISHED = "everything a terminated process left is delivered"
    UNREADABLE = "its files cannot be read"


class _Waiting(NamedTuple):
    """A sealed record on its way: its bytes, and what the cursor says once it is acknowledged."""

    data: bytes
    record: AuditRecord
    state: StreamState
    after: Position | None
    own: bool


class Shipper:
    """Ships one incarnation whose lock is held; used by one thread at a time.

    Args:
        directory: the spool directory.
        lock: the held lock of the incarnation.
        transport: the way to the sink.
        config: batch sizes and pauses.
        health: counters to keep.
        limit: where a live writer stands; None for a dead process.
        tell: keeps a record about what happened here, in the trail itself.
    """

    def __init__(
        self,
        directory: Path,
        lock: layout.Lock,
        transport: Transport,
        config: SinkConfig,
        health: Health,
        *,
        limit: Callable[[], tuple[int, int]] | None = None,
        tell: Callable[[AuditRecord], None] | None = None,
    ) -> None:
        self.lock = lock
        self.retry_at = 0.0
        """Monotonic time before which :meth:`step` should not be called again."""
        self.last_answer = Answer(Verdict.ACCEPTED)
        self.trouble: OSError | None = None
        """Why the files could not be read at the last step."""
        self._directory = directory
        self._transport = transport
        self._config = config
        self._health = health
        self._limit = limit
        self._own = limit is not None
        self._tell = tell
        self._mutex = threading.Lock()
        self._abandoned = False
        self._cursor = CursorFile(lock.path)
        self._state = self._load()
        self._unsaved = False
        self._reader: StreamReader | None = None
        self._attempts = 0
        self._rejections = Rejections(directory, lock.path.name, health)
        self.acknowledged: tuple[int, int] = (0, 0)
        """Segment and offset up to which all that is settled has been acknowledged."""
        self._begin()

    def _load(self) -> CursorState:
        """Read where to go on. Without a readable cursor the numbering begins anew, in another stream."""
        segments = layout.list_segments(self.lock.path)
        first = segments[0].number if segments else 1
        start = Position(first, 0, 0, first, 0)
        try:
            state = self._cursor.load()
        except ValueError as error:
            state = CursorState(start, epoch=first, reason=str(error))
            _log.error("audit stream %s: %s; its records are sent again", self.lock.path.name, error)
        if state is None:
            state = CursorState(start)
            if first > 1:
                state = CursorState(start, epoch=first, reason="the cursor is missing")
        return state

    def _begin(self) -> None:
        """Read and seal from the cursor on; what was sealed and not acknowledged is sealed the same again."""
        if self._reader is not None:
            self._reader.close()
        state = self._state
        self._reader = StreamReader(self.lock.path, state.position, self._limit)
        self._items: Iterator[Item] = iter(())
        self._sealer: Sealer | None = None
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._rejections.begin()
        self._interrupted = False
        """Reading failed behind what waits; a reader that failed is not used again."""

    # --- one step ----------------------------------------------------------------------------

    def step(self) -> Progress:
        """Send at most one batch. Never raises."""
        self.trouble = None
        try:
            if not self._interrupted:
                self._fill()
        except OSError as error:
            if not self._waiting:
                return self._cannot_read(error)
            self._interrupted = True  # what was read before is sent first
        if self._waiting:
            return self._send()
        if self._interrupted:
            self._begin()
            return Progress.DELIVERED
        return self._rest()

    def _cannot_read(self, error: OSError) -> Progress:
        self.trouble = error
        self._attempts += 1
        self._begin()
        self._pause(None)
        return Progress.UNREADABLE

    def _fill(self) -> None:
        """Take settled records from the spool until a batch is full."""
        config, reader = self._config, self._reader
        assert reader is not None
        resumed = False
        while len(self._waiting) < config.batch_records and self._waiting_bytes < config.batch_bytes:
            item = next(self._items, None)
            if item is None:
                if resumed:
                    return
                resumed = True
                self._items = reader.items()
                continue
            if isinstance(item.content, Damage):
                self._report(item.content)
            if self._sealer is None:
                state = self._state
                self._sealer = Sealer(reader.identity, state.streams, state.epoch, state.reason)
            own = isinstance(item.content, AuditRecord)
            sealed = list(self._sealer.seal(item.content))
            for position, (record, state_after) in enumerate(sealed):
                last = position == len(sealed) - 1
                data = otlp_encoding.log_record(record)
                self._waiting.append(
                    _Waiting(data, record, state_after, item.after if last else None, own and last)
                )
                self._waiting_bytes += len(data)

    def _report(self, damage: Damage) -> None:
        self._health.damaged += 1
        self._health.damaged_bytes += damage.length
        # One line a minute: the trail has a record of each place.
        self._health.log(
            logging.ERROR,
            "damage",
            "audit spool %s, segment %d, offset %d: %s, %d bytes; the other records are sent, the file "
            "is kept in %s",
            self.lock.path.name,
            damage.segment,
            damage.offset,
            damage.what,
            damage.length,
            self._directory / layout.DAMAGED,
        )

    def _send(self) -> Progress:
        assert self._reader is not None
        batch = self._batch()
        self._health.oldest = batch[0].record.observed_timestamp
        answer = self._post(batch)
        if answer.verdict is Verdict.ACCEPTED:
            self._health.sink_answered()
            self._acknowledge(len(batch))
            return Progress.DELIVERED
        self._health.sink_failed(answer.reason)
        return self._failed(batch, answer)

    def _post(self, batch: list[_Waiting]) -> Answer:
        assert self._reader is not None
        request = otlp_encoding.export_request(
            self._reader.identity.resource, [waiting.data for waiting in batch]
        )
        self.last_answer = self._transport.send(request)
        return self.last_answer

    def _batch(self) -> list[_Waiting]:
        most = self._rejections.most(self._config.batch_records)
        batch: list[_Waiting] = []
        size = 0
        for waiting in self._waiting:
            if batch and (len(batch) >= most or size + len(waiting.data) > self._config.batch_bytes):
                break
            batch.append(waiting)
            size += len(waiting.data)
        return batch

    # --- refusals ----------------------------------------------------------------------------

    def _failed(self, batch: list[_Waiting], answer: Answer) -> Progress:
        """Decide what a failed batch means: wait, search for the record that is refused, or set it aside."""
        self._attempts += 1
        by_content = answer.verdict in BY_CONTENT
        if not self._rejections.may_be_of_content(answer):
            self._pause(answer.retry_after)
            return Progress.FAILED
        if len(batch) > 1:
            self._rejections.halve(len(batch))
            if by_content:
                return Progress.DELIVERED  # at once with half of it: the sink is there and answers
            self._pause(answer.retry_after)
            return Progress.FAILED
        record, accepted = batch[0].record, self._transport.accepted
        if self._rejections.is_confirmed(record, answer, accepted):
            return self._set_aside(record, answer)
        self._try_neighbours()
        if self._transport.accepted > accepted and by_content:
            return Progress.DELIVERED  # the sink took another one: ask once more about this one, at once
        self._pause(answer.retry_after)
        return Progress.FAILED

    def _try_neighbours(self) -> None:
        """Send records behind a refused one, each alone, until one is taken; later they come again."""
        for position in range(1, min(len(self._waiting), _NEIGHBOURS + 1)):
            answer = self._post([self._waiting[position]])
            if answer.verdict is Verdict.ACCEPTED or not answer.reached:
                return

    def _set_aside(self, record: AuditRecord, answer: Answer) -> Progress:
        path = self._rejections.set_aside(record, answer.reason)
        if path is None:
            self._pause(answer.retry_after)
            return Progress.FAILED
        self._acknowledge(1, delivered=False)
        if self._tell is not None:
            self._tell(
                pipeline_records.record_quarantined(record, answer.reason, f"{path.parent.name}/{path.name}")
            )
        return Progress.DELIVERED

    def _pause(self, retry_after: float | None) -> None:
        pause = backoff.delay(max(1, self._attempts), self._config.max_backoff, retry_after)
        self.retry_at = time.monotonic() + pause

    # --- acknowledged ------------------------------------------------------------------------

    def _acknowledge(self, count: int, *, delivered: bool = True) -> None:
        """Move the cursor over the first ``count`` waiting records and delete segments nobody needs."""
        with self._mutex:
            if self._abandoned:
                return
            self._attempts = 0
            self.retry_at = 0.0
            self._rejections.acknowledged(count)
            streams = dict(self._state.streams)
            position = self._state.position
            for _ in range(count):
                waiting = self._waiting.popleft()
                self._waiting_bytes -= len(waiting.data)
                streams[waiting.record.log] = waiting.state
                position = waiting.after or position
                if waiting.own:
                    self._health.delivered += delivered
                    self._health.own_delivered += self._own
            self.acknowledged = position.segment, position.offset
            self._move(msgspec.structs.replace(self._state, position=position, streams=streams))

    def _move(self, state: CursorState) -> None:
        assert self._reader is not None
        before = self._state.position.low_segment
        damaged = sorted({*state.damaged, *self._reader.damaged_segments})
        self._state = state = msgspec.structs.replace(state, damaged=damaged)
        try:
            self._cursor.save(state)
            if state.position.low_segment > before or self._unsaved:
                self._cursor.sync()
                self._delete_before(state.position.low_segment)
            self._unsaved = False
        except OSError as error:
            # The sink has the records; at worst it gets them twice. Segments stay until the cursor is kept.
            self._unsaved = True
            self._health.log(logging.WARNING, "cursor", "audit cursor cannot be written: %s", error)

    def _delete_before(self, number: int) -> None:
        assert self._reader is not None
        self._reader.forget_segments_before(number)
        for segment in layout.list_segments(self.lock.path):
            if segment.number >= number:
                break
            if segment.number in self._state.damaged:
                name = f"{self.lock.path.name}-{segment.path.name}"
                layout.keep_aside(self._directory, segment.path, name)
            else:
                segment.path.unlink(missing_ok=True)

    def _rest(self) -> Progress:
        """Nothing waits: move the cursor over what needed no sending; finish a dead process's stream."""
        assert self._reader is not None
        with self._mutex:
            if self._abandoned:
                return Progress.IDLE
            if self._own:
                self._health.oldest = 0
            position = self._reader.position
            self.acknowledged = position.segment, position.offset
            if position.low_segment > self._state.position.low_segment or self._unsaved:
                self._move(msgspec.structs.replace(self._state, position=position))
        if self._limit is None:
            self.finish()
            return Progress.FINISHED if self.trouble is None else Progress.UNREADABLE
        return Progress.IDLE

    def finish(self) -> None:
        """Remove an incarnation that is done: its tips are kept for the next stream to name."""
        assert self._reader is not None
        with self._mutex:
            if self._abandoned:
                return
            self._abandoned = True
            service = str(self._reader.identity.resource.get("service.name", ""))
            streams = {
                log: (state.stream, state.number, state.record) for log, state in self._state.streams.items()
            }
            tips.leave(self._directory, self.lock.path.name, service, streams)
            try:
                self._delete_before(1 << 62)
                self.close()
                self.lock.remove()
            except OSError as error:
                self.trouble = error
                self._health.log(logging.WARNING, "remove", "acknowledged segments not removed: %s", error)
                self.close()
                self.lock.release()

    def end(self) -> None:
        """Ship what is left at once and finish: its writer has begun another stream."""
        self._limit = None
        self.retry_at = 0.0
        self._begin()  # what is being read ends where the limit stood

    @property
    def position(self) -> Position:
        """How far the sink has acknowledged."""
        return self._state.position

    def taken_away(self) -> None:
        """Report that the stream was removed or renamed while it was shipped."""
        assert self._reader is not None
        self.abandon()
        position = self._state.position
        identity = self._reader.identity
        what = "the stream was removed or renamed before all of it was sent"
        self._report(Damage(position.segment, position.offset, 0, position.time or identity.created, what))
        if self._tell is not None:
            self._tell(
                pipeline_records.spool_damaged(
                    identity, position.segment, position.offset, 0, time.time_ns(), what
                )
            )

    def abandon(self) -> None:
        """Stop here, whatever a request still on its way may answer; the lock is the caller's to release."""
        with self._mutex:
            self._abandoned = True

    def close(self) -> None:
        """Close the files."""
        self._cursor.close()
        if self._reader is not None:
            self._reader.close()
