"""Support staff in a customer's account: who really acts, for whom, and how that began and ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from otel_audit.audit_record import Actor, Target
from otel_audit.config.model import ContextConfig
from otel_audit.instrumentation.django.identity import impersonation
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.project import Instrumented

_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
_AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"
URLS = "tests.instrumentation.django.clinic.impersonating_urls"
HIJACK = override_settings(
    ROOT_URLCONF=URLS,
    MIDDLEWARE=[_SESSIONS, _AUTH, "hijack.middleware.HijackUserMiddleware"],
    HIJACK_INSERT_BEFORE=None,
)
IMPERSONATE = override_settings(
    ROOT_URLCONF=URLS,
    MIDDLEWARE=[_SESSIONS, _AUTH, "impersonate.middleware.ImpersonateMiddleware"],
    IMPERSONATE={"ALLOW_SUPERUSER": True, "DISABLE_LOGGING": True},
)


@pytest.fixture
def zoe(clinic: None) -> User:
    return User.objects.create_user("zoe", "zoe@example.org", "x")


@pytest.fixture
def staff(alice: User) -> Iterator[Client]:
    client = Client()
    client.force_login(alice)
    yield client
    impersonation._names.clear()


@contextmanager
def no_user_is_queried() -> Iterator[None]:
    with CaptureQueriesContext(connection) as queries:
        yield
    assert not [each for each in queries.captured_queries if '"auth_user"' in each["sql"]]


def user(who: User) -> Actor:
    return Actor(str(who.pk), "user", who.username)


def acting(who: User, customer: User) -> Actor:
    return Actor(str(who.pk), "user", who.username, str(customer.pk), customer.username)


def account(who: User) -> Target:
    return Target("auth.User", str(who.pk))


def test_a_hijacked_account_is_used_by_who_hijacked_it(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    audit.clear()
    with HIJACK:
        assert staff.post("/hijack/acquire/", {"user_pk": zoe.pk}).status_code == 302
        begun = audit.one(action="IMPERSONATE")
        assert (begun.event_name, begun.actor) == ("user.impersonate.begin", user(alice))
        assert (begun.target, begun.outcome) == (account(zoe), "success")
        assert not audit.find(action="LOGIN")
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == acting(alice, zoe)
        audit.clear()
        assert staff.post("/hijack/release/").status_code == 302
        ended = audit.one(action="IMPERSONATE")
        assert (ended.event_name, ended.actor, ended.target) == (
            "user.impersonate.end",
            user(alice),
            account(zoe),
        )
        assert not audit.find(action="LOGIN")
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == user(alice)


def test_what_the_hijacking_request_itself_writes_is_the_staffs(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    from django.contrib.auth.signals import user_logged_in
    from hijack.signals import hijack_started

    from tests.instrumentation.django.clinic.urls import record

    def receive(**kwargs: Any) -> None:
        record()

    signals = (user_logged_in, hijack_started)
    for signal in signals:
        signal.connect(receive)
    try:
        with HIJACK:
            staff.post("/hijack/acquire/", {"user_pk": zoe.pk})
    finally:
        for signal in signals:
            signal.disconnect(receive)
    assert [each.actor for each in audit.find(event_name="clinic.note")] == [acting(alice, zoe)] * 2


def test_a_view_derived_from_hijacks_that_does_not_say_so_is_recorded_as_a_login(
    audit: CapturedAudit, staff: Client, zoe: User
) -> None:
    audit.clear()
    with HIJACK:
        staff.post("/hijack-quietly/", {"user_pk": zoe.pk})
    login = audit.one(action="LOGIN")
    assert (login.actor, login.target) == (user(zoe), account(zoe))
    assert not audit.find(action="IMPERSONATE")


def test_who_hijacks_from_a_hijacked_account_is_still_who_acts(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    boss = User.objects.create_superuser("boss", "b@example.org", "x")
    with HIJACK:
        staff.post("/hijack/acquire/", {"user_pk": boss.pk})
        staff.post("/hijack/acquire/", {"user_pk": zoe.pk})
        assert [(each.actor, each.target) for each in audit.find(action="IMPERSONATE")] == [
            (user(alice), account(boss)),
            (user(alice), account(zoe)),
        ]
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == acting(alice, zoe)
        staff.post("/hijack/release/")
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == acting(alice, boss)


def test_a_logout_from_a_hijacked_account_is_of_who_hijacked_it(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    with HIJACK:
        staff.post("/hijack/acquire/", {"user_pk": zoe.pk})
        staff.post("/logout/")
    logout = audit.one(action="LOGOUT")
    assert (logout.actor, logout.target) == (acting(alice, zoe), account(zoe))


def test_only_ids_are_known_of_a_hijack_where_nobody_asks_for_the_user_or_in_another_process(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    with HIJACK:
        staff.post("/hijack/acquire/", {"user_pk": zoe.pk})
    impersonation._names.clear()
    elsewhere = Client()
    elsewhere.cookies = staff.cookies
    with override_settings(ROOT_URLCONF=URLS, MIDDLEWARE=[_SESSIONS, _AUTH]), no_user_is_queried():
        elsewhere.get("/visited/")
    assert audit.one(event_name="clinic.note").actor == Actor(str(alice.pk), "user", on_behalf_of=str(zoe.pk))


def test_an_impersonated_user_is_acted_for_by_who_impersonates(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    with IMPERSONATE:
        staff.get(f"/impersonate/{zoe.pk}/")
        begun = audit.one(action="IMPERSONATE")
        assert (begun.event_name, begun.actor, begun.target) == (
            "user.impersonate.begin",
            user(alice),
            account(zoe),
        )
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == acting(alice, zoe)
        audit.clear()
        staff.get("/impersonate/stop/")
        ended = audit.one(action="IMPERSONATE")
        assert (ended.event_name, ended.actor, ended.target) == (
            "user.impersonate.end",
            user(alice),
            account(zoe),
        )
        audit.clear()
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor == user(alice)


def test_a_session_key_of_ones_own_says_who_really_acts(
    instrumented: Instrumented, staff: Client, alice: User, zoe: User
) -> None:
    client = Client()
    client.force_login(zoe)
    with instrumented(context=ContextConfig(impersonator_session_key="support_id")) as audit:
        for value, actor in (
            (alice.pk, Actor(str(alice.pk), "user", "", str(zoe.pk), "zoe")),
            ([str(alice.pk), "77"], Actor(str(alice.pk), "user", "", str(zoe.pk), "zoe")),
            ("", user(zoe)),
            (zoe.pk, user(zoe)),
            ({"odd": 1}, user(zoe)),
        ):
            session = client.session
            session["support_id"] = value
            session.save()
            audit.clear()
            client.get("/known/")
            assert audit.one(event_name="clinic.note").actor == actor


def test_somebody_authenticated_by_a_token_is_not_whom_the_session_tells_of(
    audit: CapturedAudit, staff: Client, alice: User, zoe: User
) -> None:
    with HIJACK:
        staff.post("/hijack/acquire/", {"user_pk": zoe.pk})
        audit.clear()
        staff.get("/as-another/")
    assert audit.one(event_name="clinic.note").actor.on_behalf_of == ""


def test_a_user_of_the_applications_that_is_no_user_object_changes_nothing(
    audit: CapturedAudit, staff: Client, alice: User
) -> None:
    with override_settings(ROOT_URLCONF=URLS):
        for odd in ("text", "lazy", "broken", "anonymous"):
            audit.clear()
            staff.get(f"/odd/{odd}/")
            assert audit.one(event_name="clinic.note").actor == user(alice)


def test_roles_are_recorded_where_that_is_asked_for_and_never_queried(
    instrumented: Instrumented, staff: Client, alice: User, zoe: User
) -> None:
    zoe.groups.add(Group.objects.create(name="ops"), Group.objects.create(name="billing"))
    zoe.is_staff = True
    zoe.save()
    other = Client()
    other.force_login(zoe)
    with instrumented() as audit:
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor.roles == ""
    with instrumented(context=ContextConfig(actor_roles=True)) as audit, override_settings(ROOT_URLCONF=URLS):
        staff.get("/known/")
        assert audit.one(event_name="clinic.note").actor.roles == "staff,superuser"
        audit.clear()
        other.get("/known/")
        assert audit.one(event_name="clinic.note").actor.roles == "staff"
        audit.clear()
        other.get("/prefetched/")
        assert audit.one(event_name="clinic.note").actor.roles == "staff,group:billing,group:ops"
        audit.clear()
        assert staff.post("/logout/").status_code == 302
        assert audit.one(action="LOGOUT").actor.roles == "staff,superuser"


def test_nobody_listens_to_the_packages_any_more_afterwards(
    instrumented: Instrumented, staff: Client, zoe: User
) -> None:
    from hijack.signals import hijack_started

    before = len(hijack_started.receivers)
    with instrumented():
        assert len(hijack_started.receivers) == before + 1
    assert len(hijack_started.receivers) == before
