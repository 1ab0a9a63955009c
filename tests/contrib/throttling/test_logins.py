"""Logins: what is refused, what is counted, and that nobody is kept out of an account by others."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from tests.contrib.throttling import site
from tests.contrib.throttling.clock import Clock
from tests.contrib.throttling.conftest import Throttled
from tests.services import RedisServer

FAILED = {"number": 3, "timeframe": 300, "on": "login_failed"}
BY_ADDRESS = FAILED | {"number": 10, "by": ["address"]}


def sign_in(name: str, password: str, address: str = "192.0.2.1", path: str = "/sign-in/") -> int:
    form = {"name": name, "password": password}
    return Client().post(path, form, REMOTE_ADDR=address).status_code


def guesses(name: str, times: int, address: str = "192.0.2.1", path: str = "/sign-in/") -> list[int]:
    return [sign_in(name, "wrong horse", address, path) for _ in range(times)]


def test_who_guesses_is_refused_and_the_right_password_no_longer_tried(
    throttled: Throttled, alice: Any, clock: Clock
) -> None:
    with throttled(defaults=False, rules={"guesses": FAILED}) as audit:
        assert guesses("alice", 4) == [401, 401, 401, 429]
        assert sign_in("alice", "correct horse") == 429
        assert len(audit.find(event_name="user.login.failure")) == 3
        assert audit.find(event_name="user.login.success") == []
        refused = audit.find(event_name="http.request.throttled")
        audit.assert_no_secrets("horse")
        clock.move(601)
        assert sign_in("alice", "correct horse") == 200
    assert [each.attributes["throttling.limit"] for each in refused] == [3, 3]
    assert refused[0].attributes["throttling.rule"] == "guesses: 3 failed logins in 300 s by user and address"


def test_a_successful_login_does_not_count_as_a_failed_one(throttled: Throttled, alice: Any) -> None:
    with throttled(defaults=False, rules={"guesses": FAILED}):
        assert [sign_in("alice", "correct horse") for _ in range(10)] == [200] * 10
        assert guesses("alice", 4) == [401, 401, 401, 429]


def test_nobody_can_lock_an_account_from_any_number_of_addresses(throttled: Throttled, alice: Any) -> None:
    """Many addresses, one user: each is refused by itself, and the owner is let in from his own."""
    with throttled(defaults=False, rules={"guesses": FAILED, "address": BY_ADDRESS}):
        for number in range(1, 60):
            assert guesses("alice", 4, f"198.51.100.{number}")[-1] == 429
        assert sign_in("alice", "correct horse", "203.0.113.7") == 200


def test_one_address_cannot_try_a_password_on_many_accounts(throttled: Throttled, alice: Any) -> None:
    """One address, many users: none of them is tried thrice, and the address is refused all the same."""
    with throttled(defaults=False, rules={"guesses": FAILED, "address": BY_ADDRESS}):
        found = [sign_in(f"user{number}", "summer2026", "198.51.100.1") for number in range(30)]
        assert found == [401] * 10 + [429] * 20
        assert sign_in("alice", "correct horse", "203.0.113.7") == 200


def test_a_name_typed_otherwise_is_the_same_name(throttled: Throttled, alice: Any) -> None:
    with throttled(defaults=False, rules={"guesses": FAILED}):
        names = ["alice", "ALICE", " Alice ", "ａｌｉｃｅ"]
        assert [sign_in(name, "wrong horse") for name in names] == [401, 401, 401, 429]


@pytest.mark.parametrize("name", ["", "\x00", "a" * 100_000, "\ud800", "alice\n", "{}:*?["])
def test_whatever_is_typed_as_a_name_is_counted(throttled: Throttled, alice: Any, name: str) -> None:
    with throttled(defaults=False, rules={"guesses": FAILED}) as audit:
        found = []
        for _ in range(4):
            try:
                found.append(sign_in(name, "wrong horse"))
            except (UnicodeError, ValueError):  # the test client's, or the database's own
                return
        assert found == [401, 401, 401, 429]
        assert audit.pipeline.health.capture_failures == {}


def test_of_fifty_guesses_at_a_time_no_more_are_tried_than_may_fail(throttled: Throttled) -> None:
    """The place is taken before the password is checked, not when it has turned out to be wrong."""
    begin = threading.Barrier(20)
    seen: Counter[int] = Counter()

    def guess() -> None:
        from django.db import connection

        begin.wait()
        seen[sign_in("nobody", "wrong horse")] += 1
        connection.close()

    with throttled(defaults=False, rules={"guesses": FAILED}):
        threads = [threading.Thread(target=guess) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == Counter({401: 3, 429: 17})


def test_asynchronous_logins(throttled: Throttled, alice: Any) -> None:
    async def tries() -> list[int]:
        client = AsyncClient()
        wrong = {"name": "alice", "password": "wrong horse"}
        right = {"name": "alice", "password": "correct horse"}
        forms = [right, right, wrong, wrong, wrong, wrong, right]
        return [(await client.post("/sign-in-async/", form)).status_code for form in forms]

    with throttled(defaults=False, rules={"guesses": FAILED}):
        assert asyncio.run(tries()) == [200, 200, 401, 401, 401, 429, 429]


def test_the_view_of_the_login_may_say_it_by_itself(throttled: Throttled, alice: Any) -> None:
    with throttled(defaults=False):
        assert guesses("alice", 3, path="/strict-sign-in/") == [401, 401, 429]
        assert len(site.RUNS) == 2  # counted by address, it is refused before the view runs
        assert guesses("alice", 3, path="/sign-in/") == [401] * 3  # counted for that view alone


def test_successful_logins_can_be_too_many(throttled: Throttled, alice: Any) -> None:
    User.objects.create_user("bob", password="other horse")
    rules = {"often": {"number": 2, "timeframe": 3600, "on": "login", "by": ["user"]}}
    with throttled(defaults=False, rules=rules) as audit:
        assert [sign_in("alice", "correct horse") for _ in range(3)] == [200, 200, 429]
        assert sign_in("bob", "other horse") == 200
        assert len(audit.find(event_name="user.login.success")) == 3
        [refused] = audit.find(event_name="http.request.throttled")
    assert refused.attributes["throttling.rule"] == "often: 2 logins in 3600 s by user"
    assert Client().get("/").status_code == 200


def test_a_login_without_a_password_counts_as_well(throttled: Throttled, alice: Any) -> None:
    """As after single sign-on: what cannot be refused beforehand keeps the next one out."""
    with throttled(defaults=False):
        assert sign_in("alice", "correct horse", path="/strict-sign-in/") == 200
        assert sign_in("alice", "correct horse", path="/strict-sign-in/") == 429


def test_an_exempt_path_is_exempt_from_rules_for_logins(throttled: Throttled, alice: Any) -> None:
    with throttled(defaults=False, rules={"guesses": FAILED}, exempt=["/sign-in/"]):
        assert guesses("alice", 5) == [401] * 5


def test_no_name_and_no_address_stand_in_what_counts(
    throttled: Throttled, alice: Any, redis: RedisServer
) -> None:
    """A name may be a password, typed into the wrong field; and a Redis may be anybody's to look at."""
    with throttled(defaults=False, rules={"guesses": FAILED}, storage=redis.url, timeout=5):
        assert guesses("hunter2", 4) == [401, 401, 401, 429]
    with redis.client() as client:
        [key] = client.keys("*")
        assert re.fullmatch(rb"otel-audit:throttling:[0-9a-f]{32}", key)
        assert set(client.hgetall(key)) == {b"n", b"c", b"p"}


def test_outside_requests_nobody_is_refused(throttled: Throttled, alice: Any) -> None:
    from django.contrib.auth import authenticate

    with throttled(defaults=False, rules={"guesses": FAILED}):
        for _ in range(10):
            assert authenticate(username="alice", password="wrong horse") is None
        assert authenticate(username="alice", password="correct horse") == alice


def test_taking_it_off_leaves_authentication_as_it_was(throttled: Throttled) -> None:
    from django.contrib import auth
    from django.core.handlers import exception

    before = (auth._get_compatible_backends, exception.response_for_exception)  # type: ignore[attr-defined]
    with throttled():
        assert auth._get_compatible_backends is not before[0]  # type: ignore[attr-defined]
    after = (auth._get_compatible_backends, exception.response_for_exception)  # type: ignore[attr-defined]
    assert after == before
