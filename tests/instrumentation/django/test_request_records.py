"""The record of each request to Django: what stands in it at which level, and what is never touched."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_audit
from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.config.model import RequestsConfig, SpanEventConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.project import Instrumented

EVENT = "http.server.request"
SECRET = "hunter2"
Recorded = Callable[..., AbstractContextManager[CapturedAudit]]

pytestmark = pytest.mark.usefixtures("recorded_urls")


@pytest.fixture
def recorded_urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.instrumentation.django.clinic.recorded_urls"):
        yield


@pytest.fixture
def recorded(instrumented: Instrumented) -> Recorded:
    """Instrument with requests recorded, by rules of the test's own."""

    @contextmanager
    def record(*rules: PolicyRule, **options: Any) -> Iterator[CapturedAudit]:
        context = options.pop("context", None)
        config = {"requests": RequestsConfig(enabled=True, **options), "policy": list(rules)}
        with instrumented(config=config, context=context) as captured:
            yield captured

    return record


@pytest.fixture
def audit(recorded: Recorded) -> Iterator[CapturedAudit]:
    with recorded() as captured:
        yield captured


def everything(**conditions: Any) -> PolicyRule:
    return PolicyRule(level="request_response", **(conditions or {"path": "*"}))


def request_of(captured: CapturedAudit) -> AuditRecord:
    return captured.one(event_name=EVENT)


def post(path: str, body: Any, **options: Any) -> Any:
    client = options.pop("client", None) or Client()
    return client.post(path, json.dumps(body), content_type="application/json", **options)


# --- what stands in it ---------------------------------------------------------------------------


def test_nothing_is_recorded_unless_it_is_switched_on(instrumented: Instrumented) -> None:
    with instrumented() as captured:
        Client().get("/missing/")
    assert not captured.find(event_name=EVENT)


def test_a_request_is_on_record_with_all_but_headers_and_bodies(audit: CapturedAudit) -> None:
    response = Client(headers={"user-agent": "Browser/1"}).post(
        "/cards/7/?page=2&token=hunter2",
        json.dumps({"password": SECRET, "note": "private"}),
        content_type="application/json",
        headers={"host": "clinic.example:8443"},
        secure=True,
    )
    record = request_of(audit)
    assert (record.action, record.outcome, record.log, record.error) == ("REQUEST", "success", "activity", "")
    assert record.target == Target("http.route", "cards/<int:pk>/")
    assert record.request.method == "POST"
    assert record.request.route == "cards/<int:pk>/"
    assert record.request.path == "/cards/7/"
    assert record.request.view == "tests.instrumentation.django.clinic.recorded_urls.card"
    assert record.source.id == "127.0.0.1"
    assert record.source.user_agent == "Browser/1"
    attributes = record.attributes
    assert attributes.pop("duration") > 0
    assert attributes == {
        "url.scheme": "https",
        "server.address": "clinic.example",
        "server.port": 8443,
        "url.query": "page=2&token=[redacted]",
        "http.response.status_code": 201,
        "http.request.body.size": 42,
        "http.response.body.size": len(response.content),
    }


def test_a_page_that_was_looked_at_is_in_the_log_of_page_views(audit: CapturedAudit) -> None:
    Client().get("/unread/")
    Client().post("/unread/")
    assert [record.log for record in audit.find(event_name=EVENT)] == ["pageview", "activity"]


@pytest.mark.parametrize("path", ["/cards/7/", "/unread/", "/streamed-in/", "/exported/"])
def test_a_request_that_is_on_record_is_let_go_of(recorded: Recorded, path: str) -> None:
    """Else it is kept, with its bodies, until Python looks for cycles; so do some middlewares of Django's."""
    known: list[weakref.ref[Any]] = []

    def know(*, environ: dict[str, Any], **_: Any) -> None:
        known.append(weakref.ref(environ["wsgi.input"]))

    def serve() -> None:
        body = json.dumps({"note": "private"})
        environ = RequestFactory().post(path, body, content_type="application/json").environ
        handler: Any = WSGIHandler()
        response = handler(environ, lambda *_: None)
        b"".join(response)
        response.close()

    with override_settings(MIDDLEWARE=[]), recorded(everything()) as captured:
        request_started.connect(know)
        gc.collect()
        gc.disable()
        try:
            serve()
            assert [reference() for reference in known] == [None]
        finally:
            gc.enable()
            request_started.disconnect(know)
    assert request_of(captured).outcome == "success"


def test_what_happens_inside_shares_request_id_and_trace(recorded: Recorded) -> None:
    DjangoInstrumentor().instrument(tracer_provider=TracerProvider())
    try:
        with recorded() as captured:
            Client().get("/cards/7/")
    finally:
        DjangoInstrumentor().uninstrument()
    inside, request = captured.one(event_name="clinic.note"), request_of(captured)
    assert request.request.id == inside.request.id
    assert request.trace_id == inside.trace_id != ""
    assert request.span_id == inside.span_id
    assert request.timestamp < inside.timestamp


@pytest.mark.parametrize(("content", "events"), [("summary", []), ("none", []), ("full", [EVENT])])
def test_the_span_of_a_request_has_its_record_only_where_that_says_more(
    instrumented: Instrumented, content: Any, events: list[str]
) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    DjangoInstrumentor().instrument(tracer_provider=provider)
    config = {"requests": RequestsConfig(enabled=True), "span_event": SpanEventConfig(content=content)}
    try:
        with instrumented(config=config) as captured:
            Client().get("/unread/?password=hunter2")
    finally:
        DjangoInstrumentor().uninstrument()
    [span] = spans.get_finished_spans()
    assert [event.name for event in span.events] == events
    for event in span.events:
        assert event.attributes is not None
        assert event.attributes["audit.record.id"] == request_of(captured).id
        assert "password=[redacted]" in str(event.attributes)
        assert "hunter2" not in str(event.attributes)


def test_the_user_of_the_request_is_its_actor(audit: CapturedAudit, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    client.get("/leaving/")
    record = request_of(audit)
    assert record.actor == Actor(str(alice.pk), "user", "alice"), "who logged out, not nobody"


def test_what_the_view_says_of_the_request_is_on_its_record(audit: CapturedAudit) -> None:
    Client().get("/annotated/7/")
    record = request_of(audit)
    assert (record.slug, record.event_code, record.attributes["ward"]) == ("said-inside", "E7", "north")
    assert record.related == [Target("clinic.Patient", "7"), Target("clinic.Patient", "8")]
    assert record.log == "activity", "it concerns somebody"


def test_an_answer_of_no_view_is_on_record_by_its_path(audit: CapturedAudit) -> None:
    Client().get("/nowhere/")
    record = request_of(audit)
    assert (record.target, record.outcome, record.error) == (
        Target("http.route", "/nowhere/"),
        "failure",
        "404",
    )


def test_what_is_secret_in_a_path_is_not_shown(audit: CapturedAudit) -> None:
    Client().get("/password/hunter2-hunter2/")
    assert request_of(audit).request.path == "/password/[redacted]/"
    audit.assert_no_secrets(SECRET)


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("testserver", "testserver", None),
        ("[::1]:8000", "::1", 8000),
        ("x:99999", "x", None),
        ("a" * 300, "a" * 255, None),
        ("<script>", "<script>", None),
    ],
)
def test_the_host_is_what_was_asked_for_even_if_it_is_nonsense(
    audit: CapturedAudit, host: str, address: str, port: int | None
) -> None:
    Client().get("/unread/", headers={"host": host})
    attributes = request_of(audit).attributes
    assert (attributes["server.address"], attributes.get("server.port")) == (address, port)


# --- exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_exception_that_nobody_handled_is_on_record(audit: CapturedAudit, asynchronous: bool) -> None:
    if asynchronous:
        client = AsyncClient(raise_request_exception=False)
        call: Any = client.post("/asynchronous/", '"boom"', content_type="application/json")
        assert asyncio.run(_awaited(call)).status_code == 500
    else:
        assert Client(raise_request_exception=False).get("/boom/").status_code == 500
    record = request_of(audit)
    assert (record.outcome, record.error) == ("failure", "LookupError")
    assert record.attributes["exception.type"] == "LookupError"
    assert "recorded_urls" in record.attributes["exception.stacktrace"]
    assert record.attributes["http.response.status_code"] == 500
    audit.assert_no_secrets(SECRET)


async def _awaited(call: Any) -> Any:
    return await call


def test_an_exception_that_is_an_answer_is_none(audit: CapturedAudit) -> None:
    assert Client().get("/missing/").status_code == 404
    record = request_of(audit)
    assert (record.error, record.attributes.get("exception.type")) == ("404", None)


def test_a_request_whose_transaction_was_rolled_back_is_on_record(recorded: Recorded) -> None:
    from django.db import connections

    settings = connections["default"].settings_dict
    settings["ATOMIC_REQUESTS"] = True
    try:
        with recorded() as captured:
            Client(raise_request_exception=False).get("/boom/")
    finally:
        settings["ATOMIC_REQUESTS"] = False
    assert not Group.objects.filter(name="never").exists()
    assert request_of(captured).error == "LookupError"


# --- headers and bodies --------------------------------------------------------------------------


def test_a_rule_that_names_the_path_has_headers_and_bodies_recorded(recorded: Recorded) -> None:
    with recorded(everything(path="/cards/*")) as captured:
        post(
            "/cards/7/",
            {"password": SECRET, "deep": [{"api_key": SECRET}], "note": "x"},
            headers={"authorization": f"Bearer {SECRET}", "x-kind": "a"},
        )
    attributes = request_of(captured).attributes
    assert attributes["http.request.header.x-kind"] == "a"
    assert attributes["http.request.header.authorization"] == "[redacted]"
    assert attributes["http.response.header.content-type"] == "application/json"
    assert attributes["request.body"] == {
        "password": "[redacted]",
        "deep": [{"api_key": "[redacted]"}],
        "note": "x",
    }
    assert attributes["response.body"]["card"] == 7
    captured.assert_no_secrets(SECRET)


def test_at_request_the_answer_is_not_recorded(recorded: Recorded) -> None:
    with recorded(PolicyRule(path="*", level="request")) as captured:
        post("/cards/7/", {"a": 1})
    attributes = request_of(captured).attributes
    assert attributes["request.body"] == {"a": 1}
    assert not any(name.startswith(("response.", "http.response.header")) for name in attributes)


def test_a_rule_may_ask_for_what_is_known_only_at_the_end(recorded: Recorded, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    rule = PolicyRule(path="*", status="4xx", level="request_response", slug="refused")
    with recorded(rule) as captured:
        client.get("/cards/7/")
        client.get("/missing/")
    fine, refused = captured.find(event_name=EVENT)
    assert (fine.slug, refused.slug) == ("", "refused")
    assert "http.response.header.content-type" in refused.attributes


def test_a_body_that_the_view_does_not_read_is_not_read_for_us(recorded: Recorded) -> None:
    seen: list[HttpRequest] = []

    def get_response(request: HttpRequest) -> HttpResponse:
        seen.append(request)
        return HttpResponse("early")

    with (
        override_settings(MIDDLEWARE=[f"{__name__}.Early"]),
        recorded(everything()) as captured,
    ):
        EARLY.answer = get_response
        post("/unread/", {"a": SECRET})
    assert request_of(captured).attributes.get("request.body") is None
    assert not hasattr(seen[0], "_body")
    assert seen[0].read(), "it is still there for whoever reads it"


class EARLY:
    """What the middleware answers before any view."""

    answer: Any = None


class Early:
    """A middleware that answers by itself."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return EARLY.answer(request)  # type: ignore[no-any-return]


def test_a_body_read_as_a_stream_is_recorded(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        assert post("/streamed-in/", {"note": "x", "password": SECRET}).json() == {"read": 2}
    assert request_of(captured).attributes["request.body"] == {"note": "x", "password": "[redacted]"}


def test_a_body_that_rest_framework_parsed_is_recorded(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        assert post("/parsing/", {"note": "x", "password": SECRET}).json()["got"]["password"] == SECRET
    attributes = request_of(captured).attributes
    assert attributes["request.body"] == {"note": "x", "password": "[redacted]"}
    assert attributes["response.body"] == {"got": {"note": "x", "password": "[redacted]"}}


def test_forms_are_recorded_by_field(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        Client().post("/form/", {"name": "x", "password": SECRET, "several": ["1", "2"]})
        Client().post("/form/", "name=y&password=hunter2", content_type="application/x-www-form-urlencoded")
    multipart, encoded = captured.find(event_name=EVENT)
    assert multipart.attributes["request.body"] == {
        "name": "x",
        "password": "[redacted]",
        "several": ["1", "2"],
    }
    assert encoded.attributes["request.body"] == {"name": "y", "password": "[redacted]"}


def test_of_an_upload_only_name_size_and_type_are_recorded(recorded: Recorded) -> None:
    content = b"hunter2 " * 500_000
    scan = SimpleUploadedFile("scan.png", content, content_type="image/png")
    with recorded(everything()) as captured:
        response = Client().post("/upload/", {"scan": scan, "ward": "north"})
    assert response.content == str(len(content)).encode()
    attributes = request_of(captured).attributes
    assert attributes["request.body"] == {
        "ward": "north",
        "scan": {"file": "scan.png", "type": "image/png", "size": len(content)},
    }
    captured.assert_no_secrets(SECRET)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ',
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"\xff\xfe\x00",
        "\ud800".encode("utf-8", "surrogatepass"),
        b'{"password": "hunter2", broken',
        b"",
    ],
    ids=["broken", "deep", "deep objects", "no utf-8", "surrogate", "broken with a secret", "empty"],
)
@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=utf-7", "; charset=nonsense"])
def test_no_body_costs_a_record_or_an_answer(recorded: Recorded, body: bytes, charset: str) -> None:
    with recorded(everything()) as captured:
        response = Client().generic("POST", "/form/", body, content_type=f"text/plain{charset}")
        assert response.status_code == 200
        client = Client(raise_request_exception=False)
        response = client.generic("POST", "/cards/7/", body, content_type=f"application/json{charset}")
        assert response.status_code in (201, 500), "as without us"
    assert len(captured.find(event_name=EVENT)) == 2
    captured.assert_no_secrets(SECRET)


def test_a_body_is_cut_to_its_limit_and_stays_json(recorded: Recorded) -> None:
    body = {"note": "n" * 50_000, "rows": list(range(20_000)), "last": True}
    with recorded(everything(), max_request_body=1000, max_response_body=0) as captured:
        post("/cards/7/", body)
    attributes = request_of(captured).attributes
    assert len(json.dumps(attributes["request.body"])) <= 1200
    assert attributes["request.body"]["note"].endswith("…")
    assert attributes["request.body.cut"]
    assert attributes["http.request.body.size"] == len(json.dumps(body))
    assert "response.body" not in attributes


def test_types_that_are_not_listed_are_not_recorded(recorded: Recorded) -> None:
    with recorded(everything(), content_types=["application/json"]) as captured:
        Client().post("/form/", "hunter2 is private", content_type="text/plain")
    attributes = request_of(captured).attributes
    assert "request.body" not in attributes
    assert "response.body" not in attributes
    assert attributes["http.request.body.size"] == 18


def test_a_compressed_answer_is_recorded_as_it_reads(recorded: Recorded) -> None:
    with (
        override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware"]),
        recorded(everything()) as captured,
    ):
        response = post("/cards/7/", {"note": "n" * 2000}, headers={"accept-encoding": "gzip"})
    assert json.loads(gzip.decompress(response.content))["card"] == 7
    assert request_of(captured).attributes["response.body"]["card"] == 7


def test_an_answer_that_is_rendered_late_is_recorded(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        response = Client().get("/template/")
    record = request_of(captured)
    assert record.attributes["http.response.body.size"] == len(response.content) > 0
    assert "response.body" in record.attributes


def test_a_login_is_never_more_than_metadata_unless_it_is_named(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        post("/password/abc-abc-abc/", {"a": 1})
    assert not any("header" in name or name == "body" for name in request_of(captured).attributes)


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_is_on_record_when_it_has_ended_and_without_its_body(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        response: Any = Client().get("/exported/")
        assert not captured.find(event_name=EVENT)
        assert b"".join(response.streaming_content) == b"one,hunter2\ntwo\n"
    record = request_of(captured)
    assert record.outcome == "success"
    assert record.request.id == captured.one(event_name="clinic.piece").request.id
    captured.assert_no_secrets(SECRET)


def test_a_stream_that_fails_is_a_failure(recorded: Recorded) -> None:
    with recorded() as captured:
        response: Any = Client().get("/exported/?fails=1")
        with pytest.raises(LookupError):
            b"".join(response.streaming_content)
    assert request_of(captured).error == "LookupError"


def test_a_stream_whose_client_is_gone_is_aborted(recorded: Recorded) -> None:
    with recorded() as captured:
        response: Any = Client().get("/exported/")
        next(iter(response.streaming_content))
        response.close()
    record = request_of(captured)
    assert (record.outcome, record.error) == ("failure", "aborted")


def test_events_without_an_end_are_never_held_back(recorded: Recorded) -> None:
    async def some() -> list[str]:
        response: Any = await AsyncClient().get("/events/")
        got = []
        async for event in response.streaming_content:
            got.append(event)
            if len(got) == 3:
                break
        await response.streaming_content.aclose()
        return got

    with recorded(everything()) as captured:
        assert len(asyncio.run(some())) == 3
    assert request_of(captured).error == "aborted"
    captured.assert_no_secrets(SECRET)


def test_a_file_is_on_record_by_its_size(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        response: Any = Client().get("/file/")
        assert b"".join(response.streaming_content) == b"hunter2" * 10
    assert request_of(captured).attributes["http.response.body.size"] == 70
    captured.assert_no_secrets(SECRET)


# --- which requests ------------------------------------------------------------------------------


def test_paths_and_addresses_may_be_ignored(recorded: Recorded) -> None:
    options = {"ignore_paths": ["/unread/*", "/form/"], "ignore_addresses": ["10.0.0.0/8", "fd00::/8"]}
    with recorded(**options) as captured:
        Client().get("/unread/")
        Client().get("/form/")
        Client(REMOTE_ADDR="10.1.2.3").get("/template/")
        Client(REMOTE_ADDR="fd00::7").get("/template/")
        Client(REMOTE_ADDR="").get("/template/")
        Client(REMOTE_ADDR="192.0.2.1").get("/cards/7/")
    assert [record.request.path for record in captured.find(event_name=EVENT)] == ["/template/", "/cards/7/"]
    assert captured.find(event_name="clinic.note"), "what happens inside is recorded as ever"


def test_an_address_that_a_client_claims_is_not_believed(recorded: Recorded) -> None:
    with recorded(ignore_addresses=["10.0.0.0/8"]) as captured:
        Client().get("/unread/", headers={"x-forwarded-for": "10.1.2.3"})
    assert request_of(captured).source.id == "127.0.0.1"


def test_a_level_of_none_makes_no_record(recorded: Recorded) -> None:
    with recorded(PolicyRule(path="/unread/", level="none")) as captured:
        Client().get("/unread/")
        Client().get("/template/")
    assert request_of(captured).request.path == "/template/"


@pytest.mark.parametrize("path", ["/exempt/", "/quiet/", "/class/", "/dispatched/", "/set/quiet/"])
def test_views_may_be_exempt(audit: CapturedAudit, path: str) -> None:
    assert Client().get(path).status_code == 200
    assert not audit.find(event_name=EVENT)


def test_a_rule_that_names_a_view_is_stronger_than_its_decorator(recorded: Recorded) -> None:
    with recorded(
        PolicyRule(view="*.exempt", level="metadata"), PolicyRule(method="*", level="none")
    ) as captured:
        Client().get("/exempt/")
        post("/marked/7/", {"a": 1})
    exempt, marked = captured.find(event_name=EVENT)
    assert exempt.request.path == "/exempt/"
    assert marked.attributes["request.body"] == {"a": 1}, "a rule that names no view is weaker"


@pytest.mark.parametrize(
    ("path", "slug"), [("/class/", "cards"), ("/set/", "set-list"), ("/function/", "function")]
)
def test_classes_view_sets_and_functions_of_rest_framework_may_be_marked(
    audit: CapturedAudit, path: str, slug: str
) -> None:
    if path == "/class/":
        Client().post(path)
    else:
        Client().get(path)
    assert request_of(audit).slug == slug


def test_a_decorator_says_all_there_is_to_say(audit: CapturedAudit) -> None:
    post("/marked/7/", {"note": "x", "password": SECRET})
    record = request_of(audit)
    assert (record.slug, record.event_type, record.event_code) == ("pay", "money", "P1")
    assert record.related == [Target("clinic.Bill", "7")]
    assert record.attributes["request.body"] == {"note": "x", "password": "[redacted]"}
    assert record.attributes["response.body"] == {"note": "x", "password": "[redacted]"}


def test_a_mixin_says_the_same(audit: CapturedAudit) -> None:
    post("/loud/north/", {"note": "x"})
    record = request_of(audit)
    assert (record.slug, record.related) == ("loud", [Target("clinic.Ward", "north")])
    assert record.attributes["response.body"] == {"note": "x"}


def test_a_hidden_body_is_never_recorded(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        post("/hidden/", {"note": "private note"})
    attributes = request_of(captured).attributes
    assert "http.request.header.content-type" in attributes
    assert "request.body" not in attributes
    assert "response.body" not in attributes


def test_slugs_of_the_rule_give_way_to_those_of_the_application(recorded: Recorded) -> None:
    with recorded(PolicyRule(path="*", level="metadata", slug="rule", system="billing")) as captured:
        Client().get("/annotated/7/")
        Client().post("/class/")
        Client().get("/unread/")
    records = captured.find(event_name=EVENT)
    assert [record.slug for record in records] == ["said-inside", "cards", "rule"]
    assert {record.system for record in records} == {"billing"}


# --- answers without a view, and odd requests ----------------------------------------------------


def test_a_csrf_failure_is_on_record_beside_the_denial(audit: CapturedAudit) -> None:
    assert Client(enforce_csrf_checks=True).post("/protected/", {"a": "1"}).status_code == 403
    assert request_of(audit).error == "403"
    assert audit.one(event_name="http.request.denied").request.id == request_of(audit).request.id


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_every_method_is_recorded(recorded: Recorded, method: str) -> None:
    with recorded(everything()) as captured:
        Client().generic(method, "/cards/7/")
    record = request_of(captured)
    assert record.request.method == method
    assert (record.log == "pageview") == (method in ("HEAD", "OPTIONS", "TRACE"))


def test_a_middleware_that_answers_first_is_recorded(recorded: Recorded) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Early"]), recorded() as captured:
        EARLY.answer = lambda request: HttpResponse(status=503)
        Client().get("/cards/7/")
    record = request_of(captured)
    assert (record.target, record.error) == (Target("http.route", "/cards/7/"), "503")


def test_the_intent_is_on_disk_before_the_view_runs_where_a_rule_asks_for_it(recorded: Recorded) -> None:
    """Another process would deliver it as `unknown`; in the end there is one record."""
    rules = [
        PolicyRule(view="*.spooled", method="GET", level="metadata", stages=["start", "end"], slug="both"),
        PolicyRule(path="/spooled/", level="none"),
    ]
    with recorded(*rules) as captured:
        assert Client().get("/spooled/").content == b"1"
        assert Client().post("/spooled/").content == b"0", "no intent of its own"
        assert Client().get("/nowhere/").status_code == 404
    first, last = captured.find(event_name=EVENT)
    assert (first.outcome, first.slug, first.request.path) == ("success", "both", "/spooled/")
    assert last.error == "404"


def test_the_intent_comes_before_a_coroutine_too(recorded: Recorded) -> None:
    with recorded(PolicyRule(path="*", level="metadata", stages=["start", "end"])) as captured:
        response = asyncio.run(_awaited(AsyncClient().get("/spooled-too/")))
    assert response.content == b"1"
    assert request_of(captured).outcome == "success"


# --- inside other applications -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi")
@pytest.mark.parametrize("how", ["asgi", "wsgi in asgi", "wsgi"])
def test_django_inside_another_application_makes_one_record_with_what_it_knows(
    recorded: Recorded, alice: Any, how: str
) -> None:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from starlette.middleware.wsgi import WSGIMiddleware

    client = Client()
    client.force_login(alice)
    headers = {
        "cookie": f"sessionid={client.cookies['sessionid'].value}",
        "content-type": "application/json",
        "host": "testserver",
    }
    with recorded(everything(view="*.card")) as captured:
        if how == "wsgi":
            wsgi = otel_audit.WSGIAuditMiddleware(WSGIHandler())
            with httpx.Client(transport=httpx.WSGITransport(app=wsgi), base_url="http://testserver") as web:
                response = web.post("/cards/7/", content=b'{"a": 1}', headers=headers)
        else:
            inner: Any = ASGIHandler() if how == "asgi" else WSGIMiddleware(WSGIHandler())
            app = otel_audit.ASGIAuditMiddleware(inner)

            async def ask() -> httpx.Response:
                transport = httpx.ASGITransport(app=app)
                async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as web:
                    return await web.post("/cards/7/", content=b'{"a": 1}', headers=headers)

            response = asyncio.run(ask())
    assert response.status_code == 201
    record = request_of(captured)
    assert record.target == Target("http.route", "cards/<int:pk>/")
    assert record.request.id == captured.one(event_name="clinic.note").request.id
    assert record.attributes["request.body"] == {"a": 1}
    assert record.attributes["http.response.status_code"] == 201
    if how == "asgi":
        assert record.attributes["response.body"]["card"] == 7
    else:  # Django's response comes in pieces there, and nothing here says its length
        assert "response.body" not in record.attributes


# --- faults of ours ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "otel_audit.http.contents.contents.Contents.headers",
        "otel_audit.http.contents.contents.Contents.body",
        "otel_audit.http.contents.contents.Contents.query",
        "otel_audit.http.requests.recording.marks_of",
        "otel_audit.http.requests.recording.asked_for",
        "otel_audit.http.requests.recording.RequestRecording._moment",
        "otel_audit.instrumentation.django.requests.records.DjangoRecords._watch_body",
    ],
)
def test_a_fault_of_ours_costs_no_answer_and_no_record(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault")

    with recorded(everything()) as captured:
        monkeypatch.setattr(place, broken)
        assert post("/cards/7/?a=1", {"a": 1}).status_code == 201
        monkeypatch.undo()
    record = request_of(captured)
    assert (record.outcome, record.attributes["http.response.status_code"]) == ("success", 201)


def test_a_request_that_cannot_be_described_costs_no_answer(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault")

    with recorded(PolicyRule(path="*", level="metadata", stages=["start", "end"])) as captured:
        monkeypatch.setattr("otel_audit.http.requests.rules.RequestRules.level", broken)
        assert Client().get("/unread/").status_code == 200
        monkeypatch.undo()
        assert captured.pipeline.health.capture_failures
    assert request_of(captured).outcome == "unknown", "what was known at the beginning is kept"
