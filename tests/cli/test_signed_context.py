"""What the command line says about signed contexts: to whom, from whom, by which keys, and no secret."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from otel_audit.config.loader import load
from otel_audit.propagation.signed_context import NAME, Key, SignedContext, sign
from tests.cli.conftest import Command

SECRET = "c2VjcmV0LW9mLXRoZS1zaG9wLWFuZC1mdWxmaWxtZW50"
NEXT = SECRET[::-1]


def test_secrets_are_in_no_list_of_settings(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_AUDIT_CONTEXT_KEYS", f"k1={SECRET}")
    done = command("config", "show")
    assert "context.keys" in done.out
    assert SECRET not in done.out
    assert SECRET not in repr(load(environ={"OTEL_AUDIT_CONTEXT_KEYS": f"k1={SECRET}"}).config)


@pytest.mark.parametrize(
    ("variables", "state", "told"),
    [
        ({}, "", ""),
        ({"PROPAGATE_TO": "fulfilment"}, "bad", "not sent to fulfilment: no key signs"),
        ({"AUDIENCE": "fulfilment"}, "bad", "not accepted: there is no key"),
        ({"KEYS": f"k1={SECRET}"}, "note", "nothing is sent or accepted"),
        ({"KEYS_FILE": "/nonexistent", "AUDIENCE": "fulfilment"}, "bad", "cannot be read"),
        ({"KEYS": f"k1={SECRET}", "PROPAGATE_TO": "fulfilment"}, "ok", "sent to fulfilment, signed with"),
        (
            {"KEYS": f"k1={SECRET},k2={NEXT}", "AUDIENCE": "shop"},
            "ok",
            "accepted for shop, signed with the keys",
        ),
        ({"KEYS": f"k1={SECRET},k2={NEXT}", "PROPAGATE_TO": "shop"}, "bad", "set context.signing_key"),
        ({"KEYS": f"k1={SECRET}", "QUEUES": "orders"}, "ok", "accepted from the queues orders"),
        ({"QUEUES": "orders"}, "bad", "not sent to queues: no key signs"),
    ],
)
def test_doctor_says_who_is_told_who_acts_and_what_is_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], state: str, told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_AUDIT_CONTEXT_{name}", value)
    done = command("doctor", "--json", "--timeout", "0.1")
    found = [json.loads(line) for line in done.out.splitlines() if '"signed context"' in line]
    assert {each["state"] for each in found} == ({state} if state else set())
    assert told in " ".join(each["finding"] for each in found)
    assert SECRET not in done.out


def signed(key: str, secret: str, audience: str = "fulfilment:8001", lifetime: int = 60) -> str:
    context = SignedContext(audience, int(time.time()) + lifetime, "7", "user", "acme", "r1")
    return f"theirs=kept,{NAME}={sign(context, Key(key, secret))}"


@pytest.fixture
def fulfilment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_AUDIT_CONTEXT_KEYS", f"k1={SECRET}")
    monkeypatch.setenv("OTEL_AUDIT_CONTEXT_AUDIENCE", "fulfilment")


@pytest.mark.usefixtures("fulfilment")
@pytest.mark.parametrize("whole", [True, False])
def test_a_signed_context_is_explained(command: Command, whole: bool) -> None:
    header = signed("k1", SECRET)
    done = command("explain", "context", header if whole else header.partition(f"{NAME}=")[2], "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert {name: found[name] for name in ("key", "audience", "kind", "began_by", "tenant", "request")} == {
        "key": "k1",
        "audience": "fulfilment:8001",
        "kind": "user",
        "began_by": "7",
        "tenant": "acme",
        "request": "r1",
    }
    assert found["accepted"] == "yes"
    shown = command("explain", "context", header).out
    assert "began by  7\n" in shown
    assert "accepted  yes\n" in shown


@pytest.mark.usefixtures("fulfilment")
@pytest.mark.parametrize(
    ("header", "status", "told"),
    [
        (lambda: signed("k1", NEXT), 1, "its signature does not fit"),
        (lambda: signed("k2", SECRET), 1, "its key is not in context.keys"),
        (lambda: signed("k1", SECRET, "billing:80"), 1, "context.audience does not name"),
        (lambda: signed("k1", SECRET, lifetime=-999), 1, "it has expired"),
        (lambda: "theirs=kept", 2, "not a signed context"),
        (lambda: "eyJ.a.b", 2, "not a signed context"),
        (lambda: "x" * 10_000, 2, "not a signed context"),
        (lambda: f"{NAME}=eyJh.eyJh.{'a' * 43}", 2, "not a signed context"),
    ],
    ids=["forged", "unknown key", "audience", "expired", "none", "no signature", "long", "no claims"],
)
def test_why_one_is_not_accepted_is_told(
    command: Command, header: Callable[[], str], status: int, told: str
) -> None:
    done = command("explain", "context", header())
    assert done.status == status
    assert told in done.out + done.err


def test_without_keys_here_it_is_shown_and_not_accepted(command: Command) -> None:
    done = command("explain", "context", signed("k1", SECRET))
    assert done.status == 1
    assert "began by  7" in done.out
    assert "there is no key to verify one" in done.out


@pytest.mark.parametrize(("queues", "status"), [("orders", 0), ("payroll", 1), ("", 1)])
def test_a_context_of_a_message_is_explained(
    command: Command, monkeypatch: pytest.MonkeyPatch, queues: str, status: int
) -> None:
    monkeypatch.setenv("OTEL_AUDIT_CONTEXT_KEYS", f"k1={SECRET}")
    if queues:
        monkeypatch.setenv("OTEL_AUDIT_CONTEXT_QUEUES", queues)
    context = SignedContext("queue/orders", int(time.time()) + 3600, "7", "user", task="5c1b", retry=2)
    done = command("explain", "context", sign(context, Key("k1", SECRET)), "--json")
    found = json.loads(done.out)
    assert (done.status, found["task"], found["began_by"]) == (status, "5c1b", "7")
    assert (found["accepted"] == "yes") is (status == 0)
