"""Which rule decides, and what is still possible while not everything is known."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.config.model import AuditConfig
from otel_audit.policy import Decision, Facts, Kind, Level, Policy


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy.of(msgspec.convert({"policy": list(rules)}, AuditConfig))


def test_the_first_rule_that_matches_decides() -> None:
    rules = policy(
        {"path": "/health", "level": "none"},
        {"path": "/api/*", "method": ["POST", "PUT"], "level": "request_response", "slug": "api"},
        {"path": "/api/*", "level": "request"},
    )
    assert rules.decide("request", Facts(path="/health", method="GET")).level is Level.NONE
    found = rules.decide("request", Facts(path="/api/cards/7", method="POST"))
    assert (found.level, found.rule, found.slug) == (Level.REQUEST_RESPONSE, 2, "api")
    assert rules.decide("request", Facts(path="/api/cards/7", method="GET")).rule == 3


def test_metadata_is_recorded_where_no_rule_matches() -> None:
    for rules in (policy(), policy({"path": "/health", "level": "none"})):
        assert rules.decide("request", Facts(path="/", method="GET")) == Decision(level=Level.METADATA)


@pytest.mark.parametrize(
    ("rule", "kind", "matching", "other"),
    [
        ({"path": "/a/*"}, "request", Facts(path="/a/b"), Facts(path="/b")),
        ({"path": "/a"}, "outgoing", Facts(path="/a"), Facts(path="/b")),
        ({"view": "shop.views.*"}, "request", Facts(view="shop.views.card"), Facts(view="shop.api.card")),
        ({"route": "/cards/<int:pk>"}, "request", Facts(route="cards/<int:pk>"), Facts(route="cards/")),
        ({"route": r"^c/(?P<y>\d*)/?$"}, "request", Facts(route=r"^c/(?P<y>\d*)/?$"), Facts(route="c/1/")),
        ({"method": "post"}, "request", Facts(method="POST"), Facts(method="GET")),
        ({"status": 404}, "request", Facts(status=404), Facts(status=200)),
        ({"status": ["4xx", 500]}, "request", Facts(status=418), Facts(status=502)),
        ({"status": "!2xx"}, "outgoing", Facts(status=500), Facts(status=204)),
        ({"host": "Shop.example"}, "request", Facts(host="shop.EXAMPLE:8000"), Facts(host="x.shop.example")),
        ({"host": "*.internal:8001"}, "outgoing", Facts(host="a.internal:8001"), Facts(host="a.internal")),
        ({"command": ["migrate", "loaddata"]}, "command", Facts(command="migrate"), Facts(command="shell")),
        ({"task": "shop.tasks.*"}, "task", Facts(task="shop.tasks.ship"), Facts(task="ship")),
        ({"user": "7"}, "request", Facts(user="7"), Facts(user="77")),
        ({"user": "*"}, "request", Facts(user="7"), Facts()),
        ({"user": "!7"}, "request", Facts(), Facts(user="7")),
        ({"tenant": ["acme", "x*"]}, "task", Facts(tenant="x2"), Facts(tenant="acme2")),
        ({"model": "shop.*"}, "change", Facts(model="Shop.Order"), Facts(model="auth.User")),
    ],
)
def test_every_condition_is_asked(rule: dict[str, Any], kind: Kind, matching: Facts, other: Facts) -> None:
    rules = policy({**rule, "level": "none"})
    assert rules.decide(kind, matching).level is Level.NONE
    assert rules.decide(kind, other).level is Level.METADATA


def test_a_rule_without_conditions_is_for_all_but_changes() -> None:
    rules = policy({"level": "none"})
    levels = {kind: rules.decide(kind, Facts()).level for kind in ("request", "outgoing", "command", "task")}
    assert set(levels.values()) == {Level.NONE}
    assert rules.decide("change", Facts(model="shop.Order")).level is Level.METADATA
    changes = policy({"kind": "change", "level": "none"})
    assert changes.decide("change", Facts(model="shop.Order")).level is Level.NONE
    assert changes.decide("request", Facts()).level is Level.METADATA


def test_options_are_in_the_decision() -> None:
    rules = policy(
        {
            "path": "/api/*",
            "level": "request_response",
            "slug": "api",
            "event_code": "E7",
            "event_type": "card.change",
            "system": "cards",
            "max_request_body": 0,
            "max_response_body": 4096,
            "content_types": ["application/json"],
            "stages": ["start", "end"],
            "bodies": False,
        }
    )
    assert rules.decide("request", Facts(path="/api/")) == Decision(
        level=Level.REQUEST_RESPONSE,
        rule=1,
        slug="api",
        event_code="E7",
        event_type="card.change",
        system="cards",
        max_request_body=0,
        max_response_body=4096,
        content_types=("application/json",),
        stages=("start", "end"),
        bodies=False,
    )


def test_the_highest_level_counts_rules_that_may_still_match() -> None:
    rules = policy(
        {"path": "/health", "level": "none"},
        {"path": "/api/*", "status": "5xx", "level": "request_response"},
        {"path": "/api/*", "level": "request"},
        {"path": "/web/*", "user": "7", "level": "request_response"},
    )
    assert rules.highest("request", Facts(path="/health")) is Level.NONE
    assert rules.highest("request", Facts(path="/api/cards")) is Level.REQUEST_RESPONSE
    assert rules.highest("request", Facts(path="/api/cards", status=200)) is Level.REQUEST
    assert rules.highest("request", Facts(path="/web/")) is Level.REQUEST_RESPONSE
    assert rules.highest("request", Facts(path="/web/", user="8")) is Level.METADATA
    assert rules.highest("request", Facts(path="/")) is Level.METADATA
    assert [each.rule for each in rules.possible("request", Facts(path="/api/cards"))] == [2, 3]


NAMES = {
    "path": st.sampled_from(["/api/login", "/api/cards", "/web"]),
    "view": st.sampled_from(["shop.views.LoginView", "shop.views.cards"]),
    "route": st.sampled_from(["api/login", "<path:rest>", "api/cards"]),
    "method": st.sampled_from(["GET", "POST"]),
    "user": st.sampled_from(["7", "8"]),
}
PATTERNS = {
    "path": st.sampled_from(["/api/*", "/api/login", "!/web"]),
    "view": st.sampled_from(["shop.*", "shop.views.LoginView"]),
    "route": st.sampled_from(["api/*", "api/login"]),
    "method": st.sampled_from(["POST", "!GET"]),
    "user": st.sampled_from(["*", "!7", "8"]),
}
LEVELS = st.sampled_from(["none", "metadata", "request", "request_response"])


@given(
    st.lists(
        st.builds(
            lambda said, level: {**said, "level": level}, st.fixed_dictionaries({}, optional=PATTERNS), LEVELS
        ),
        max_size=4,
    ),
    st.fixed_dictionaries({}, optional=NAMES),
    st.sets(st.sampled_from(sorted(NAMES))),
)
def test_no_event_gets_more_than_the_highest_level_said_before(
    rules: list[dict[str, Any]], facts: dict[str, str], unknown: set[str]
) -> None:
    """A body that was not kept cannot be recorded later."""
    found = policy(*rules)
    before = {name: value for name, value in facts.items() if name not in unknown}
    decided = found.decide("request", Facts(**facts))  # type: ignore[arg-type]
    possible = list(found.possible("request", Facts(**before)))  # type: ignore[arg-type]
    assert decided.level <= found.highest("request", Facts(**before))  # type: ignore[arg-type]
    assert decided.rule in {each.rule for each in possible}


@pytest.mark.parametrize(
    "text",
    ["/" + "a" * 1_000_000, "/api/" * 50_000, "/\x00\ud800\n", "", "/" + "*" * 10_000, "/%2e%2e/api/\u202e"],
    ids=["long", "repeated", "no text", "empty", "wildcards", "odd"],
)
def test_whatever_strangers_send_is_decided(text: str) -> None:
    """In linear steps: with a search that goes back, this would not end."""
    rules = policy(
        {"path": ["*a*a*a*a*b", "/api/*x"], "host": "*a*a*b", "level": "request"},
        {"path": "/nothing*", "level": "none"},
    )
    facts = Facts(path=text, view=text, route=text, method=text, host=text, user=text, tenant=text)
    assert rules.decide("request", facts).level is Level.METADATA
    assert rules.highest("request", Facts(path=text)) in (Level.METADATA, Level.REQUEST)
    assert rules.decide("outgoing", facts).level is Level.METADATA


def test_long_paths_of_strangers_are_not_kept_in_memory() -> None:
    rules = policy({"path": "/api/*", "level": "request"})
    tracemalloc.start()
    try:
        for number in range(200):
            rules.decide("request", Facts(path=f"/api/{number}/" + "a" * 100_000))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000  # all of them have twenty
