"""Headers and bodies are recorded by level, as far as the application has read them, and without secrets."""

from __future__ import annotations

import http.client
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from otel_audit.config.sections.policy import PolicyRule
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.service import ANSWER, CLIENTS, Client, Service

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)

REQUEST = PolicyRule(kind="outgoing", path="*", level="request")
BOTH = PolicyRule(kind="outgoing", path="*", level="request_response")
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer s3cret-bearer",
    "Cookie": "session=s3cret-cookie",
    "X-Api-Key": "s3cret-key",
    "X-Order": "7",
}
BODY = json.dumps({"order": 7, "password": "s3cret-password", "card": {"cvv": "s3cret-cvv"}}).encode()
URL = "/orders?page=2&access_token=s3cret-token"


def body_of(record: Any, name: str) -> Any:
    value = record.attributes[name]
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


@each_client
def test_the_level_says_what_is_recorded_of_headers_and_bodies(client: Client, service: Service) -> None:
    for rules, request, response in (((), False, False), ((REQUEST,), True, False), ((BOTH,), True, True)):
        with recording(*rules) as captured:
            client("POST", f"{service.url}{URL}", BODY, HEADERS)
        [record] = captured.records
        names = record.attributes.keys()
        assert ("request.body" in names, "response.body" in names) == (request, response)
        assert ("http.request.header.x-order" in names) is request
        assert ("http.response.header.content-type" in names) is response
        if request:
            assert record.attributes["http.request.header.x-order"] == "7"
            assert body_of(record, "request.body")["order"] == 7
        if response:
            assert body_of(record, "response.body")["answer"] == ANSWER["answer"]


@each_client
@pytest.mark.parametrize("path", ["/gzip", "/chunked"])
def test_a_body_is_what_the_application_got(client: Client, service: Service, path: str) -> None:
    with recording(BOTH) as captured:
        client("GET", f"{service.url}{path}")
    [record] = captured.records
    assert body_of(record, "response.body")["answer"] == ANSWER["answer"]


@each_client
def test_no_secret_is_recorded(client: Client, service: Service) -> None:
    with recording(BOTH) as captured:
        credentials = service.url.replace("//", "//mara:s3cret-user@")
        for path in (URL, "/gzip?token=s3cret-token", "/chunked", "/to/orders?api_key=s3cret-token"):
            client("POST", f"{service.url}{path}", BODY, HEADERS)
            if client.__name__ not in ("by_http_client", "by_urllib"):  # which take no credentials there
                client("POST", f"{credentials}{path}", BODY, {"Content-Type": "application/json"})
        captured.assert_no_secrets("s3cret")
        assert len(captured) == len(service.requests) >= 4
        spool = captured.pipeline.spool.lock
        assert spool is not None
        kept = b"".join(each.read_bytes() for each in Path(spool.path).rglob("*") if each.is_file())
        assert b"http.client.request" in kept
        assert b"s3cret" not in kept


@each_client
def test_a_body_beyond_its_limit_is_cut(client: Client, service: Service) -> None:
    with recording(BOTH, max_request_body=1000, max_response_body=500) as captured:
        answer = client(
            "POST", f"{service.url}/large/100000", b"yes or no " * 5000, {"Content-Type": "text/plain"}
        )
    assert len(answer.body) == 100_000
    [record] = captured.records
    assert len(record.attributes["request.body"]) <= 1000
    assert len(record.attributes["response.body"]) <= 500
    assert record.attributes["http.request.body.size"] == 50_000
    assert record.attributes["http.response.body.size"] == 100_000
    assert "request.body.cut" in record.attributes
    assert "response.body.cut" in record.attributes


@each_client
def test_a_rule_says_whose_bodies_are_recorded(client: Client, service: Service) -> None:
    rules = [
        PolicyRule(kind="outgoing", path="/health", level="none"),
        PolicyRule(kind="outgoing", path="/orders*", status=404, level="request_response"),
        PolicyRule(
            kind="outgoing",
            host="127.0.0.1",
            method="POST",
            path="/orders*",
            level="request",
            bodies=False,
            slug="orders",
            event_code="O1",
            event_type="call",
            system="fulfilment",
        ),
    ]
    with recording(*rules) as captured:
        client("GET", f"{service.url}/health")
        client("POST", f"{service.url}/orders", BODY, HEADERS)
        client("GET", f"{service.url}/other")
    ordered, other = captured.records
    assert (ordered.slug, ordered.event_code, ordered.event_type, ordered.system) == (
        "orders",
        "O1",
        "call",
        "fulfilment",
    )
    assert "http.request.header.x-order" in ordered.attributes
    assert "request.body" not in ordered.attributes
    assert (other.slug, "http.request.header.x-order" in other.attributes) == ("", False)


def peak_of(client: Client, url: str, body: bytes) -> int:
    """Return how many bytes a call takes at most."""
    tracemalloc.start()
    client("POST", url, body, {"Content-Type": "text/plain"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@each_client
@pytest.mark.parametrize("size", [5_000_000, pytest.param(100_000_000, marks=pytest.mark.attack)])
def test_large_bodies_take_no_memory_of_ours(client: Client, service: Service, size: int) -> None:
    body, url = b"this or that " * (size // 13), f"{service.url}/large/{size}"
    without = peak_of(client, url, body)
    with recording(BOTH) as captured:
        assert peak_of(client, url, body) < without + 1_000_000
    [record] = captured.records
    assert record.attributes["http.request.body.size"] == len(body)
    assert record.attributes["http.response.body.size"] == size
    assert len(record.attributes["request.body"]) < 20_000
    assert len(record.attributes["response.body"]) < 20_000


class Pieces:
    """An upload of which somebody might take pieces that are the application's to give."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(3):
            self.taken += 1
            yield b"s3cret piece"


def test_an_upload_piece_by_piece_is_not_copied(service: Service) -> None:
    pieces = Pieces()
    with recording(BOTH) as captured, requests.Session() as session:
        session.post(f"{service.url}/orders", data=iter(pieces), timeout=5)
        session.post(f"{service.url}/orders", data=io.BytesIO(b"s3cret file"), timeout=5)
        session.post(f"{service.url}/orders", files={"f": ("a.txt", b"s3cret upload")}, timeout=5)
    assert pieces.taken == 3
    assert service.bodies[:2] == [36, 11]
    generated, file, form = captured.records
    assert "request.body" not in generated.attributes
    assert "http.request.body.size" not in generated.attributes
    assert "request.body" not in file.attributes
    assert file.attributes["http.request.body.size"] == 11
    assert "s3cret" not in str(form.attributes)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_whoever_reads_piece_by_piece_gets_every_byte(service: Service, piece: int) -> None:
    with recording(BOTH) as captured:
        for path in ("/orders", "/chunked", "/gzip"):
            with requests.get(f"{service.url}{path}", stream=True, timeout=5) as response:
                assert json.loads(b"".join(response.iter_content(piece))) == ANSWER
    assert [body_of(record, "response.body")["answer"] for record in captured] == ["granted"] * 3
    assert not any("response.state" in record.attributes for record in captured)


def test_whoever_reads_lines_gets_every_line(service: Service) -> None:
    with recording(BOTH) as captured:
        for path in ("/orders", "/chunked"):
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            assert json.loads(b"".join(response)) == ANSWER
            connection.close()
            connection.request("GET", path)
            response = connection.getresponse()
            buffer = bytearray(100)
            size = response.readinto(buffer)
            assert size > 0
            assert ANSWER["answer"].encode() in buffer[:size] + response.read1() + response.read()
            connection.close()
    assert [body_of(record, "response.body")["answer"] for record in captured] == ["granted"] * 4
