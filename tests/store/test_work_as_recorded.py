"""Work recorded by what records it in an application, as the store finds, counts and shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

import otel_audit
from otel_audit.audit_record import Target
from otel_audit.config.model import AuditConfig, RequestsConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from otel_audit.testing import capture_audit
from tests.trail import land

ORDER = Target("shop.Order", "7")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Pay an order, and bill its customer in a job of its own."""
    body = environ["wsgi.input"].read()
    otel_audit.relate(ORDER)
    otel_audit.annotate(slug="pay-invoice", event_code="S-12")
    otel_audit.record("shop.order.pay", "PAY", target=ORDER)
    with otel_audit.job("billing"):
        otel_audit.record("shop.customer.bill", "BILL", target=Target("shop.Customer", "1"))
    start_response("402 Payment Required", [("Content-Type", "application/json")])
    return [body]


@pytest.fixture(scope="module")
def store(client: StoreClient) -> Iterator[AuditStore]:
    rule = PolicyRule(path="/orders/*", level="request_response")
    with capture_audit(AuditConfig(requests=RequestsConfig(enabled=True), policy=[rule])) as captured:
        transport = httpx.WSGITransport(otel_audit.WSGIAuditMiddleware(application))
        with httpx.Client(transport=transport, base_url="http://shop.example") as browser:
            for _ in range(3):
                browser.post("/orders/7/", json={"card": "x", "lines": [1, 2]})
        records = [*captured.find()]
    land(client, [msgspec.structs.replace(each, sequence=None) for each in records])
    with AuditStore(client.config) as store:
        yield store


def test_requests_are_counted(store: AuditStore) -> None:
    assert store.count_requests() == 3
    assert store.count_requests(path="/orders/7/", method="post", status="4xx", slug="pay-invoice") == 3
    assert store.count_requests(status=402, since="1h") == 3
    assert store.count_requests(status="2xx,5xx") == 0
    first = store.query(kind="request").entries[0]
    assert store.count_requests(exclude=first.request_id) == 2


def test_a_request_is_found_by_the_object_it_named(store: AuditStore) -> None:
    found = store.related_to(ORDER, kind="request")
    assert [each.slug for each in found] == ["pay-invoice"] * 3
    assert {(each.work.status, each.path, each.log) for each in found} == {(402, "/orders/7/", "activity")}
    assert all(each.work.duration > 0 for each in found)
    record = store.get(found.entries[0].id)
    assert record is not None
    assert record.event_code == "S-12"
    assert json.loads(json.dumps(record.attributes["request.body"]))["lines"] == [1, 2]


def test_what_happened_in_a_request_is_a_tree(store: AuditStore) -> None:
    """Without a trace: the job below the request, and what it recorded below the job."""
    request = store.related_to(ORDER, kind="request").entries[0]
    trace = store.inside(request.request_id)
    [root] = trace.roots
    assert root.work is not None
    assert (root.work.id, [each.action for each in root.entries]) == (request.id, ["PAY"])
    [job] = root.children
    assert job.work is not None
    assert (str(job.work.target), job.work.parent) == ("job/billing", request.request_id)
    assert [each.action for each in job.entries] == ["BILL"]
