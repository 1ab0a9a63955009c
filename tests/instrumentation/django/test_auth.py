"""Logins, logouts and failed logins, with and without a request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test import AsyncClient, Client, RequestFactory

from otel_audit.audit_record import Actor
from otel_audit.config.model import RedactionConfig
from otel_audit.errors import SpoolError
from otel_audit.instrumentation.django import auth
from otel_audit.instrumentation.django.auth import attempted_name
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.project import Instrumented

PASSWORD = "correct horse"
WRONG = "hunter2-but-secret"


def test_a_login_names_the_user_as_actor_and_target(audit: CapturedAudit, alice: User) -> None:
    client = Client()
    client.post("/login/", {"username": "alice", "password": PASSWORD}, headers={"User-Agent": "Netscape"})
    record = audit.one(event_name="user.login.success")
    assert (record.action, record.outcome) == ("LOGIN", "success")
    assert record.actor == Actor(str(alice.pk), "user", "alice")
    assert str(record.target) == f"auth.User/{alice.pk}"
    assert record.source.id == "127.0.0.1"
    assert record.source.user_agent == "Netscape"
    assert record.source.session.startswith("sha256:")
    assert record.request.route == "login/"


def test_a_logout_still_knows_who_leaves(audit: CapturedAudit, alice: User) -> None:
    client = Client()
    client.force_login(alice)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.get("/known/")
    client.post("/logout/")
    record = audit.one(event_name="user.logout")
    assert (record.action, record.outcome) == ("LOGOUT", "success")
    assert record.actor == Actor(str(alice.pk), "user", "alice")
    assert str(record.target) == f"auth.User/{alice.pk}"
    assert record.source.session == audit.one(event_name="clinic.note").source.session
    assert session not in record.source.session


def test_an_anonymous_logout_is_none(audit: CapturedAudit) -> None:
    Client().post("/logout/")
    assert audit.find(event_name="user.logout") == []


def test_a_failed_login_has_the_name_as_a_claim_and_no_password(audit: CapturedAudit, alice: User) -> None:
    Client().post("/login/", {"username": "alice", "password": WRONG})
    record = audit.one(event_name="user.login.failure")
    assert (record.action, record.outcome, record.error) == ("LOGIN", "failure", "authentication_failed")
    assert record.actor == Actor("anonymous", "unknown"), "the attempted name is not who did it"
    assert str(record.target) == "user.name/alice"
    assert record.source.id == "127.0.0.1"
    assert record.request.route == "login/"


def test_no_credential_reaches_the_spool(audit: CapturedAudit, alice: User) -> None:
    client = Client()
    client.post("/login/", {"username": "alice", "password": WRONG})
    client.post("/login/", {"username": "alice", "password": PASSWORD})
    authenticate(username="alice", password=WRONG)
    authenticate(None, username="alice", token=WRONG, pin=WRONG)
    client.post("/logout/")
    assert len(audit.find(event_name="user.login.failure")) == 3
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    for segment in Path(audit.pipeline.directory).rglob("*"):
        content = segment.read_bytes() if segment.is_file() else b""
        assert WRONG.encode() not in content
        assert PASSWORD.encode() not in content
        assert not key or key.encode() not in content


def test_a_login_without_a_request_is_the_users_own(audit: CapturedAudit, alice: User) -> None:
    user_logged_in.send(sender=User, request=None, user=alice)
    assert authenticate(username="mallory", password=WRONG) is None
    login = audit.one(event_name="user.login.success")
    assert login.actor == Actor(str(alice.pk), "user", "alice")
    assert login.source.id == ""
    failure = audit.one(event_name="user.login.failure")
    assert failure.actor == Actor("anonymous", "unknown")
    assert str(failure.target) == "user.name/mallory"


def test_a_request_the_middleware_did_not_see_lends_its_address(audit: CapturedAudit, alice: User) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="203.0.113.9")
    user_login_failed.send(sender="test", credentials={"username": "mallory"}, request=request)
    record = audit.one(event_name="user.login.failure")
    assert record.source.id == "203.0.113.9"


def test_async_logins_are_recorded(audit: CapturedAudit, alice: User) -> None:
    async def visit() -> None:
        client = AsyncClient()
        await client.post("/async-login/", {"username": "alice", "password": WRONG})
        await client.post("/async-login/", {"username": "alice", "password": PASSWORD})

    asyncio.run(visit())
    failure = audit.one(event_name="user.login.failure")
    login = audit.one(event_name="user.login.success")
    assert str(failure.target) == "user.name/alice"
    assert login.actor.id == str(alice.pk)
    assert login.request.route == failure.request.route == "async-login/"


def test_lazy_and_missing_users_do_no_harm(audit: CapturedAudit) -> None:
    class Robot:
        """No model, no key."""

        def save(self, **kwargs: Any) -> None: ...

    user_logged_out.send(sender=None, request=None, user=AnonymousUser())
    assert list(audit) == []
    user_logged_in.send(sender=None, request=None, user=Robot())
    record = audit.one(event_name="user.login.success")
    assert record.actor == Actor("unknown", "unknown")
    assert str(record.target) == "Robot/unknown"


def test_auth_events_can_be_switched_off(instrumented: Instrumented, alice: User) -> None:
    with instrumented(auth_events=False) as audit:
        Client().post("/login/", {"username": "alice", "password": PASSWORD})
        assert [record for record in audit if record.event_name.startswith("user.")] == []


def test_receivers_are_gone_with_the_instrumentor(instrumented: Instrumented) -> None:
    signals = (user_logged_in, user_logged_out, user_login_failed)
    before = [len(signal.receivers) for signal in signals]
    with instrumented():
        assert [len(signal.receivers) for signal in signals] == [count + 1 for count in before]
    assert [len(signal.receivers) for signal in signals] == before


def test_a_login_that_cannot_be_recorded_fails_only_if_told_to(
    instrumented: Instrumented, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SpoolError("disk full")

    for policy in ("fail_open", "fail_closed"):
        with instrumented(config={"on_error": policy}) as audit:
            monkeypatch.setattr(audit.pipeline.spool, "append", full)
            client = Client(raise_request_exception=False)
            response = client.post("/login/", {"username": "alice", "password": PASSWORD})
            assert response.status_code == (302 if policy == "fail_open" else 500)


@pytest.mark.parametrize("path", ["/login/", "/logout/"])
def test_a_failure_of_ours_does_not_reach_the_view(
    instrumented: Instrumented, alice: User, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Nor Django's signal; it is counted."""

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("our fault")

    with instrumented() as audit:
        client = Client()
        credentials = {"username": "alice", "password": PASSWORD}
        if path == "/logout/":
            client.post("/login/", credentials)
        monkeypatch.setattr(auth, "user_actor", broken)
        assert client.post(path, credentials).status_code == 302
        assert sum(audit.pipeline.health.capture_failures.values()) == 1


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        ({"username": "alice", "password": "x"}, "alice"),
        ({"email": "a@example.org"}, "a@example.org"),
        ({"username": 7}, "7"),
        ({"username": None, "token": "x"}, "unknown"),
        ({}, "unknown"),
        ({"username": "x" * 1000}, "x" * 254),
    ],
)
def test_the_attempted_name_is_all_that_is_taken(credentials: dict[str, Any], expected: str) -> None:
    assert attempted_name(credentials) == expected


KEY = "sixteen letters!"


@pytest.mark.parametrize(
    ("how", "expected"), [("keep", WRONG), ("mask", "[redacted]"), ("hmac", "hmac:")], ids=lambda value: value
)
def test_a_name_that_belongs_to_no_account_may_be_a_password_and_is_hidden_if_asked(
    instrumented: Instrumented, alice: User, how: Any, expected: str
) -> None:
    redaction = RedactionConfig(unknown_user_names=how, hmac_key=KEY)
    with instrumented(models=["auth.User"], reads=["auth.User"], redaction=redaction) as audit:
        for name in (WRONG, WRONG, "alice", "ALICE", alice.email):
            Client().post("/login/", {"username": name, "password": "x"})
        user_login_failed.send(sender="test", credentials={})
        first, second, *known, none = [
            r.target.id for r in audit.find(event_name="user.login.failure") if r.target
        ]
    assert first == second
    assert first.startswith(expected)
    assert known == ["alice", "ALICE", alice.email], "the name of an account is shown, however it is spelled"
    assert none == "unknown"
    asked = [r for r in audit.find(action="READ") if r.attributes.get("query") == "exists"]
    assert not asked, "our own question is nobody's read"


def test_a_name_is_hidden_where_nobody_can_be_asked_and_the_transaction_goes_on(
    instrumented: Instrumented, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense FROM nowhere")
        return True

    redaction = RedactionConfig(unknown_user_names="mask")
    with instrumented(models=["auth.User"], redaction=redaction) as audit:
        with transaction.atomic(), monkeypatch.context() as patch:
            patch.setattr(QuerySet, "exists", fails)
            user_login_failed.send(sender="test", credentials={"username": "alice"})
            patch.undo()
            User.objects.filter(pk=alice.pk).update(first_name="Alice")
        user_login_failed.send(sender="test", credentials={"username": "a\x00b"})
        assert [str(r.target) for r in audit.find(action="LOGIN")] == ["user.name/[redacted]"] * 2
        assert audit.one(action="UPDATE").outcome == "success"
