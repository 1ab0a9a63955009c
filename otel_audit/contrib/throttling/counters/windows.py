"""The algorithm of all counters, pure: a sliding window counter.

Time is divided into windows of ``seconds``. What was counted in the window before weighs as much as of it
lies within the last ``seconds``, so that twice the limit does not pass at the turn of a window. Two numbers
a key, whatever the limit.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from otel_audit.named_tuples import NamedTuple

Change = Literal[1, 0, -1]
"""What is done with a count: add one if it passes; only look whether one would; give one back."""

MOST_KEYS: Final = 1_000_000
"""How many keys a process counts by itself."""


class Window(NamedTuple):
    """What is counted under a key: at most ``limit`` in ``seconds``."""

    key: str
    limit: int
    seconds: int


class Refusal(NamedTuple):
    """The window (its position) that has no place left, and after how many seconds all have one."""

    position: int
    wait: float


class Counter(Protocol):
    """Counts in all windows or, if one of them has no place left, in none."""

    instant: bool
    """Whether it answers at once, without a server: an event loop may wait for it."""
    shared: bool
    """Whether all processes count together."""

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        """Change the count of each window by one, and say if that is refused."""
        ...

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        """Do the same without holding up the event loop."""
        ...


def weight(previous: int, current: int, elapsed: float, seconds: float) -> float:
    """Say how many count now: ``elapsed`` seconds after the current window has begun."""
    return previous * (1 - elapsed / seconds) + current


def wait(previous: int, current: int, elapsed: float, window: Window) -> float:
    """Say after how many seconds one more passes; 0 if it does now.

    Args:
        previous: how many passed in the window before.
        current: how many passed in this one.
        elapsed: seconds since this one has begun.
        window: its limit and length.
    """
    limit, seconds = window.limit, window.seconds
    free = limit - 1 - current
    if free >= 0:
        if previous <= 0:
            return 0.0
        return max(0.0, (1 - free / previous) * seconds - elapsed)
    return seconds - elapsed + (1 - (limit - 1) / current) * seconds
