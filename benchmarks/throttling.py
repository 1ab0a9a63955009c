"""What a decision of throttling costs: in memory, in Django's local cache, in a Redis on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks.figures import Figure, each, quantile, report
from tests import services

_TIMES = 5_000
_GOAL_US = 50


def measure() -> Iterator[Figure]:
    import django
    from django.conf import settings

    local = "django.core.cache.backends.locmem.LocMemCache"
    settings.configure(CACHES={"default": {"BACKEND": local, "OPTIONS": {"MAX_ENTRIES": 100_000}}})
    django.setup()
    yield from _decisions()
    yield from _refusals()


def _decisions() -> Iterator[Figure]:
    """The default set, a thousand addresses: everybody passes."""
    from otel_audit.config.model import AuditConfig, ThrottlingConfig
    from otel_audit.contrib.throttling.counters.choice import counter_of_django

    with ExitStack() as stack:
        redis = stack.enter_context(services.redis())
        for name, storage, goal in (
            ("in memory", "memory", _GOAL_US),
            ("in Django's local cache", "", _GOAL_US),
            ("in Redis", f"unix://{redis.socket}", None),
        ):
            config = AuditConfig(throttling=ThrottlingConfig(enabled=True, storage=storage))
            decide = _decision(config, counter_of_django(config))
            each(decide, 100)
            samples = each(decide, _TIMES)
            note = "two rules, middleware and address included; p95 "
            yield Figure(
                name=f"throttling, {name}, p50",
                value=quantile(samples, 0.5) * 1e6,
                unit="µs",
                goal=goal,
                note=note + f"{quantile(samples, 0.95) * 1e6:.0f} µs",
            )
        with redis.client() as client:
            trips = each(client.ping, 2_000)
        yield Figure(
            name="one round trip to that Redis, p50", value=quantile(trips, 0.5) * 1e6, unit="µs", note="PING"
        )


def _decision(config: object, counter: object) -> Callable[[], None]:
    from django.http import HttpRequest

    from otel_audit.contrib.throttling.django.request import DjangoAsked
    from otel_audit.contrib.throttling.throttler import Throttler
    from otel_audit.contrib.throttling.work import Work
    from otel_audit.pipeline.failures import Failures

    throttle = Throttler(config, counter, Failures("throttling", config, lambda: None))  # type: ignore[arg-type]
    requests = []
    for number in range(1000):
        request = HttpRequest()
        request.path, request.method = "/orders/7/", "GET"
        request.META["REMOTE_ADDR"] = f"10.0.{number // 250}.{number % 250}"
        requests.append(request)
    turn = iter(range(10**9))

    def decide() -> None:
        work = Work(throttle, DjangoAsked(requests[next(turn) % 1000], 0))
        work.run(work.begin())

    return decide


def _refusals() -> Iterator[Figure]:
    """An ASGI application behind the middleware, in memory: what it adds to a request that passes."""
    from benchmarks.pipelines import without_sender
    from otel_audit.config.model import ThrottlingConfig, ThrottlingRuleConfig
    from otel_audit.contrib.throttling import ThrottlingMiddleware

    async def application(scope: object, receive: object, send: object) -> None:
        return

    scope = {"type": "http", "path": "/", "method": "GET", "client": ("10.0.0.1", 1), "headers": []}
    rules = {"hour": ThrottlingRuleConfig(number=10**9, timeframe=3600)}
    rules["minute"] = ThrottlingRuleConfig(number=10**9, timeframe=60)

    async def calls(app: Callable[..., object]) -> list[float]:
        samples = []
        for _ in range(_TIMES):
            begun = time.perf_counter()
            await app(dict(scope), None, None)  # type: ignore[misc]
            samples.append(time.perf_counter() - begun)
        return samples

    with without_sender(instrument=False, throttling=ThrottlingConfig(enabled=True, rules=rules)):
        plain = quantile(asyncio.run(calls(application)), 0.5)
        samples = asyncio.run(calls(ThrottlingMiddleware(application)))
    yield Figure(
        name="throttling, ASGI middleware in memory, p50",
        value=(quantile(samples, 0.5) - plain) * 1e6,
        unit="µs",
        goal=_GOAL_US,
        note="two rules; more than without the middleware",
    )


if __name__ == "__main__":
    report(measure())
