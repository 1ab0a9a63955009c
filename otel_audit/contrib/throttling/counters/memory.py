"""Counts in this process alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from otel_audit import forks
from otel_audit.contrib.throttling.counters.windows import (
    MOST_KEYS,
    Change,
    Refusal,
    Window,
    wait,
)

_FIRST_SWEEP = 10_000


class MemoryCounter:
    """Counts by key in a dictionary, of which it forgets what is over.

    Args:
        clock: seconds since the epoch.
        most_keys: above this number the oldest key is forgotten.
    """

    instant = True
    shared = False
    mutex = threading.Lock()

    def __init__(self, clock: Callable[[], float] = time.time, most_keys: int = MOST_KEYS) -> None:
        self._clock = clock
        self._most_keys = most_keys
        self._counts: dict[str, tuple[int, int, int, int]] = {}  # window's number, current, previous, seconds
        self._sweep_at = _FIRST_SWEEP

    @classmethod
    def begin_in_child(cls) -> None:
        """Take another mutex: a thread that a fork left behind may hold this one."""
        cls.mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        """Change the count of each window by one, and say if that is refused."""
        with self.mutex:
            now = self._clock()
            refusal: Refusal | None = None
            made: list[tuple[str, tuple[int, int, int, int]]] = []
            for position, window in enumerate(windows):
                key, limit, seconds = window
                number = int(now // seconds)
                begun, current, previous, _ = self._counts.get(key, (number, 0, 0, 0))
                if begun != number:
                    previous = current if begun == number - 1 else 0
                    current = 0
                if change < 0:
                    if current > 0:
                        current -= 1
                    elif previous > 0:
                        previous -= 1
                elif current + 1 > limit or previous:
                    pause = wait(previous, current, now - number * seconds, window)
                    if pause > 0 and (refusal is None or pause > refusal.wait):
                        refusal = Refusal(position, pause)
                made.append((key, (number, current + (change > 0), previous, seconds)))
            if change and refusal is None:
                self._counts.update(made)
                if len(self._counts) > self._sweep_at:
                    self._sweep(now)
            return refusal

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        """Do the same; it takes no time."""
        return self.step(windows, change)

    def _sweep(self, now: float) -> None:
        """Forget what is over; it costs as much as was counted since."""
        self._counts = {key: count for key, count in self._counts.items() if now // count[3] - count[0] <= 1}
        while len(self._counts) > self._most_keys:
            del self._counts[next(iter(self._counts))]
        self._sweep_at = max(_FIRST_SWEEP, min(2 * len(self._counts), self._most_keys + _FIRST_SWEEP))


forks.after_in_child(MemoryCounter.begin_in_child)
