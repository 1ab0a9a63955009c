"""What counts fails, is slow or not there: requests are let through, and it is told, unless `fail_closed`."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.test import AsyncClient, Client, override_settings

from otel_audit.config.model import AuditConfig, ThrottlingConfig
from otel_audit.contrib.throttling import ThrottlingException
from otel_audit.contrib.throttling.counters.redis_counter import RedisCounter
from otel_audit.contrib.throttling.counters.windows import Change, Refusal, Window
from otel_audit.contrib.throttling.throttler import PAUSE, Throttler
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.health import Health
from tests.contrib.throttling.clock import Clock
from tests.contrib.throttling.conftest import Throttled
from tests.services import RedisServer, free_port, redis

WINDOWS = [Window("k", 1, 60)]


class BrokenCache(LocMemCache):
    """Raises whatever it is asked."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("the cache is away")

    add = incr = set = get


BROKEN = {"default": {"BACKEND": f"{__name__}.BrokenCache"}}


class Stub:
    """A counter that takes as long as it is told, and fails when it is told."""

    instant = False
    shared = True

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes = 0.0
        self.fails = False
        self.asked = 0

    def step(self, windows: list[Window], change: Change) -> Refusal | None:
        self.asked += 1
        self.clock.move(self.takes)
        if self.fails:
            raise ConnectionError("away")
        return None

    async def step_async(self, windows: list[Window], change: Change) -> Refusal | None:
        return self.step(windows, change)


def throttle_of(counter: Any, clock: Clock, **options: Any) -> tuple[Throttler, Health]:
    health = Health()
    config = AuditConfig(throttling=ThrottlingConfig(enabled=True, **options))
    return Throttler(config, counter, Failures("throttling", config, lambda: health), clock), health


def test_a_failing_cache_lets_through_and_is_counted_and_logged(
    throttled: Throttled, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(CACHES=BROKEN), throttled() as audit:
        assert [Client().get("/twice/").status_code for _ in range(30)] == [200] * 30
        assert audit.pipeline.health.capture_failures == {"throttling": 1}
        assert audit.find(event_name="http.request.throttled") == []
    assert "throttling failed in counting: ConnectionError: the cache is away" in caplog.text
    assert "for 5 s nothing is counted, and requests are let through" in caplog.text


@pytest.mark.parametrize("options", [{"on_error": "fail_closed"}, {"config": {"on_error": "fail_closed"}}])
def test_fail_closed_refuses_and_says_so(throttled: Throttled, options: dict[str, Any]) -> None:
    with override_settings(CACHES=BROKEN), throttled(**options) as audit:
        refused = Client().get("/")
        assert (refused.status_code, refused["Retry-After"]) == (503, "5")
        assert audit.one(event_name="http.request.throttled").error == "503"
        assert Client().get("/exempt/").status_code == 200


def test_fail_open_wins_over_the_whole(throttled: Throttled) -> None:
    config = {"on_error": "fail_closed"}
    with override_settings(CACHES=BROKEN), throttled(on_error="fail_open", config=config):
        assert Client().get("/").status_code == 200


def test_under_asgi_it_is_the_same(throttled: Throttled) -> None:
    async def ask() -> int:
        return (await AsyncClient().get("/")).status_code

    with override_settings(CACHES=BROKEN), throttled(on_error="fail_closed"):
        assert asyncio.run(ask()) == 503
    with override_settings(CACHES=BROKEN), throttled():
        assert asyncio.run(ask()) == 200


def test_a_cache_that_is_away_is_asked_once_in_a_while(clock: Clock) -> None:
    counter = Stub(clock)
    throttle, health = throttle_of(counter, clock)
    counter.fails = True
    for _ in range(100):
        assert throttle.step(WINDOWS, 1) is None
    assert (counter.asked, health.capture_failures) == (1, {"throttling": 1})
    clock.move(PAUSE)
    throttle.step(WINDOWS, 1)
    assert counter.asked == 2
    counter.fails = False
    clock.move(PAUSE)
    for _ in range(10):
        throttle.step(WINDOWS, 1)
    assert counter.asked == 12


def test_a_slow_cache_is_left_alone_for_a_while(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    counter = Stub(clock)
    throttle, health = throttle_of(counter, clock, timeout=0.1)
    counter.takes = 0.2
    for _ in range(10):
        throttle.step(WINDOWS, 1)
    assert (counter.asked, health.capture_failures) == (1, {"throttling": 1})
    assert "counting took 0.200 s, throttling.timeout is 0.1 s" in caplog.text
    counter.takes = 0.0
    clock.move(PAUSE)
    throttle.step(WINDOWS, 1)
    throttle.step(WINDOWS, 1)
    assert counter.asked == 3


def test_while_it_is_tried_again_others_do_not_wait_for_it(clock: Clock) -> None:
    """The one that tries may take as long as the timeout; the others pass meanwhile."""
    counter = Stub(clock)
    throttle, _ = throttle_of(counter, clock)
    counter.fails = True
    throttle.step(WINDOWS, 1)
    clock.move(PAUSE)
    passed: list[int] = []

    class Waiting(Stub):
        def step(self, windows: list[Window], change: Change) -> Refusal | None:
            if not passed:
                passed.append(self.asked)
                throttle.step(windows, change)  # another request, meanwhile
                passed.append(self.asked)
            return super().step(windows, change)

    throttle.counter = trying = Waiting(clock)
    throttle.step(WINDOWS, 1)
    assert passed == [0, 0]
    assert trying.asked == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_redis_that_does_not_answer_costs_no_more_than_the_timeout(asynchronous: bool) -> None:
    """It accepts the connection, and says nothing: without a timeout this test would not end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counter = RedisCounter(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.05)
        throttle, health = throttle_of(counter, Clock(), timeout=0.05)
        for _ in range(20):
            if asynchronous:
                assert asyncio.run(throttle.step_async(WINDOWS, 1)) is None
            else:
                assert throttle.step(WINDOWS, 1) is None
    assert health.capture_failures == {"throttling": 1}


def test_a_redis_that_goes_away_and_comes_back(clock: Clock) -> None:
    with redis() as server:
        counter = RedisCounter(server.url, 5)
        throttle, health = throttle_of(counter, clock, timeout=60)
        assert throttle.step(WINDOWS, 1) is None
        assert throttle.step(WINDOWS, 1) is not None
        server.process.kill()
        server.process.wait()
        assert throttle.step(WINDOWS, 1) is None
        assert throttle.step(WINDOWS, 1) is None
    assert health.capture_failures == {"throttling": 1}
    closed, _ = throttle_of(counter, clock, on_error="fail_closed")
    with pytest.raises(ThrottlingException) as refused:
        closed.step(WINDOWS, 1)
    assert refused.value.status == 503


def test_a_client_that_is_not_installed_and_a_cache_that_is_not_there(
    throttled: Throttled, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_audit.contrib.throttling.django.middleware import ViewThrottlingMiddleware

    with throttled() as audit:
        throttling = ViewThrottlingMiddleware.throttling
        assert throttling is not None
        throttling.throttle = None
        throttling._config = AuditConfig(throttling=ThrottlingConfig(enabled=True, cache="nowhere"))
        assert [Client().get("/twice/").status_code for _ in range(3)] == [200] * 3
        assert audit.pipeline.health.capture_failures["throttling"] >= 1
    assert "nowhere" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validators": "tests.contrib.no_such:validators"}, "no_such"),
        ({"validators": "tests.contrib.throttling.site:nothing"}, "nothing"),
        ({"rules": {"r": {"number": 1, "timeframe": 60, "by": ["ip"]}}}, "'ip' names nothing"),
        (
            {"rules": {"r": {"number": 1, "timeframe": 60, "by": ["user"], "on": "login_failed"}}},
            "keep the owner of an account out",
        ),
    ],
)
def test_rules_that_cannot_be_made_are_told_and_the_others_hold(
    throttled: Throttled, caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: str
) -> None:
    with throttled(**options) as audit:
        assert [Client().get("/").status_code for _ in range(21)] == [200] * 20 + [429]
        assert audit.pipeline.health.capture_failures == {"throttling": 1}
    assert said in caplog.text
    with throttled(on_error="fail_closed", **options):
        assert Client().get("/", REMOTE_ADDR="192.0.2.9").status_code == 503


def test_a_function_of_the_application_that_raises_costs_nothing_but_its_rule(
    throttled: Throttled, caplog: pytest.LogCaptureFixture
) -> None:
    rules = {"odd": {"number": 1, "timeframe": 60, "by": [f"{__name__}:raising"]}}
    with throttled(rules=rules) as audit:
        assert [Client().get("/").status_code for _ in range(3)] == [200] * 3
        assert audit.pipeline.health.capture_failures == {"throttling": 3}
    assert "whom 1 requests in 60 s" in caplog.text


def raising(request: Any) -> str:
    raise RuntimeError("no tenant")


def test_nothing_listens_there() -> None:
    throttle, health = throttle_of(RedisCounter(f"redis://127.0.0.1:{free_port()}/0", 0.5), Clock())
    assert throttle.step(WINDOWS, 1) is None
    assert asyncio.run(throttle.step_async(WINDOWS, 1)) is None
    assert health.capture_failures == {"throttling": 1}
