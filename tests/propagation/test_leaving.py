"""What leaves the process: the signed context to the hosts configured, and nothing of it to anybody else."""

from __future__ import annotations

import asyncio
import http.client
import re
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpcore
import httpx
import pytest
import requests
import urllib3
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.propagate import inject

import otel_audit
from otel_audit.audit_context import AuditContext, ContextFields, enter_scope, leave_scope
from otel_audit.audit_record import Actor, Origin, Request
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.propagation import acceptance
from otel_audit.propagation.incoming import Accepted
from otel_audit.propagation.outgoing import initiator_of
from otel_audit.propagation.signed_context import NAME
from otel_audit.testing import capture_audit
from tests.propagation.servers import Listening, listening

SECRET = "a secret of the shop and of fulfilment"
Headers = dict[str, str]


class Session:
    """A request of mara."""

    def __init__(self, actor: Actor | None = None, origin: Origin | None = None) -> None:
        self.actor = actor or Actor("7", "user", "mara")
        self.origin = origin

    def fields(self) -> ContextFields:
        return ContextFields(actor=self.actor, request=Request(id="r1"), origin=self.origin)


def by_urllib(url: str, headers: Headers, proxy: str = "") -> None:
    handler = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {})
    urllib.request.build_opener(handler).open(urllib.request.Request(url, headers=headers)).close()


def by_http_client(url: str, headers: Headers, proxy: str = "") -> None:
    parts = urlsplit(url)
    for _ in range(3):
        through = urlsplit(proxy) if proxy else parts
        connection = http.client.HTTPConnection(through.hostname or "", through.port)
        connection.request("GET", parts.geturl() if proxy else parts.path or "/", headers=headers)
        response = connection.getresponse()
        connection.close()
        if response.status != 307:
            return
        parts = urlsplit(response.headers["Location"])


def by_urllib3(url: str, headers: Headers, proxy: str = "") -> None:
    pool: Any = urllib3.ProxyManager(proxy, retries=3) if proxy else urllib3.PoolManager()
    with pool:
        pool.request("GET", url, headers=headers)


def by_requests(url: str, headers: Headers, proxy: str = "") -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, headers=headers, proxies={"http": proxy, "https": proxy} if proxy else {})


def by_httpx(url: str, headers: Headers, proxy: str = "") -> None:
    with httpx.Client(proxy=proxy or None, trust_env=False, follow_redirects=True) as client:
        response = client.get(url, headers=headers)
        assert "eyJ" not in str(response.request.headers)


def by_httpx_async(url: str, headers: Headers, proxy: str = "") -> None:
    async def call() -> None:
        async with httpx.AsyncClient(proxy=proxy or None, trust_env=False, follow_redirects=True) as client:
            response = await client.get(url, headers=headers)
            assert "eyJ" not in str(response.request.headers)

    asyncio.run(call())


def by_aiohttp(url: str, headers: Headers, proxy: str = "") -> None:
    async def call() -> None:
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, headers=headers, proxy=proxy or None) as response,
        ):
            assert "eyJ" not in str(response.request_info.headers)

    asyncio.run(call())


CLIENTS = [by_urllib, by_http_client, by_urllib3, by_requests, by_httpx, by_httpx_async, by_aiohttp]
Client = Callable[..., None]
pytestmark = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)


@pytest.fixture
def ours() -> Iterator[Listening]:
    """A service of ours, which the configuration names."""
    with listening() as server:
        yield server


@pytest.fixture
def theirs() -> Iterator[Listening]:
    """A third party."""
    with listening() as server:
        yield server


@pytest.fixture
def mara() -> Iterator[None]:
    token = enter_scope(Session())
    yield
    leave_scope(token)


@pytest.fixture(autouse=True)
def started(ours: Listening, request: pytest.FixtureRequest) -> Iterator[None]:
    options = {"keys": {"k1": SECRET}, "propagate_to": [ours.host]} | getattr(request, "param", {})
    with capture_audit(AuditConfig(context=ContextConfig(**options), tenant="acme")):
        HttpClientsAuditInstrumentor().uninstrument()  # another test may have left it, with nothing to do
        HttpClientsAuditInstrumentor().instrument()
        try:
            yield
        finally:
            HttpClientsAuditInstrumentor().uninstrument()


def accepted(server: Listening, header: str | None) -> Accepted | None:
    accepts = acceptance(AuditConfig(context=ContextConfig(keys={"k1": SECRET}, audience=[server.host])))
    assert accepts is not None
    return accepts.accepted(header or "")


@pytest.mark.usefixtures("mara")
def test_a_configured_host_is_told_who_began_the_work(client: Client, ours: Listening) -> None:
    client(f"{ours.url}/orders", {"X-Own": "kept"})
    [header] = ours.baggage
    assert header is not None
    assert len(header) <= 512
    assert accepted(ours, header) == Accepted(Origin("7", "", "r1"), "user", "acme")
    assert ours.headers[0]["x-own"] == "kept"


@pytest.mark.usefixtures("mara")
def test_baggage_of_the_application_stays_and_ours_is_there_once(client: Client, ours: Listening) -> None:
    client(ours.url, {"Baggage": f"a=1;p=2,{NAME}=forged, audit.actor.id=8 ,b=c%20d"})
    [header] = ours.baggage
    assert header is not None
    assert re.fullmatch(rf"a=1;p=2,b=c%20d,{NAME}=[^,|]+", header)
    assert accepted(ours, header) is not None


@pytest.mark.usefixtures("mara")
def test_no_other_host_is_told_anything(client: Client, theirs: Listening) -> None:
    client(theirs.url, {})
    client(theirs.url, {"baggage": "a=1"})
    client(theirs.url, {"baggage": f"a=1,{NAME}=x.y.z,audit.actor.id=7"})
    client(theirs.url, {"baggage": f"{NAME}=x.y.z"})
    client(theirs.url.replace("127.0.0.1", "localhost"), {})
    assert theirs.baggage == [None, "a=1", "a=1", None, None]
    assert "eyJ" not in str(theirs.headers)


@pytest.mark.usefixtures("mara")
def test_a_redirect_to_another_host_does_not_carry_it(
    client: Client, ours: Listening, theirs: Listening
) -> None:
    client(f"{ours.url}/to/{theirs.url}/end", {})
    client(f"{theirs.url}/to/{ours.url}/end", {"baggage": "a=1"})
    assert [header is not None and NAME in header for header in ours.baggage] == [True, True]
    assert theirs.baggage == [None, "a=1"]
    assert "eyJ" not in str(theirs.headers)


@pytest.mark.usefixtures("mara")
def test_a_proxy_that_reads_the_request_is_not_told(
    client: Client, ours: Listening, theirs: Listening
) -> None:
    """Over plain HTTP a proxy sees all headers; over TLS the CONNECT before it carries none of ours."""
    client(ours.url, {}, proxy=theirs.url)
    if client is not by_http_client:
        with pytest.raises(Exception, match=r"(?i)502|proxy|gateway"):
            client(ours.url.replace("http:", "https:"), {}, proxy=theirs.url)
    assert theirs.headers
    assert set(theirs.baggage) == {None}
    assert "eyJ" not in str(theirs.headers)


@pytest.mark.usefixtures("mara")
@pytest.mark.parametrize(
    "started", [{"propagate_to": ["127.0.0.1", "fulfilment.internal:8001"]}], indirect=True
)
def test_through_a_proxy_of_ours_the_service_behind_it_is_told(client: Client, theirs: Listening) -> None:
    client("http://fulfilment.internal:8001/orders", {}, proxy=theirs.url)
    client("http://elsewhere.example/orders", {}, proxy=theirs.url)
    told, untold = theirs.baggage
    accepts = acceptance(
        AuditConfig(context=ContextConfig(keys={"k1": SECRET}, audience=["fulfilment.internal:8001"]))
    )
    assert accepts is not None
    assert accepts.accepted(told or "") is not None, "it is for the service, not for the proxy"
    assert untold is None


def test_outside_any_work_nothing_is_told(client: Client, ours: Listening) -> None:
    client(ours.url, {})
    assert ours.baggage == [None]


@pytest.mark.usefixtures("mara")
def test_calls_that_are_not_to_be_instrumented_are_left_alone(client: Client, ours: Listening) -> None:
    """As OpenTelemetry's exporters make them, of spans of the very request."""
    with suppress_instrumentation():
        client(ours.url, {"baggage": "a=1"})
    assert ours.baggage == ["a=1"]


@pytest.mark.usefixtures("mara")
def test_calls_that_opentelemetry_has_a_span_for_tell_as_others_do(client: Client, ours: Listening) -> None:
    with suppress_http_instrumentation():  # as its instrumentations of requests and urllib3 do inside a call
        client(ours.url, {})
    assert accepted(ours, ours.baggage[0]) is not None


@pytest.mark.usefixtures("mara")
@pytest.mark.parametrize("started", [{"keys": {}}], indirect=True)
def test_without_a_key_nothing_is_told_and_the_call_goes_on(client: Client, ours: Listening) -> None:
    client(ours.url, {"baggage": "a=1"})
    assert ours.baggage == ["a=1"]


@pytest.mark.parametrize("actor", ["a\ud83db", "Müller, 7", "a\r\nb", "x" * 100, "x" * 600, "\x00"])
def test_an_actor_of_any_text_never_makes_a_call_fail(client: Client, ours: Listening, actor: str) -> None:
    with otel_audit.context(actor=Actor(actor, "user")):
        client(ours.url, {})
    [header] = ours.baggage
    found = accepted(ours, header)
    told = None if found is None or found.origin is None else found.origin.actor
    assert told == (None if len(actor) > 100 else actor.replace("\ud83d", "?")), "cut short, it is another's"


def test_a_scope_that_fails_harms_no_call(client: Client, ours: Listening) -> None:
    class Broken:
        def fields(self) -> ContextFields:
            raise RuntimeError("a bug of ours")

    token = enter_scope(Broken())
    try:
        client(ours.url, {"baggage": "a=1"})
    finally:
        leave_scope(token)
    assert ours.baggage == ["a=1"]


@pytest.mark.usefixtures("mara")
def test_a_header_that_would_become_too_long_is_left_alone(client: Client, ours: Listening) -> None:
    long = f"a={'x' * 8000}"
    client(ours.url, {"baggage": long})
    assert ours.baggage == [long]


@pytest.mark.usefixtures("mara")
def test_what_opentelemetry_injects_is_kept_beside_it(client: Client, ours: Listening) -> None:
    token = attach(baggage.set_baggage("theirs", "kept"))
    try:
        headers: Headers = {}
        W3CBaggagePropagator().inject(headers)
        inject(headers)
        client(ours.url, headers)
    finally:
        detach(token)
    [header] = ours.baggage
    assert header is not None
    assert header.startswith(f"theirs=kept,{NAME}=")


def test_after_uninstrumenting_every_client_is_as_before(client: Client, ours: Listening) -> None:
    HttpClientsAuditInstrumentor().uninstrument()
    for owner, name in (
        (http.client.HTTPConnection, "putrequest"),
        (http.client.HTTPConnection, "putheader"),
        (http.client.HTTPConnection, "endheaders"),
        (httpcore.ConnectionPool, "handle_request"),
        (httpcore.AsyncConnectionPool, "handle_async_request"),
        (aiohttp.ClientRequest, "send"),
    ):
        assert "otel_audit" not in getattr(owner, name).__module__
    token = enter_scope(Session())
    try:
        client(ours.url, {"baggage": "a=1"})
    finally:
        leave_scope(token)
    assert ours.baggage == ["a=1"]


@pytest.mark.parametrize(
    ("actor", "origin", "expected"),
    [
        (Actor("7", "user"), None, ("user", "7", "r1")),
        (Actor("3", "user", "", "7"), None, ("user", "3", "r1")),
        (Actor("shop.tasks.ship", "system"), None, ("system", "shop.tasks.ship", "r1")),
        (Actor(), None, ("", "", "r1")),
        (Actor("unknown"), None, ("", "", "r1")),
        (Actor("shop", "service", "", "7"), Origin("7", "", "r0"), ("user", "7", "r0")),
        (Actor("7", "user"), Origin("7", "", "r0"), ("user", "7", "r0")),
        (Actor("shop", "service"), Origin("close_day", "", ""), ("", "close_day", "")),
        (Actor("shop", "service"), Origin("", "", "r0"), ("", "", "r0")),
    ],
)
def test_who_began_the_work_is_passed_on_from_service_to_service(
    client: Client, actor: Actor, origin: Origin | None, expected: tuple[str, str, str]
) -> None:
    assert initiator_of(AuditContext(Session(actor, origin)).fields()) == expected


@pytest.mark.usefixtures("mara")
def test_a_call_from_another_thread_of_the_request_is_told_too(client: Client, ours: Listening) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client, ours.url, {}).result()
    [header] = ours.baggage
    assert accepted(ours, header) is not None
