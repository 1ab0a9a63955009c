"""Who, where and how: scopes, overrides laid over them, and moments that resolve later."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN

from otel_audit.audit_context import (
    AuditContext,
    ContextFields,
    ProcessScope,
    context,
    current_context,
    current_fields,
    enter_context,
    enter_scope,
    leave_scope,
    moment,
    process_scope,
)
from otel_audit.audit_record import Actor, Request


class Session:
    """A scope whose actor can be exchanged, as a login does."""

    def __init__(self, actor: str) -> None:
        self.actor = actor

    def fields(self) -> ContextFields:
        return ContextFields(actor=Actor(self.actor, "user"), request=Request(id="r1"))


class Noticing(Session):
    """A scope that takes down who acts at the moment of the write."""

    def take_actor(self) -> object:
        return self.actor

    def fields(self, noticed: object = None) -> ContextFields:
        return ContextFields(actor=Actor(str(noticed or self.actor), "user"))


@pytest.fixture
def alice() -> Iterator[Session]:
    scope = Session("alice")
    token = enter_scope(scope)
    yield scope
    leave_scope(token)


def test_outside_any_scope_the_service_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_scope, "service", lambda: "shop")
    assert current_fields().actor == Actor("shop", "service")
    with context(reason="nightly"):
        assert current_fields().actor == Actor("shop", "service")


@pytest.mark.parametrize(
    ("argument", "actor"),
    [
        ("/srv/fix_prices.py", Actor("fix_prices.py", "system")),
        ("/usr/bin/gunicorn", Actor("unknown_service", "service")),
        ("/lib/uvicorn/__main__.py", Actor("unknown_service", "service")),
        ("-c", Actor("unknown_service", "service")),
        ("", Actor("unknown_service", "service")),
    ],
)
def test_where_nobody_named_the_service_a_script_acts_but_no_server(
    monkeypatch: pytest.MonkeyPatch, argument: str, actor: Actor
) -> None:
    scope = ProcessScope()
    monkeypatch.setattr("sys.argv", [argument])
    assert scope.fields().actor == actor
    scope.service = lambda: "shop"
    assert scope.fields().actor == Actor("shop", "service")


def test_a_script_that_only_starts_the_work_is_not_who_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumentor names those of its library."""
    scope = ProcessScope()
    scope.starters.add("manage.py")
    monkeypatch.setattr("sys.argv", ["/srv/manage.py", "runserver"])
    assert scope.fields().actor == Actor("unknown_service", "service")


def test_a_scope_says_who_acts_until_it_is_left() -> None:
    token = enter_scope(Session("alice"))
    assert current_fields().actor == Actor("alice", "user")
    leave_scope(token)
    assert current_fields().actor == process_scope.fields().actor


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
