"""Whatever becomes of the bytes of a spool: reading ends, invents nothing, and says where it lost some."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.cursor import CursorFile, Position
from otel_audit.pipeline.spool.reader import Damage, StreamReader
from tests.attack.chance import Chance
from tests.attack.effort import counted, effort, inputs
from tests.pipeline.spooling import audit_config, make_record


class Spool(NamedTuple):
    """A stream as its process left it: the path of its only segment, its bytes, its records by id."""

    path: Path
    segment: Path
    content: bytes
    records: dict[str, AuditRecord]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    """Settled records, transactions that were committed, undone, replaced and left open, and an end."""
    directory = tmp_path_factory.mktemp("attacked") / "spool"
    pipeline = AuditPipeline(audit_config(directory), ship=False)
    made = [make_record(pipeline, number, message="m" * (number % 7)) for number in range(12)]
    pipeline.logger.emit(*made[:3])
    pipeline.logger.settle(pipeline.logger.intend(made[3:5]), "success")
    pipeline.logger.settle(pipeline.logger.intend(made[5:6]), "failure")
    pipeline.logger.settle(pipeline.logger.intend(made[6:7]), "success", made[7:9])
    pipeline.logger.intend(made[9:11])
    pipeline.logger.emit(made[11])
    pipeline.shutdown(0)
    [incarnation] = layout.list_incarnations(directory)
    [segment] = layout.list_segments(incarnation)
    return Spool(incarnation, segment.path, segment.path.read_bytes(), {record.id: record for record in made})


def read(spool: Spool, place: Position | None = None) -> tuple[list[AuditRecord], list[Damage]]:
    """Read a spool to its end, as whoever adopts it; no item twice, nothing that was never written."""
    reader = StreamReader(spool.path, place or Position())
    try:
        content = [item.content for item in reader.items()]
    finally:
        reader.close()
    found = [item for item in content if isinstance(item, AuditRecord)]
    for record in found:
        original = spool.records.get(record.id)
        assert original is not None
        assert msgspec.structs.replace(record, outcome=original.outcome) == original
    return found, [item for item in content if isinstance(item, Damage)]


@effort(short=97, long=1)
def test_one_damaged_byte_costs_what_it_was_part_of(spool: Spool, rounds: int) -> None:
    """Every byte of a segment (a few in short), each bit: at most one frame is lost, and it is said."""
    whole, _ = read(spool)
    largest = 2  # records in one frame, the intent of a transaction
    for position in range(0, len(spool.content), rounds):
        for bit in range(8):
            content = bytearray(spool.content)
            content[position] ^= 1 << bit
            spool.segment.write_bytes(content)
            found, damage = read(spool)
            counted("bits of a segment flipped")
            assert len(damage) == 1
            assert len(found) == len({record.id for record in found})
            lost = {record.id for record in whole} - {record.id for record in found}
            assert len(lost) <= largest
            assert read(spool) == (found, damage)
    spool.segment.write_bytes(spool.content)


@effort(short=53, long=1)
def test_a_segment_cut_off_anywhere_gives_what_stands_before(spool: Spool, rounds: int) -> None:
    """Each length a file may have after a crash of the machine."""
    before = -1
    for length in range(0, len(spool.content), rounds):
        spool.segment.write_bytes(spool.content[:length])
        found, damage = read(spool)
        counted("lengths a segment was cut to")
        assert len(damage) <= 1
        settled = sum(record.outcome != "unknown" for record in found)
        assert settled >= before
        before = settled
    spool.segment.write_bytes(spool.content)


class Found(NamedTuple):
    """A segment as it is found, and where it had been read to."""

    content: bytes
    place: Position | None


@effort(short=300, long=100_000)
def test_a_mangled_segment_is_read_to_its_end(spool: Spool, rounds: int) -> None:
    """From any place; nothing that was never written comes out."""

    def damaged(chance: Chance) -> Found:
        offset = chance.randrange(len(spool.content))
        place = Position(1, offset, chance.randrange(3), 1, chance.randrange(offset + 1))
        return Found(chance.mangled(spool.content), chance.choice((None, place)))

    def is_read(found: Found) -> str:
        spool.segment.write_bytes(found.content)
        _, damage = read(spool, found.place)
        return f"{'begun' if found.place else 'whole'}, {min(len(damage), 3)} places damaged (3: or more)"

    inputs("mangled segments read", rounds, damaged, is_read)
    spool.segment.write_bytes(spool.content)


@effort(short=300, long=100_000)
def test_a_mangled_cursor_is_one_that_was_written_or_none(spool: Spool, rounds: int) -> None:
    """Two slots, two checksums: what is read is what was written."""
    path = spool.path / layout.CURSOR
    whole = path.read_bytes()
    cursor = CursorFile(spool.path)
    written = cursor.load()

    def is_read(content: bytes) -> str:
        path.write_bytes(content)
        try:
            found = cursor.load()
        except ValueError:  # neither slot is whole
            return "refused"
        assert found == written
        return "read"

    inputs("mangled cursors read", rounds, lambda chance: chance.mangled(whole), is_read)
    cursor.close()
    path.write_bytes(whole)
