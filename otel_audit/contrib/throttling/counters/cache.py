"""Counts in any of Django's caches, by the strategies of limits.

What a cache must have is what Django says it has: ``add`` and ``incr`` that nothing comes between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.limits import safe_string
from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport, TimestampedSlidingWindow
from limits.strategies import SlidingWindowCounterRateLimiter

from otel_audit.contrib.throttling.counters.windows import Change, Refusal, Window, wait, weight


class CacheStorage(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """One of Django's caches as a storage of limits.

    Args:
        cache: the cache.
        clock: seconds since the epoch.
    """

    STORAGE_SCHEME = None

    def __init__(self, cache: Any, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.cache = cache
        self._clock = clock

    @property
    def base_exceptions(self) -> type[Exception]:
        return Exception

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        try:
            return int(self.cache.incr(key, amount))
        except ValueError:  # there is none yet
            if self.cache.add(key, amount, expiry):
                return amount
            return int(self.cache.incr(key, amount))  # somebody else was first

    def decr(self, key: str, amount: int = 1) -> None:
        """Take back what was counted; nothing if it is over."""
        try:
            self.cache.decr(key, amount)
        except ValueError:
            return

    def get(self, key: str) -> int:
        return int(self.cache.get(key, 0))

    def get_expiry(self, key: str) -> float:
        return self._clock()  # no cache says it; the strategy here does not ask

    def check(self) -> bool:
        return self.cache is not None

    def reset(self) -> int | None:
        raise NotImplementedError("a cache cannot list its keys")

    def clear(self, key: str) -> None:
        self.cache.delete(key)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock()
        before, key_now = self.sliding_window_keys(key, expiry, now)
        current = self.incr(key_now, 2 * expiry, amount)
        previous = self.get(before)
        if weight(previous, current, now % expiry, expiry) <= limit:
            return True
        self.decr(key_now, amount)
        return False

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = self._clock()
        before, key_now = self.sliding_window_keys(key, expiry, now)
        left = expiry - now % expiry
        return self.get(before), left, self.get(key_now), left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        for each in self.sliding_window_keys(key, expiry, self._clock()):
            self.clear(each)

    def give_back(self, key: str, expiry: int) -> None:
        """Take back one entry of :meth:`acquire_sliding_window_entry`."""
        self.decr(self.sliding_window_keys(key, expiry, self._clock())[1])


class CacheCounter:
    """Counts in one of Django's caches.

    Args:
        cache: the cache.
        clock: seconds since the epoch.
        instant: whether it answers without a server.
        shared: whether all processes use the same one.
    """

    def __init__(
        self, cache: Any, clock: Callable[[], float] = time.time, *, instant: bool, shared: bool
    ) -> None:
        self.instant = instant
        self.shared = shared
        self._storage = CacheStorage(cache, clock)
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        """Change the count of each window by one, and say if that is refused."""
        if change > 0:
            for position, window in enumerate(windows):
                if not self._limiter.hit(_item(window.limit, window.seconds), window.key):
                    self._give_back(windows[:position])
                    return self._longest(windows) or Refusal(position, 1.0)  # another's turn came in between
            return None
        if change < 0:
            self._give_back(windows)
            return None
        return self._longest(windows)

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        """Do the same, in a thread if the cache has a server."""
        if self.instant:
            return self.step(windows, change)
        return await asyncio.to_thread(self.step, windows, change)

    def _give_back(self, windows: list[Window]) -> None:
        for window in windows:
            key = _item(window.limit, window.seconds).key_for(window.key)
            self._storage.give_back(key, window.seconds)

    def _longest(self, windows: list[Window]) -> Refusal | None:
        refusal: Refusal | None = None
        for position, window in enumerate(windows):
            key = _item(window.limit, window.seconds).key_for(window.key)
            previous, left, current, _ = self._storage.get_sliding_window(key, window.seconds)
            pause = wait(previous, current, window.seconds - left, window)
            if pause > 0 and (refusal is None or pause > refusal.wait):
                refusal = Refusal(position, pause)
        return refusal


class _Item(RateLimitItemPerSecond):
    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"otel-audit:throttling:{safe_string(identifiers[0])}"  # which rule it is, it says already


@lru_cache(maxsize=256)
def _item(limit: int, seconds: int) -> RateLimitItem:
    return _Item(limit, seconds)
