"""What counts: in memory, in Django's caches, in a real Redis. All count alike."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings
from limits import RateLimitItemPerMinute
from limits.strategies import SlidingWindowCounterRateLimiter

from otel_audit.config.model import AuditConfig, ThrottlingConfig
from otel_audit.contrib.throttling.counters.cache import CacheCounter, CacheStorage
from otel_audit.contrib.throttling.counters.choice import counter_of, counter_of_django
from otel_audit.contrib.throttling.counters.memory import MemoryCounter
from otel_audit.contrib.throttling.counters.redis_counter import RedisCounter
from otel_audit.contrib.throttling.counters.windows import Counter, Window
from tests.contrib.throttling.clock import Clock
from tests.services import RedisServer

LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "throttling-tests"}
MINUTE = [Window("minute", 3, 60)]


def django_redis_cache(redis: RedisServer, **more: Any) -> dict[str, Any]:
    return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis.url, **more}


@pytest.fixture(
    params=["memory", "local cache", "redis", "Django's redis cache", "redis cache by add and incr"]
)
def counter(request: pytest.FixtureRequest, clinic: None, clock: Clock) -> Iterator[Counter]:
    """One of what counts, empty."""
    if request.param == "memory":
        yield MemoryCounter(clock)
        return
    with ExitStack() as stack:
        if request.param == "local cache":
            stack.enter_context(override_settings(CACHES={"default": LOCAL}))
            caches["default"].clear()
            yield CacheCounter(caches["default"], clock, instant=True, shared=False)
            return
        redis: RedisServer = request.getfixturevalue("redis")
        if request.param == "redis":
            yield RedisCounter(redis.url, 5, clock=clock)
            return
        stack.enter_context(override_settings(CACHES={"default": django_redis_cache(redis)}))
        if request.param == "Django's redis cache":
            made = counter_of_django(AuditConfig(throttling=ThrottlingConfig(timeout=5)))
            assert isinstance(made, RedisCounter)
            made._clock = clock
            yield made
        else:
            yield CacheCounter(caches["default"], clock, instant=False, shared=True)


def test_so_many_pass_and_then_none_until_there_is_room_again(counter: Counter, clock: Clock) -> None:
    clock.now = 1_800_000_000.0  # a window begins
    assert [counter.step(MINUTE, 1) for _ in range(3)] == [None] * 3
    refusal = counter.step(MINUTE, 1)
    assert refusal is not None
    assert (refusal.position, round(refusal.wait, 3)) == (0, 80)
    clock.move(79)
    assert counter.step(MINUTE, 1) is not None
    clock.move(1.001)
    assert counter.step(MINUTE, 1) is None
    assert counter.step(MINUTE, 1) is not None
    clock.move(600)
    assert [counter.step(MINUTE, 1) for _ in range(4)][:3] == [None] * 3


def test_what_is_refused_by_one_window_counts_in_none(counter: Counter) -> None:
    both = [Window("hour", 5, 3600), Window("minute", 2, 60)]
    for _ in range(10):
        counter.step(both, 1)
    assert [counter.step([both[0]], 1) for _ in range(4)].count(None) == 3


def test_the_longest_wait_is_told(counter: Counter, clock: Clock) -> None:
    clock.now = 1_800_000_000.0
    both = [Window("minute", 1, 60), Window("hour", 1, 3600)]
    assert counter.step(both, 1) is None
    refusal = counter.step(both, 1)
    assert refusal is not None
    assert (refusal.position, round(refusal.wait)) == (1, 7200)  # a window of one: until the next one is over


def test_looking_counts_nothing_and_giving_back_takes_nothing_below_zero(counter: Counter) -> None:
    one = [Window("one", 1, 60)]
    counter.step(one, -1)
    for _ in range(5):
        assert counter.step(one, 0) is None
    assert counter.step(one, 1) is None
    assert counter.step(one, 0) is not None
    counter.step(one, -1)
    assert counter.step(one, 1) is None
    assert counter.step(one, 1) is not None


def test_keys_are_counted_apart(counter: Counter) -> None:
    assert counter.step([Window("a", 1, 60)], 1) is None
    assert counter.step([Window("b", 1, 60)], 1) is None
    assert counter.step([Window("a", 1, 60)], 1) is not None


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns as often as Python can, not every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Pausing(int):
    """A limit at which whoever compares a count with it lets another thread go on."""

    def __lt__(self, other: int) -> bool:
        time.sleep(0.0001)
        return int(self) < other


@pytest.mark.parametrize("windows", [1, 2])
def test_of_fifty_threads_exactly_as_many_pass_as_may(counter: Counter, windows: int, restless: None) -> None:
    """The limit is below what all ask for, and nothing is lost between reading a count and writing it."""
    asked = [Window("minute", Pausing(120), 60), Window("hour", Pausing(1000), 3600)][:windows]
    begin = threading.Barrier(50)
    passed: Tally[bool] = Tally()
    mutex = threading.Lock()

    def ask() -> None:
        begin.wait()
        mine = [counter.step(asked, 1) is None for _ in range(8)]
        with mutex:
            passed.update(mine)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed[True] == 120
    assert passed[False] == 280


def test_of_fifty_tasks_exactly_as_many_pass_as_may(counter: Counter) -> None:
    async def all_of_them() -> int:
        asked = [Window("minute", 20, 60)]
        return [await each for each in [counter.step_async(asked, 1) for _ in range(10)]].count(None) + [
            *await asyncio.gather(*(counter.step_async(asked, 1) for _ in range(40)))
        ].count(None)

    assert asyncio.run(all_of_them()) == 20
    assert counter.step([Window("minute", 20, 60)], 1) is not None  # another loop's counts are the same


def test_a_decision_is_one_round_trip_to_redis(redis: RedisServer) -> None:
    """Whatever the number of rules, whether they pass or not; the first one brings the script."""
    counter = RedisCounter(redis.url, 5)
    windows = [Window("minute", 3, 60), Window("hour", 1000, 3600), Window("user", 5, 60)]
    with redis.client() as client:
        counter.step(windows, 1)
        before = client.info("commandstats")
        for _ in range(5):
            counter.step(windows, 1)
        after = client.info("commandstats")
    assert commands(after) - commands(before) == Tally(evalsha=5)


def test_an_asynchronous_decision_is_one_round_trip_too(redis: RedisServer) -> None:
    counter = RedisCounter(redis.url, 5)

    async def decisions() -> Tally[str]:
        with redis.client() as client:
            await counter.step_async(MINUTE, 1)
            before = client.info("commandstats")
            for _ in range(5):
                await counter.step_async(MINUTE, 1)
            return commands(client.info("commandstats")) - commands(before)

    assert asyncio.run(decisions()) == Tally(evalsha=5)


def commands(stats: dict[str, Any]) -> Tally[str]:
    """What clients sent: not what a script did, nor our own question."""
    calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    inside = {"hmget", "hset", "expire", "time", "info"}
    return Tally({name: number for name, number in calls.items() if name not in inside})


def test_redis_counts_by_its_own_clock_and_forgets(redis: RedisServer) -> None:
    counter = RedisCounter(redis.url, 5)
    assert [counter.step([Window("day", 2, 86_400)], 1) is None for _ in range(3)] == [True, True, False]
    with redis.client() as client:
        [key] = client.keys("*")
        assert key == b"otel-audit:throttling:day"
        assert 0 < client.ttl(key) <= 2 * 86_400


def test_the_keys_in_djangos_cache_have_its_prefix(clinic: None, redis: RedisServer) -> None:
    with override_settings(CACHES={"shared": django_redis_cache(redis, KEY_PREFIX="shop"), "default": LOCAL}):
        counter = counter_of_django(AuditConfig(throttling=ThrottlingConfig(cache="shared")))
        counter.step(MINUTE, 1)
    with redis.client() as client:
        assert client.keys("*") == [b"shop:1:minute"]


def test_a_redis_that_was_started_anew_is_brought_the_script_again(redis: RedisServer) -> None:
    counter = RedisCounter(redis.url, 5)
    counter.step(MINUTE, 1)
    with redis.client() as client:
        client.script_flush()
        client.client_kill_filter(_type="normal", skipme=True)  # connections that nobody knows are closed
    assert counter.step(MINUTE, 1) is None


def test_the_storage_that_is_named_counts(redis: RedisServer) -> None:
    def of(storage: str) -> Counter:
        return counter_of(AuditConfig(throttling=ThrottlingConfig(storage=storage)))

    assert isinstance(of(""), MemoryCounter)
    assert isinstance(of("memory"), MemoryCounter)
    for url in (redis.url, f"unix://{redis.socket}"):
        counter = of(url)
        assert isinstance(counter, RedisCounter)
        assert counter.step(MINUTE, 0) is None


def test_a_process_forgets_what_is_over_and_no_crowd_fills_its_memory(clock: Clock) -> None:
    counter = MemoryCounter(clock, most_keys=20_000)
    for number in range(50_000):
        counter.step([Window(f"k{number}", 1, 60)], 1)
    assert len(counter) <= 30_001
    clock.move(121)
    for number in range(40_000):
        counter.step([Window(f"new{number}", 1, 60)], 1)
    assert len(counter) <= 30_001


def test_a_forked_child_counts_though_the_parent_held_the_mutex() -> None:
    counter = MemoryCounter()
    with MemoryCounter.mutex:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if counter.step(MINUTE, 1) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_djangos_cache_is_a_storage_that_limits_takes(clinic: None, clock: Clock) -> None:
    """So whatever strategy of limits an application uses beside ours can count there."""
    with override_settings(CACHES={"default": LOCAL}):
        caches["default"].clear()
        storage = CacheStorage(caches["default"], clock)
        limiter = SlidingWindowCounterRateLimiter(storage)
        item = RateLimitItemPerMinute(2)
        assert [limiter.hit(item, "k") for _ in range(3)] == [True, True, False]
        assert limiter.get_window_stats(item, "k").remaining == 0
        limiter.clear(item, "k")
        assert limiter.test(item, "k")
        assert storage.check()
