"""Each call to another service has one record, whatever client makes it."""

from __future__ import annotations

import json

import pytest

import otel_audit
from otel_audit.audit_record import Target
from otel_audit.testing import CapturedAudit
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.service import ANSWER, CLIENTS, Answer, Client, Service

pytestmark = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)


def test_a_call_is_recorded_once(client: Client, service: Service, captured: CapturedAudit) -> None:
    answer = client(
        "POST", f"{service.url}/orders?page=2", b'{"id": 7}', {"Content-Type": "application/json"}
    )
    assert answer == Answer(200, json.dumps(ANSWER).encode())
    [record] = captured.records
    assert (record.event_name, record.action, record.outcome) == ("http.client.request", "CALL", "success")
    assert (record.target, record.log, record.error) == (Target("http.host", "127.0.0.1"), "activity", "")
    assert 0 < record.attributes.pop("duration") < 60
    assert record.attributes == {
        "http.request.method": "POST",
        "url.full": f"{service.url}/orders?page=2",
        "server.address": "127.0.0.1",
        "server.port": service.port,
        "http.response.status_code": 200,
        "http.request.body.size": 9,
        "http.response.body.size": len(answer.body),
    }


def test_it_says_what_it_was_for(client: Client, service: Service, captured: CapturedAudit) -> None:
    with otel_audit.context(
        slug="pay-invoice", related=[Target("shop.Order", "7"), "shop.Invoice/3"], reason="due"
    ):
        client("GET", service.url)
    [record] = captured.records
    assert record.slug == "pay-invoice"
    assert record.related == [Target("shop.Order", "7"), Target("shop.Invoice", "3")]
    assert record.reason == "due"


@pytest.mark.parametrize("status", [400, 404, 503])
def test_an_answer_that_refuses_is_a_failure(
    client: Client, service: Service, captured: CapturedAudit, status: int
) -> None:
    assert client("GET", f"{service.url}/status/{status}").status == status
    [record] = captured.records
    assert (record.outcome, record.error) == ("failure", str(status))
    assert record.attributes["http.response.status_code"] == status


def test_each_hop_of_a_redirect_is_a_call(client: Client, service: Service, captured: CapturedAudit) -> None:
    assert client("GET", f"{service.url}/to/to/orders").status == 200
    assert [
        (each.attributes["url.full"].removeprefix(service.url), each.attributes["http.response.status_code"])
        for each in captured
    ] == [("/to/to/orders", 307), ("/to/orders", 307), ("/orders", 200)]
    assert {each.outcome for each in captured} == {"success"}


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/orders"), ("GET", "/empty"), ("PUT", "/empty")])
def test_an_answer_without_a_body_is_one(
    client: Client, service: Service, captured: CapturedAudit, method: str, path: str
) -> None:
    assert client(method, f"{service.url}{path}").body == b""
    [record] = captured.records
    assert (record.outcome, record.attributes["http.request.method"]) == ("success", method)
    assert "response.state" not in record.attributes


@pytest.mark.parametrize("path", ["/gzip", "/chunked"])
def test_how_an_answer_is_sent_makes_no_difference(
    client: Client, service: Service, captured: CapturedAudit, path: str
) -> None:
    assert json.loads(client("GET", f"{service.url}{path}").body) == ANSWER
    [record] = captured.records
    assert record.outcome == "success"
    assert record.attributes["http.response.body.size"] > 20
    assert "response.state" not in record.attributes


def test_ignored_hosts_are_not_recorded(client: Client, service: Service) -> None:
    with recording(ignore_hosts=[f"127.0.0.1:{service.port}"]) as captured:
        assert client("GET", service.url).status == 200
        assert not captured.records
        client("GET", service.url.replace("127.0.0.1", "localhost"))
        assert len(captured.records) == 1


def test_nothing_is_recorded_when_it_is_over(client: Client, service: Service) -> None:
    with recording() as captured:
        pass
    client("GET", service.url)
    assert not captured.records
