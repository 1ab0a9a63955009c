"""The algorithm: what passes, and whether the wait that is told is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.contrib.throttling.counters.memory import MemoryCounter
from otel_audit.contrib.throttling.counters.windows import Window, wait, weight
from tests.contrib.throttling.clock import Clock

PAUSES = st.lists(st.floats(0, 90), min_size=1, max_size=80)


@given(st.integers(1, 20), st.integers(1, 100), PAUSES)
def test_who_waits_as_long_as_told_passes_and_no_sooner(
    limit: int, seconds: int, pauses: list[float]
) -> None:
    clock = Clock()
    counter = MemoryCounter(clock)
    windows = [Window("k", limit, seconds)]
    for pause in pauses:
        clock.move(pause)
        refusal = counter.step(windows, 1)
        if refusal is None:
            continue
        assert 0 < refusal.wait <= 2 * seconds
        now = clock.now
        clock.now = now + refusal.wait * 0.99 - 1e-6
        assert counter.step(windows, 0) is not None
        clock.now = now + refusal.wait + 1e-5
        assert counter.step(windows, 1) is None


@given(st.integers(1, 10), st.integers(1, 100), PAUSES)
def test_no_more_than_the_limit_pass_in_a_window_and_never_twice_as_many_at_its_turn(
    limit: int, seconds: int, pauses: list[float]
) -> None:
    clock = Clock()
    counter = MemoryCounter(clock)
    passed: list[float] = []
    for pause in pauses:
        clock.move(pause / 10)
        if counter.step([Window("k", limit, seconds)], 1) is None:
            passed.append(clock.now)
    by_window: dict[int, int] = {}
    for at in passed:
        by_window[int(at // seconds)] = by_window.get(int(at // seconds), 0) + 1
    assert all(number <= limit for number in by_window.values())
    for begin in passed:  # any span of this length, not only the counter's own
        assert sum(begin <= at < begin + seconds for at in passed) < max(2, 2 * limit)


@pytest.mark.parametrize(
    ("previous", "current", "elapsed", "expected"),
    [
        (0, 0, 0, 0),
        (0, 9, 59, 0),
        (0, 10, 30, 30 + 6),  # the next window begins in 30 s; of the ten, nine may weigh then
        (10, 0, 0, 6),
        (10, 5, 30, 6),
        (10, 4, 30, 0),
    ],
)
def test_the_wait_by_hand(previous: int, current: int, elapsed: float, expected: float) -> None:
    assert wait(previous, current, elapsed, Window("k", 10, 60)) == pytest.approx(expected)
    if not expected:
        assert weight(previous, current + 1, elapsed, 60) <= 10
