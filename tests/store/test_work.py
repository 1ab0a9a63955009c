"""Requests, calls, commands, jobs and tasks in the store: found by what they are, with what a list says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from otel_audit.audit_record import AuditRecord, Request, Target
from otel_audit.errors import QueryError
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from otel_audit.store.work import Work
from tests.trail import land, record

AT: Final = 1_790_000_000 * 10**9
ORDER: Final = Target("shop.Order", "7")


def work(event: str, number: int, action: str = "EXECUTE", **values: Any) -> AuditRecord:
    return record(event, action, at=AT + number * 10**9, **{"log": "activity", **values})


REQUEST: Final = work(
    "http.server.request",
    1,
    "REQUEST",
    target=Target("http.route", "orders/<int:pk>/"),
    request=Request("r-1", "POST", "orders/<int:pk>/", "/orders/7/", "shop.views.pay"),
    related=[ORDER],
    slug="pay-invoice",
    attributes={"http.response.status_code": 201, "duration": 0.034, "request.body": {"status": "x"}},
)
VIEW: Final = work(
    "http.server.request",
    2,
    "REQUEST",
    log="pageview",
    request=Request("r-2", "GET", "orders/", "/orders/", "shop.views.list"),
    attributes={"http.response.status_code": 200},
)
CALL: Final = work(
    "http.client.request",
    3,
    "CALL",
    target=Target("http.host", "bank.example"),
    request=Request("r-1", "POST", "orders/<int:pk>/", "/orders/7/", "shop.views.pay"),
    related=[ORDER],
    attributes={"http.request.method": "PUT", "url.full": "https://bank.example/pay", "duration": 1.5},
)
COMMAND: Final = work(
    "command.run",
    4,
    outcome="failure",
    target=Target("command", "bill"),
    request=Request("c-1", view="shop.management.commands.bill", parent="r-1"),
    attributes={"process.exit.code": 2, "duration": 12},
)
JOB: Final = work("job.run", 5, target=Target("job", "nightly"), request=Request("j-1", parent="c-1"))
TASK: Final = work(
    "task.publish",
    6,
    "PUBLISH",
    target=Target("shop.tasks.ship", "5c1b"),
    request=Request("r-1", "POST", view="shop.views.pay"),
    attributes={"task.state": "PENDING", "task.queue": "orders", "duration": "long", "url.full": 7},
)
CHANGE: Final = record(
    "shop.order.update",
    "UPDATE",
    at=AT,
    target=ORDER,
    slug="pay-invoice",
    request=Request("c-1", view="shop.management.commands.bill", parent="r-1"),
    attributes={"duration": 5},
)
ALL: Final = (REQUEST, VIEW, CALL, COMMAND, JOB, TASK, CHANGE)


@pytest.fixture(scope="module")
def store(client: StoreClient) -> Iterator[AuditStore]:
    land(client, ALL)
    with AuditStore(client.config) as store:
        yield store


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"kind": "request"}, [VIEW, REQUEST]),
        ({"kind": "request", "log": "pageview"}, [VIEW]),
        ({"kind": "Outgoing,command"}, [COMMAND, CALL]),
        ({"kind": ["job", "task"]}, [TASK, JOB]),
        ({"kind": "request", "view": "shop.views.pay"}, [REQUEST]),
        ({"view": "shop.management.*", "log": "*"}, [COMMAND, CHANGE]),
        ({"slug": "pay-invoice"}, [CHANGE]),
        ({"slug": "pay-*", "log": "*"}, [REQUEST, CHANGE]),
        ({"parent": "r-1"}, [COMMAND, CHANGE]),
        ({"parent": "c-1"}, [JOB]),
        ({"related": "shop.Order/7", "log": "*"}, [CALL, REQUEST]),
        ({"kind": "request", "slug": "refund"}, []),
    ],
)
def test_work_is_found_by_what_it_is(store: AuditStore, asked: Any, found: list[AuditRecord]) -> None:
    """In whatever log it lies."""
    assert [each.id for each in store.query(**asked)] == [each.id for each in found]


def test_an_entry_says_how_work_ended(store: AuditStore) -> None:
    """Status, duration and state, whatever else the record carries; a change says nothing of the kind."""
    entries = {
        each.id: each for each in store.query(log="*", parts=("work", "path", "slug", "parent", "view"))
    }
    assert entries[REQUEST.id].work == Work(status=201, duration=0.034)
    assert (entries[REQUEST.id].path, entries[REQUEST.id].slug) == ("/orders/7/", "pay-invoice")
    assert entries[CALL.id].work == Work(duration=1.5, method="PUT", url="https://bank.example/pay")
    assert entries[COMMAND.id].work == Work(exit_code=2, duration=12)
    assert (entries[COMMAND.id].parent, entries[COMMAND.id].view) == ("r-1", "shop.management.commands.bill")
    assert entries[TASK.id].work == Work(state="PENDING", queue="orders", url="7")
    assert entries[JOB.id].work == Work()
    assert "work" not in entries[JOB.id].to_dict()


def test_each_is_rebuilt_as_it_was_made(store: AuditStore) -> None:
    """With what has a column of its own."""
    for each in ALL:
        assert store.get(each.id) == each


def test_related_records_are_found_by_the_object(store: AuditStore) -> None:
    """Those that name it beside their target, of all logs or of some."""
    for obj in (ORDER, "shop.Order/7"):
        assert [each.id for each in store.related_to(obj)] == [CALL.id, REQUEST.id]
    assert [each.id for each in store.related_to(ORDER, kind="outgoing")] == [CALL.id]
    assert [each.id for each in store.related_to(ORDER, since=CALL.timestamp)] == [CALL.id]
    assert not store.related_to(ORDER, log="audit").entries
    assert {each.id for each in store.history("shop.Order/7")} == {CALL.id, REQUEST.id, CHANGE.id}


@pytest.mark.parametrize("obj", [Target("shop.Order"), "shop.Order", "", object(), None])
def test_what_is_no_single_object_is_refused(store: AuditStore, obj: Any) -> None:
    with pytest.raises(QueryError, match="one saved object"):
        store.related_to(obj)


def test_an_unknown_kind_is_refused(store: AuditStore) -> None:
    with pytest.raises(QueryError, match="valid are request, outgoing, command, job, task"):
        store.query(kind="mail")
