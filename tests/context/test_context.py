"""Who, where and how: scopes, overrides laid over them, and moments that resolve later."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN

from otel_audit.context import (
    AuditContext,
    ContextFields,
    context,
    current_context,
    current_fields,
    enter_context,
    enter_scope,
    leave_scope,
    moment,
    process_scope,
)
from otel_audit.record import Actor, Request

# As an attribute of the package it is the function.
audit_context = importlib.import_module("otel_audit.context")


class Session:
    """A scope whose actor can be exchanged, as a login does."""

    def __init__(self, actor: str) -> None:
        self.actor = actor

    def fields(self) -> ContextFields:
        return ContextFields(actor=Actor(self.actor, "user"), request=Request(id="r1"))


class Noticing(Session):
    """A scope that takes down who acts at the moment of the write."""

    def notice(self) -> object:
        return self.actor

    def fields(self, noticed: object = None) -> ContextFields:
        return ContextFields(actor=Actor(str(noticed or self.actor), "user"))


@pytest.fixture
def alice() -> Iterator[Session]:
    scope = Session("alice")
    token = enter_scope(scope)
    yield scope
    leave_scope(token)


def test_outside_any_scope_the_process_acts() -> None:
    fields = current_fields()
    assert fields.actor.type == "system"
    assert fields.actor.id == process_scope.name != ""


def test_a_scope_says_who_acts_until_it_is_left() -> None:
    token = enter_scope(Session("alice"))
    assert current_fields().actor == Actor("alice", "user")
    leave_scope(token)
    assert current_fields().actor.type == "system"


def test_overrides_nest_and_merge_and_end(alice: Session) -> None:
    with context(reason="ticket 7", ticket=7), context(tenant="north", colour="blue"):
        fields = current_fields()
        assert fields.actor.id == "alice"
        assert (fields.reason, fields.tenant) == ("ticket 7", "north")
        assert fields.attributes == {"ticket": 7, "colour": "blue"}
        with context(reason="another"):
            assert current_fields().reason == "another"
    assert current_fields().reason == ""
    assert current_fields().attributes == {}


def test_an_actor_is_given_by_id_or_whole(alice: Session) -> None:
    with context(actor="bob"):
        assert current_fields().actor == Actor("bob", "user")
    with context(actor=Actor("billing", "service")):
        assert current_fields().actor.type == "service"


def test_acting_for_someone_keeps_who_acts(alice: Session) -> None:
    with context(on_behalf_of="carol"):
        assert current_fields().actor == Actor("alice", "user", on_behalf_of="carol")


def test_the_block_is_left_by_an_exception_as_well(alice: Session) -> None:
    with pytest.raises(ZeroDivisionError), context(reason="x"):
        raise ZeroDivisionError
    assert current_fields().reason == ""


def test_context_decorates_a_function(alice: Session) -> None:
    @context(reason="nightly")
    def job() -> str:
        return current_fields().reason

    assert job() == job() == "nightly"


def test_a_moment_resolves_when_asked_not_when_taken(alice: Session) -> None:
    taken = moment()
    alice.actor = "bob"
    assert taken.fields().actor.id == "bob"


def test_a_noticing_scope_remembers_who_acted_at_the_moment() -> None:
    scope = Noticing("alice")
    token = enter_scope(scope)
    taken = moment()
    scope.actor = "bob"
    assert taken.fields().actor.id == "alice"
    assert moment().fields().actor.id == "bob"
    with context(reason="later"):
        assert moment().fields().actor.id == "bob"
    leave_scope(token)


def test_a_moment_outlives_its_scope() -> None:
    token = enter_scope(Session("alice"))
    with context(reason="why"):
        taken = moment()
    leave_scope(token)
    assert taken.fields().actor.id == "alice"
    assert taken.fields().reason == "why"


def test_a_moment_takes_the_current_span() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        assert moment().span is span
    assert moment().span is INVALID_SPAN


def test_resumed_work_keeps_its_span_after_that_has_ended() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        pass
    token = enter_context(AuditContext(Session("alice"), span=span))
    assert moment().span is span
    with context(reason="x"):
        assert moment().span is span
    with tracer.start_as_current_span("other") as other:
        assert moment().span is other, "a span of the moment itself is the better one"
    leave_scope(token)


def test_threads_do_not_see_each_other(alice: Session) -> None:
    seen: list[AuditContext | None] = []
    thread = threading.Thread(target=lambda: seen.append(current_context()))
    thread.start()
    thread.join()
    assert seen == [None]
    copied = contextvars.copy_context()
    thread = threading.Thread(target=lambda: seen.append(copied.run(current_context)))
    thread.start()
    thread.join()
    assert seen[1] is current_context()


def test_tasks_do_not_see_each_other() -> None:
    async def work(name: str) -> str:
        token = enter_scope(Session(name))
        await asyncio.sleep(0)
        found = current_fields().actor.id
        leave_scope(token)
        return found

    async def both() -> list[str]:
        return await asyncio.gather(*(work(f"user{n}") for n in range(20)))

    assert asyncio.run(both()) == [f"user{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/srv/app/manage.py", "migrate", "--noinput"], "manage.py migrate"),
        (["/usr/bin/django-admin", "shell"], "django-admin shell"),
        (["/usr/bin/gunicorn", "shop.wsgi"], "gunicorn"),
        (["/srv/worker/__main__.py"], "worker"),
        ([""], "python"),
    ],
)
def test_the_process_is_named_by_what_was_started(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    assert audit_context.ProcessScope().name == expected
