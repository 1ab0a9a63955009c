"""What the command line says about signed contexts: to whom, from whom, by which keys, and no secret."""

from __future__ import annotations

import json

import pytest

from otel_audit.config.loader import load
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
