"""The cursor survives torn writes and needs no new space."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit.pipeline.spool.cursor import CursorFile, CursorState, Position, StreamState


def state(number: int, logs: int = 1) -> CursorState:
    streams = {f"log{log}": StreamState("s" * 36, number, "r" * 36) for log in range(logs)}
    return CursorState(Position(1, number, 0, 1, number, 5), streams)


def test_the_newest_state_is_loaded(tmp_path: Path) -> None:
    """By whoever opens the file."""
    cursor = CursorFile(tmp_path)
    assert cursor.load() is None
    for number in range(5):
        cursor.save(state(number))
        assert CursorFile(tmp_path).load() == state(number)
    later = CursorFile(tmp_path)
    later.load()
    later.save(state(99))
    assert CursorFile(tmp_path).load() == state(99)


def test_an_update_takes_no_space_and_no_new_file(tmp_path: Path) -> None:
    """On a full disk acknowledged segments can only go if the cursor can move."""
    cursor = CursorFile(tmp_path)
    cursor.save(state(0))
    before = os.stat(tmp_path / "cursor")
    for number in range(100):
        cursor.save(state(number))
    after = os.stat(tmp_path / "cursor")
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(cut=st.integers(0, 300))
def test_a_torn_write_leaves_the_state_before_it(tmp_path: Path, cut: int) -> None:
    """Cut off anywhere in the slot that was being written."""
    (tmp_path / "cursor").unlink(missing_ok=True)
    cursor = CursorFile(tmp_path)
    cursor.save(state(1))
    before = (tmp_path / "cursor").read_bytes()
    cursor.save(state(2))
    after = (tmp_path / "cursor").read_bytes()
    start = next(position for position in range(len(after)) if after[position] != before[position])
    (tmp_path / "cursor").write_bytes(after[: start + cut] + before[start + cut :])
    assert CursorFile(tmp_path).load() in (state(1), state(2))


def test_many_logs_make_it_grow(tmp_path: Path) -> None:
    """And it goes on as before."""
    cursor = CursorFile(tmp_path)
    for logs in (1, 200, 3, 500):
        cursor.save(state(7, logs))
        assert CursorFile(tmp_path).load() == state(7, logs)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 8192, b"x" * 8192])
def test_a_file_that_is_no_cursor_is_an_error(tmp_path: Path, content: bytes) -> None:
    """Not the same as none: numbers may have been given already."""
    (tmp_path / "cursor").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        CursorFile(tmp_path).load()
    cursor = CursorFile(tmp_path)
    cursor.save(state(3))
    assert CursorFile(tmp_path).load() == state(3)
