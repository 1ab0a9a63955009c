"""Sealing is a pure function of state and content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_audit.audit_record import AuditRecord, new_record_id
from otel_audit.pipeline.delivery.sealing import Sealed, Sealer, stream_id
from otel_audit.pipeline.spool.cursor import StreamState
from otel_audit.pipeline.spool.frames import Identity
from otel_audit.pipeline.spool.reader import Content, Damage, StreamEnd

IDENTITY = Identity(
    incarnation=new_record_id(),
    created=1_795_000_000_000_000_000,
    pid=7,
    host="h",
    version="1",
    resource={"service.name": "shop"},
    previous={"audit": ("earlier", 12, "record-12")},
)


def record(log: str = "audit") -> AuditRecord:
    return AuditRecord(
        id=new_record_id(), timestamp=5, observed_timestamp=6, event_name="a.b", action="A", log=log
    )


CONTENT = st.lists(
    st.builds(record, st.sampled_from(["audit", "activity"]))
    | st.builds(Damage, st.integers(1, 9), st.integers(0, 999), st.integers(1, 99), st.just(5), st.just("x")),
    max_size=20,
)


def seal(content: list[Content], streams: dict[str, StreamState] | None = None) -> list[Sealed]:
    sealer = Sealer(IDENTITY, streams or {})
    return [sealed for item in content for sealed in sealer.seal(item)]


@given(CONTENT, st.data())
def test_stopping_anywhere_and_going_on_from_the_state_seals_the_same(
    content: list[Content], data: st.DataObject
) -> None:
    """As a process that adopts does, or one that was killed before the answer came."""
    content = [*content, StreamEnd(99)]
    whole = seal(content)
    cut = data.draw(st.integers(0, len(content)))
    first = seal(content[:cut])
    streams = {sealed.record.log: sealed.state for sealed in first}
    assert first + seal(content[cut:], streams) == whole


@given(CONTENT)
def test_each_log_is_numbered_without_a_hole_from_start_to_end(content: list[Content]) -> None:
    """Each record names the one before it, the first none."""
    by_log: dict[str, list[AuditRecord]] = {}
    for sealed in seal([*content, StreamEnd(99)]):
        by_log.setdefault(sealed.record.log, []).append(sealed.record)
    for log, records in by_log.items():
        sequences = [record.sequence for record in records if record.sequence]
        assert [sequence.number for sequence in sequences] == list(range(1, len(records) + 1))
        assert {sequence.stream for sequence in sequences} == {stream_id(IDENTITY.incarnation, log)}
        assert [sequence.previous_record for sequence in sequences] == ["", *[r.id for r in records[:-1]]]
        assert [sequence.end for sequence in sequences] == [False] * (len(records) - 1) + [True]
        assert records[0].event_name == "audit.stream.start"
        assert records[-1].event_name == "audit.stream.end"


def test_the_start_says_who_writes_and_what_came_before() -> None:
    """Only the log whose previous stream is known names it."""
    starts = {s.record.log: s.record for s in seal([record(), record("activity")]) if s.state.number == 1}
    attributes = starts["audit"].attributes
    assert (attributes["service"], attributes["host"], attributes["pid"]) == ("shop", "h", 7)
    assert attributes["previous_stream"] == "earlier"
    assert attributes["previous_number"] == 12
    assert "previous_stream" not in starts["activity"].attributes
    assert starts["audit"].timestamp == IDENTITY.created


def test_a_new_epoch_is_another_stream() -> None:
    """Numbers given once under an id are not given again under it."""
    sealer = Sealer(IDENTITY, {}, epoch=3, reason="the cursor is missing")
    start = next(iter(sealer.seal(record()))).record
    assert start.attributes["reason"] == "the cursor is missing"
    assert start.sequence is not None
    assert start.sequence.stream != stream_id(IDENTITY.incarnation, "audit")


def test_damage_has_an_id_of_its_place() -> None:
    """The same one however often it is read, another for another place."""
    damage = Damage(1, 100, 20, 5_000_000_000, "unreadable bytes")
    first, again = (seal([damage])[1].record for _ in range(2))
    other = seal([damage._replace(offset=101)])[1].record
    assert first == again
    assert first.id != other.id
    assert first.timestamp == 5_000_000_000
