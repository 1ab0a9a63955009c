"""The signed context itself: what is signed comes back, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import example, given, strategies
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_audit import AuditConfig, RedactingSpanProcessor
from otel_audit.propagation import signed_context
from otel_audit.propagation.signed_context import Key, Refused, SignedContext, sign, verify

NOW = 1_800_000_000
KEY = Key("2026-11", "x" * 32)
OTHER = Key("2026-12", "y" * 32)
KEYS = {KEY.header: KEY, OTHER.header: OTHER}
CONTEXT = SignedContext("fulfilment:8001", NOW + 60, "7", "user", "acme", "0199-r1")


def is_fulfilment(address: str) -> bool:
    return address == "fulfilment:8001"


def read(value: str, now: float = NOW) -> SignedContext:
    return verify(value, KEYS, is_fulfilment, now)


def reason(value: str, now: float = NOW) -> str:
    with pytest.raises(Refused) as refused:
        read(value, now)
    return refused.value.reason


def handmade(claims: bytes, key: Key = KEY) -> str:
    """What a holder of the key writes who does not write as we do."""
    signed = f"{key.header}.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}"
    return f"{signed}.{key.signature(signed)}"


def test_what_was_signed_is_read_by_whoever_has_the_key() -> None:
    assert read(sign(CONTEXT, KEY)) == CONTEXT
    assert read(sign(CONTEXT, OTHER)) == CONTEXT, "while keys are rotated, both are accepted"


def test_it_is_a_json_web_token_whose_key_is_derived_from_the_secret() -> None:
    """So that services in other languages can read it; docs/propagation.md promises these bytes."""
    header, claims, signature = sign(CONTEXT, KEY).split(".")

    def decode(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert json.loads(decode(header)) == {"alg": "HS256", "kid": "2026-11", "typ": "audit-context.1+jwt"}
    assert json.loads(decode(claims)) == {
        "aud": "fulfilment:8001",
        "exp": NOW + 60,
        "sub": "7",
        "kind": "user",
        "tid": "acme",
        "rid": "0199-r1",
    }
    key = hmac.digest(b"x" * 32, b"otel-audit signed context, version 1", "sha256")
    assert decode(signature) == hmac.new(key, f"{header}.{claims}".encode(), hashlib.sha256).digest()


def test_an_ordinary_one_fits_and_one_that_is_too_long_is_not_made() -> None:
    uuid = "0199c0f2-3c1d-7b1e-8f63-5d1f6f0a9a11"
    long = SignedContext("fulfilment.shop.svc.cluster.local:8001", NOW, uuid, "user", "acme", uuid)
    assert len(f"{signed_context.NAME}={sign(long, KEY)}") <= 512
    for field in ("initiator", "tenant", "request", "audience"):
        assert sign(SignedContext(**{"audience": "a", "expiry": NOW, field: "x" * 400}), KEY) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (sign(CONTEXT, Key("2026-11", "z" * 32)), "forged"),
        (sign(CONTEXT, Key("nobody", "x" * 32)), "unknown_key"),
        (sign(SignedContext("billing:80", NOW + 60, "7"), KEY), "audience"),
        (sign(SignedContext("fulfilment:8001", NOW - 31, "7"), KEY), "expired"),
        (sign(SignedContext("fulfilment:8001", NOW + 631, "7"), KEY), "not_yet_valid"),
        ("", "malformed"),
        ("x" * 500, "oversized"),
        (sign(CONTEXT, KEY) + "\n", "malformed"),
        (sign(CONTEXT, KEY) + ";p=1", "malformed"),
        (f" {sign(CONTEXT, KEY)}", "malformed"),
        (sign(CONTEXT, KEY) + "=", "malformed"),
        (f"{sign(CONTEXT, KEY).rpartition('.')[0]}.", "malformed"),
    ],
    ids=lambda value: str(value)[-12:],
)
def test_what_is_not_for_us_is_refused_and_the_reason_is_told(value: str, expected: str) -> None:
    assert reason(value) == expected


def test_clocks_may_differ_by_half_a_minute() -> None:
    assert read(sign(CONTEXT, KEY), NOW + 90).initiator == "7"
    assert reason(sign(CONTEXT, KEY), NOW + 91) == "expired"


@pytest.mark.parametrize("algorithm", ["none", "HS512", "RS256", "hs256"])
def test_the_algorithm_is_that_of_the_key_whatever_the_header_says(algorithm: str) -> None:
    header = base64.urlsafe_b64encode(
        json.dumps(
            {"alg": algorithm, "kid": KEY.id, "typ": "audit-context.1+jwt"}, separators=(",", ":")
        ).encode()
    ).rstrip(b"=")
    _, claims, signature = sign(CONTEXT, KEY).split(".")
    assert reason(f"{header.decode()}.{claims}.{signature}") == "unknown_key"
    assert reason(f"{header.decode()}.{claims}.") == "malformed"


def test_a_token_of_the_application_with_the_same_secret_is_not_one_of_ours() -> None:
    signed = sign(CONTEXT, KEY).rpartition(".")[0]
    theirs = base64.urlsafe_b64encode(hmac.digest(b"x" * 32, signed.encode(), "sha256")).rstrip(b"=").decode()
    assert reason(f"{signed}.{theirs}") == "forged"


@pytest.mark.parametrize(
    "claims",
    [
        b'{"aud":"fulfilment:8001","exp":1800000060,"sub":"7","sub":"8"}',
        b'{"sub":"7","aud":"fulfilment:8001","exp":1800000060}',
        b'{"aud":"fulfilment:8001", "exp":1800000060}',
        b'{"aud":"fulfilment:8001","exp":1800000060,"sub":""}',
        b'{"aud":"fulfilment:8001","exp":1800000060,"admin":true}',
        b'{"aud":["fulfilment:8001"],"exp":1800000060}',
        b'{"aud":"fulfilment:8001","exp":1.8e9}',
        b'{"aud":"fulfilment:8001"}',
        b"[]",
        b"\xff",
        b"",
        b"{" * 200,
    ],
)
def test_claims_that_could_be_read_in_two_ways_are_refused_even_signed(claims: bytes) -> None:
    assert reason(handmade(claims)) == "malformed"


@given(strategies.integers(0), strategies.integers(0, 7))
def test_no_change_of_a_single_bit_is_accepted(position: int, bit: int) -> None:
    changed = bytearray(sign(CONTEXT, KEY).encode())
    changed[position % len(changed)] ^= 1 << bit
    with pytest.raises(Refused):
        read(changed.decode("latin-1"))


@given(strategies.text() | strategies.binary().map(lambda data: data.decode("latin-1")))
@example("a.b." + "c" * 43)
@example("\ud800.b." + "c" * 43)
@example("١.b." + "c" * 43)
def test_no_text_that_was_not_signed_is_accepted_or_raises_anything_else(value: str) -> None:
    with pytest.raises(Refused):
        read(value)


texts = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts, texts, texts, strategies.sampled_from(["user", "service", "system", ""]))
def test_any_ids_come_back_as_they_were(initiator: str, tenant: str, request: str, kind: str) -> None:
    context = SignedContext("fulfilment:8001", NOW, initiator, kind, tenant, request)
    value = sign(context, KEY)
    if value:
        assert read(value) == context


@given(texts, texts, texts, texts)
def test_two_contexts_never_have_one_text(a: str, b: str, c: str, d: str) -> None:
    one, other = SignedContext("a", NOW, a, "", b), SignedContext("a", NOW, c, "", d)
    assert (sign(one, KEY) == sign(other, KEY)) == (one == other) or not sign(one, KEY)


def test_a_key_shows_its_id_only() -> None:
    assert "x" * 8 not in repr(KEY)


@pytest.mark.parametrize(
    "attribute",
    [
        ("http.request.header.baggage", (f"theirs=kept,{signed_context.NAME}={sign(CONTEXT, KEY)}",)),
        ("log", f"sent {{'baggage': '{signed_context.NAME}={sign(CONTEXT, KEY)},theirs=kept'}}"),
        (signed_context.NAME, sign(CONTEXT, KEY)),
    ],
    ids=lambda attribute: attribute[0],
)
def test_no_span_is_exported_with_one(attribute: tuple[str, Any]) -> None:
    """OpenTelemetry records the header if it is asked to capture it."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RedactingSpanProcessor(SimpleSpanProcessor(memory), AuditConfig()))
    provider.get_tracer("tests").start_span("x", attributes=dict([attribute])).end()
    [span] = memory.get_finished_spans()
    shown = str(dict(span.attributes or {}))
    assert "eyJ" not in shown
    assert CONTEXT.request not in shown
    assert ("kept" in shown) == ("theirs" in str(attribute))
