"""Frames survive what happens to files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.pipeline.spool import frames

PAYLOADS = st.lists(st.binary(max_size=300), min_size=1, max_size=12)


def read(path: Path, limit: int | None = None) -> list[frames.Piece]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(frames.read_pieces(descriptor, 0, path.stat().st_size if limit is None else limit))
    finally:
        os.close(descriptor)


def write(path: Path, payloads: list[bytes]) -> bytes:
    data = b"".join(frames.frame(frames.RECORD, payload) for payload in payloads)
    path.write_bytes(data)
    return data


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames") / "segment"


@given(PAYLOADS)
def test_what_was_written_is_read(path: Path, payloads: list[bytes]) -> None:
    """Frames come back in order, nothing between them."""
    write(path, payloads)
    assert [piece.payload for piece in read(path) if isinstance(piece, frames.Frame)] == payloads
    assert not any(isinstance(piece, frames.Gap) for piece in read(path))


@given(PAYLOADS, st.data())
def test_a_flipped_bit_costs_the_frame_it_is_in_and_no_other(
    path: Path, payloads: list[bytes], data: st.DataObject
) -> None:
    """Wherever the bit is: magic, length, checksum, kind or payload."""
    raw = bytearray(write(path, payloads))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    begin = 0
    expected, gap = [], (0, 0)
    for payload in payloads:
        end = begin + frames.PREFIX_BYTES + len(payload)
        if begin <= position < end:
            gap = (begin, end)
        else:
            expected.append(payload)
        begin = end
    pieces = read(path)
    assert [piece.payload for piece in pieces if isinstance(piece, frames.Frame)] == expected
    assert [tuple(piece) for piece in pieces if isinstance(piece, frames.Gap)] == [gap]


@given(PAYLOADS, st.data())
def test_a_cut_off_file_gives_its_whole_frames(
    path: Path, payloads: list[bytes], data: st.DataObject
) -> None:
    """The rest is one gap that ends with the file."""
    raw = write(path, payloads)
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut])
    pieces = read(path)
    whole = [piece for piece in pieces if isinstance(piece, frames.Frame)]
    assert [piece.payload for piece in whole] == payloads[: len(whole)]
    reached = whole[-1].end if whole else 0
    assert [tuple(piece) for piece in pieces if isinstance(piece, frames.Gap)] == (
        [(reached, cut)] if cut > reached else []
    )


def test_a_magic_inside_a_payload_is_no_frame(path: Path) -> None:
    """Found while looking for the next frame, it fails its checksum."""
    inner = frames.MAGIC + b"\x05\0\0\0" + b"\0\0\0\0\x02hello"
    raw = bytearray(write(path, [inner * 3, b"after"]))
    raw[5] ^= 1
    path.write_bytes(raw)
    assert [piece.payload for piece in read(path) if isinstance(piece, frames.Frame)] == [b"after"]


def test_a_frame_larger_than_the_window_is_read(path: Path) -> None:
    """Also when it begins in the middle of one."""
    payloads = [b"a" * 200_000, b"b" * 700_000, b"c"]
    write(path, payloads)
    assert [piece.payload for piece in read(path) if isinstance(piece, frames.Frame)] == payloads


def test_a_file_shorter_than_promised_is_a_gap(path: Path) -> None:
    """A writer said how far whole frames stand; the bytes are not there."""
    raw = write(path, [b"one", b"two"])
    pieces = read(path, len(raw) + 50)
    assert isinstance(pieces[-1], frames.Gap)
    assert pieces[-1].end == len(raw) + 50


@pytest.mark.parametrize("count", [1, 15, 16, 70_000])
def test_an_intent_carries_any_number_of_records(count: int) -> None:
    """Its msgpack array is written by hand; a decoder must agree."""
    import msgspec

    payloads = [msgspec.msgpack.encode(number) for number in range(count)]
    decoded: list[int] = []
    for data in frames.intent(frames.INTENT, 7, payloads):
        handle, content = frames.split_intent(data[frames.PREFIX_BYTES :])
        assert handle == 7
        decoded += msgspec.msgpack.decode(content, type=list[int])
    assert decoded == list(range(count))
