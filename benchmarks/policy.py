"""What a decision of the policy costs, with ten rules: of a request whose path is known, and of a new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks.figures import Figure, each, quantile, report
from otel_audit.config.model import AuditConfig
from otel_audit.policy import Facts, Policy

_CALLS = 20_000
_GOAL_US = 2
_RULES: list[dict[str, Any]] = [
    {"path": ["/health", "/metrics"], "level": "none"},
    {"path": "/static/*", "level": "none"},
    {"path": "/media/*", "level": "none"},
    {"host": "*.internal", "level": "metadata"},
    {"user": "monitoring", "level": "none"},
    {"path": "/api/*", "status": "5xx", "level": "request_response"},
    {"view": "shop.views.admin.*", "level": "request"},
    {"path": "/hooks/*", "method": "POST", "level": "request"},
    {"tenant": ["acme", "globex"], "level": "metadata"},
    {"path": ["/api/*", "!/api/health"], "method": ["POST", "PUT"], "level": "request_response"},
]


def measure() -> Iterator[Figure]:
    policy = Policy.of(msgspec.convert({"policy": _RULES}, AuditConfig))
    known = _facts(7)
    paths = iter([_facts(number) for number in range(2 * _CALLS)])
    early = Facts(path="/api/cards/7", method="POST")
    yield _figure("decide, 10 rules, a known path", each(lambda: policy.decide("request", known), _CALLS))
    yield _figure("decide, 10 rules, a new path", each(lambda: policy.decide("request", next(paths)), _CALLS))
    yield _figure("highest level, 10 rules", each(lambda: policy.highest("request", early), _CALLS))
    without = Policy()
    yield _figure("decide, no rule", each(lambda: without.decide("request", known), _CALLS))


def _facts(number: int) -> Facts:
    return Facts(
        path=f"/api/cards/{number}",
        view="shop.views.CardView",
        route="api/cards/<int:pk>",
        method="POST",
        host="shop.example",
        status=200,
        user="7",
        tenant="initech",
    )


def _figure(name: str, samples: list[float]) -> Figure:
    return Figure(name=name, value=quantile(samples, 0.5) * 1e6, unit="µs", goal=_GOAL_US)


if __name__ == "__main__":
    report(measure())
