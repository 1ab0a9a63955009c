"""Addresses and headers are shown as they were, without credentials and secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.config.model import AuditConfig, PlaceRules, RedactionConfig
from otel_audit.http.contents import Contents
from otel_audit.redaction.redactor import Redactor

MASK = "[redacted]"
contents = Contents.of(AuditConfig())


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("", ""),
        ("page=2&q=tea+cup&empty", "page=2&q=tea+cup&empty"),
        ("password=x1&page=2", f"password={MASK}&page=2"),
        ("user%5Bpassword%5D=x1", f"user%5Bpassword%5D={MASK}"),
        ("pass%77ord=x1", f"pass%77ord={MASK}"),
        (
            "sig=abcdef&X-Amz-Signature=abcdef&X-Amz-Credential=a",
            f"sig={MASK}&X-Amz-Signature={MASK}&X-Amz-Credential={MASK}",
        ),
        ("name=password&value=x1y2", f"name=password&value={MASK}"),
        ("card=4111111111111111&n=7", f"card={MASK}&n=7"),
        ("token=", "token="),
        ("next=%2Flogin%3Ftoken%3Dx1y2z3", f"next=/login?token%3D{MASK}"),
    ],
)
def test_a_query_loses_the_values_of_sensitive_parameters(raw: str, shown: str) -> None:
    assert contents.query(raw) == shown
    assert contents.query(raw.encode()) == shown


def test_a_query_is_judged_by_its_names_whatever_was_said_of_it_as_a_text() -> None:
    """And the same way each time it comes."""
    redactor = Redactor(RedactionConfig(names=["^page$"]))
    for raw, shown in (("page=2", f"page={MASK}"), ("rows=20", "rows=20")):
        assert redactor.text(raw) == raw
        for _ in range(2):
            assert Contents(redactor).query(raw) == shown


def test_a_secret_in_json_in_a_parameter_is_found() -> None:
    assert "x1y2" not in contents.query("filter=%7B%22token%22%3A%22x1y2%22%2C%22page%22%3A2%7D")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://shop.example/orders/7?page=2#top", "https://shop.example/orders/7?page=2#top"),
        ("https://ann:x1@shop.example:8443/a", f"https://{MASK}@shop.example:8443/a"),
        ("https://x1@shop.example/", f"https://{MASK}@shop.example/"),
        ("postgres://ann:p@x1@db/shop", f"postgres://{MASK}@db/shop"),
        ("http://ann:x1", f"http://ann:{MASK}"),
        ("http://h:8080", "http://h:8080"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("//ann:x1@h/a", f"//{MASK}@h/a"),
        ("/cb?code=1#access_token=x1&state=b", f"/cb?code=1#access_token={MASK}&state=b"),
        ("https://h/a?u=https%3A%2F%2Fann%3Ax1%40h%2F", f"https://h/a?u=https://{MASK}@h/"),
        ("mailto:ann@example.com", "mailto:ann@example.com"),
    ],
)
def test_an_address_loses_credentials_and_secrets(address: str, shown: str) -> None:
    assert contents.url(address) == shown


@pytest.mark.parametrize(
    "address", ["?a=" + "b" * 100_000, "a=b&" * 50_000, "https://h/" + "c" * 100_000, "#" * 99_999]
)
def test_long_addresses_are_cut(address: str) -> None:
    assert len(contents.query(address)) <= 4200
    assert len(contents.url(address)) <= 10_000


def test_a_secret_that_the_cut_goes_through_is_left_out() -> None:
    for length in range(16_300, 16_390):
        raw = "a=" + "b" * length + "&password=x1x2x3"
        assert "x1" not in contents.query(raw)
        assert "x1" not in contents.url("/a?" + raw)


def test_headers_are_shown_by_name_in_lower_case_without_secrets() -> None:
    assert contents.headers(
        [
            (b"Host", b"shop.example"),
            ("Authorization", "Bearer x1"),
            (b"Cookie", b"sessionid=x1; theme=dark"),
            ("Set-Cookie", "sessionid=x1; HttpOnly"),
            ("X-Api-Key", "x1"),
            ("Accept", "a/b"),
            ("accept", "c/d"),
            ("Referer", "https://ann:x1@h/a?token=x1"),
            ("X-Forwarded-For", "10.0.0.1"),
        ]
    ) == {
        "host": "shop.example",
        "authorization": MASK,
        "cookie": MASK,
        "set-cookie": MASK,
        "x-api-key": MASK,
        "accept": "a/b, c/d",
        "referer": f"https://{MASK}@h/a?token={MASK}",
        "x-forwarded-for": "10.0.0.1",
    }
    assert contents.headers({"Accept": "a/b"}) == {"accept": "a/b"}


HEADER_NAMES: list[Any] = [
    "Accept",
    "accept",
    "Host",
    "X-Tea",
    "Cookie",
    "value",
    "Authorization",
    "x-" + "n" * 130,
    b"Via",
    7,
]
HEADER_VALUES = ["", "a/b", "7", "password=x7", "Bearer abcdef1234567890abcd", "é", b"b", "v" * 3000, 7, None]


@given(
    st.lists(st.tuples(st.sampled_from(HEADER_NAMES), st.sampled_from(HEADER_VALUES)), max_size=6),
    st.sampled_from([RedactionConfig(), RedactionConfig(values=["a/b"]), RedactionConfig(names=["x-tea"])]),
)
def test_headers_whose_names_are_known_are_shown_as_when_they_came_first(
    pairs: list[tuple[Any, Any]], rules: RedactionConfig
) -> None:
    own = Contents(Redactor(rules))
    expected = own.headers(iter(pairs))
    for name in HEADER_NAMES:
        own.headers(iter([(name, "a/b")]))
    assert own.headers(pairs) == expected
    assert list(own.headers(pairs)) == list(expected)


def test_many_and_long_headers_are_cut() -> None:
    many = contents.headers([(f"x-{i}", "v") for i in range(1000)])
    assert len(many) == 129
    assert many["…"] == "…"
    long = contents.headers([("x-long", "word " * 4000), *[(f"x-{i}", "v" * 5000) for i in range(50)]])
    assert long["x-long"].endswith("characters)")
    assert len(json.dumps(long)) < 20_000


@pytest.mark.parametrize("odd", [b"\xff\xfe", "\ud800", 7, None, object(), ""])
def test_odd_headers_cost_nothing(odd: object) -> None:
    shown = contents.headers([(odd, odd), ("accept", "a/b")])  # type: ignore[list-item]
    assert shown["accept"] == "a/b"
    json.dumps(shown, ensure_ascii=False).encode()


def test_headers_and_queries_have_rules_of_their_own() -> None:
    redaction = RedactionConfig(
        names=["x-tenant", "tenant"],
        headers=PlaceRules(names=["x-trace"], allow=["x-tenant", "x-api-key"]),
        queries=PlaceRules(values=[r"KD-\d+"], allow=["token"]),
    )
    own = Contents.of(AuditConfig(redaction=redaction))
    given = {"X-Tenant": "a", "X-Trace": "b", "X-Api-Key": "c", "X-Customer": "KD-7"}
    assert own.headers(given) == {
        "x-tenant": "a",
        "x-trace": MASK,
        "x-api-key": "c",
        "x-customer": "KD-7",
    }
    assert own.query("tenant=a&token=b&id=KD-7") == f"tenant={MASK}&token=b&id={MASK}"


def test_without_the_built_in_rules_only_own_ones_hold() -> None:
    redaction = RedactionConfig(enabled=False, headers=PlaceRules(names=["x-trace"]))
    own = Contents.of(AuditConfig(redaction=redaction))
    assert own.headers({"X-Trace": "b", "Authorization": "c"}) == {"x-trace": MASK, "authorization": "c"}
    assert own.query("password=a&sig=b") == "password=a&sig=b"
