"""Spans on their way out: everything in them is redacted, nothing else about them changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from otel_audit.redaction.spans.span_redactor import RedactingSpanExporter
from otel_audit.semconv import EventRecordId

CONTEXT = SpanContext(0xA, 0xB, is_remote=False)


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


class Spans:
    """A provider whose finished spans can be looked at raw."""

    def __init__(self, **kwargs: Any) -> None:
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(**kwargs)
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def one(self, name: str = "GET /orders", **kwargs: Any) -> ReadableSpan:
        with self.provider.get_tracer("tests", "1").start_as_current_span(name, **kwargs):
            pass
        return self.memory.get_finished_spans()[-1]


CLEAN: dict[str, Any] = {
    "http.request.method": "POST",
    "url.full": "https://shop.example/orders/7/?page=2",
    "http.response.status_code": 302,
    "db.query.text": "UPDATE auth_user SET password = %s WHERE id = %s",
    "gen_ai.usage.input_tokens": 12,
    "ratio": 0.5,
    "flag": True,
    "tags": ("a", "b"),
    "server.port": 8000,
}


def test_a_clean_span_is_the_same_object_again_and_again(redactor: Redactor) -> None:
    span = Spans().one(attributes=CLEAN, links=[Link(CONTEXT, {"a": "b"})])
    for _ in range(3):
        assert redactor.span(span) is span


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("http.request.header.authorization", ("Bearer hunter2",), ("[redacted]",)),
        ("http.request.header.cookie", ("sessionid=hunter2",), ("[redacted]",)),
        ("http.request.header.x-api-key", "hunter2", "[redacted]"),
        ("url.query", "token=hunter2&page=2", "token=[redacted]&page=2"),
        ("url.full", "https://bob:hunter2@h/?password=hunter2", "https://[redacted]@h/?password=[redacted]"),
        ("http.url", "https://h/?api_key=hunter2", "https://h/?api_key=[redacted]"),
        ("http.target", "/login?password=hunter2", "/login?password=[redacted]"),
        ("db.query.text", "UPDATE u SET password='hunter2'", "UPDATE u SET password='[redacted]'"),
        ("db.statement", "SELECT 1 WHERE token = 'hunter2'", "SELECT 1 WHERE token = '[redacted]'"),
        ("db.query.parameter.password", "hunter2", "[redacted]"),
        ("process.command_args", ("x", "--password", "hunter2"), ("x", "--password", "[redacted]")),
        ("payload", b'{"password": "hunter2"}', b'{"password":"[redacted]"}'),
        ("nested", {"a": {"token": "hunter2"}}, {"a": {"token": "[redacted]"}}),
        ("card", 4111111111111111, "[redacted]"),
    ],
)
def test_attributes_are_redacted_and_keep_their_shape(
    redactor: Redactor, name: str, value: Any, expected: Any
) -> None:
    span = Spans().one(attributes=CLEAN | {name: value})
    redacted = redactor.span(span)
    assert redacted.attributes is not None
    assert redacted.attributes[name] == expected
    assert {k: v for k, v in redacted.attributes.items() if k != name} == {
        k: v for k, v in CLEAN.items() if k != name
    }
    assert span.attributes is not None
    assert span.attributes[name] == value, "the original is for other processors to see"


def test_positional_parameters_go_with_the_statement_they_belong_to(redactor: Redactor) -> None:
    secret = {"db.statement": "UPDATE u SET password = %s", "db.statement.parameters": "('hunter2', 7)"}
    redacted = redactor.span(Spans().one(attributes=secret))
    assert redacted.attributes == secret | {"db.statement.parameters": "[redacted]"}
    clean = {"db.statement": "UPDATE u SET name = %s", "db.statement.parameters": "('Ann', 7)"}
    span = Spans().one(attributes=clean)
    assert redactor.span(span) is span


def test_name_status_events_links_and_exceptions_are_redacted(redactor: Redactor) -> None:
    spans = Spans(
        resource=Resource({"process.command_line": "serve --password hunter2", "service.name": "shop"})
    )
    tracer = spans.provider.get_tracer("tests")
    links = [Link(CONTEXT, {"token": "hunter2", "a": "b"})]
    with suppress(ValueError), tracer.start_as_current_span("GET /reset?token=hunter2", links=links) as span:
        span.add_event("token=hunter2", {"password": "hunter2", "a": 1}, timestamp=5)
        span.add_event("plain", {"a": 1})
        raise ValueError("bad password=hunter2")
    finished = spans.memory.get_finished_spans()[-1]
    redacted = redactor.span(finished)
    # The source line in this test's own traceback is not user data; everything else is looked at.
    assert "hunter2" not in redacted.name
    assert "hunter2" not in str(redacted.status.description)
    assert redacted.status.status_code is StatusCode.ERROR
    assert redacted.links[0].attributes == {"token": "[redacted]", "a": "b"}
    assert redacted.links[0].context is CONTEXT
    first, second, exception = redacted.events
    assert (first.name, first.attributes, first.timestamp) == (
        "token=[redacted]",
        {"password": "[redacted]", "a": 1},
        5,
    )
    assert second is finished.events[1]
    assert exception.attributes is not None
    assert exception.attributes["exception.message"] == "bad password=[redacted]"
    assert "password=[redacted]" in str(exception.attributes["exception.stacktrace"])
    assert redacted.resource.attributes["process.command_line"] == "serve --password [redacted]"
    assert redacted.resource.attributes["service.name"] == "shop"


def test_what_was_dropped_is_still_counted_and_everything_else_stays(redactor: Redactor) -> None:
    spans = Spans(span_limits=SpanLimits(max_attributes=2, max_events=1, max_links=1, max_event_attributes=1))
    links = [Link(CONTEXT, {"token": "hunter2"}), Link(CONTEXT, {"token": "hunter2"})]
    tracer = spans.provider.get_tracer("tests", "1.2", "https://schema")
    with tracer.start_as_current_span("x", links=links, kind=trace.SpanKind.CLIENT) as live:
        live.set_attributes({"a": 1, "b": 2, "token": "hunter2"})
        live.add_event("one", {"a": 1})
        live.add_event("two", {"a": 1, "token": "hunter2"})
        live.set_status(Status(StatusCode.ERROR, "token=hunter2"))
    span = spans.memory.get_finished_spans()[-1]
    redacted = redactor.span(span)
    assert redacted is not span
    for name in (
        "context",
        "parent",
        "kind",
        "start_time",
        "end_time",
        "resource",
        "instrumentation_scope",
        "dropped_attributes",
        "dropped_events",
        "dropped_links",
    ):
        assert getattr(redacted, name) == getattr(span, name), name
    assert (redacted.dropped_attributes, redacted.dropped_events, redacted.dropped_links) == (1, 1, 1)
    assert redacted.events[0].dropped_attributes == 1
    assert "hunter2" not in redacted.to_json()


def test_the_event_of_an_audit_record_is_left_as_it_was_made(redactor: Redactor) -> None:
    spans = Spans()
    with spans.provider.get_tracer("tests").start_as_current_span("x") as live:
        live.add_event("shop.order.update", {"audit.record.id": EventRecordId("1"), "session.id": "a hash"})
    span = spans.memory.get_finished_spans()[-1]
    assert redactor.span(span) is span


def test_an_event_of_the_application_that_names_a_record_is_redacted_like_any_other(
    redactor: Redactor,
) -> None:
    spans = Spans()
    with spans.provider.get_tracer("tests").start_as_current_span("x") as live:
        live.add_event(
            "password=hunter2", {"audit.record.id": "1", "password": "hunter2", "n": "token=hunter2"}
        )
    redacted = redactor.span(spans.memory.get_finished_spans()[-1])
    assert "hunter2" not in redacted.to_json()
    assert redacted.events[0].attributes is not None
    assert redacted.events[0].attributes["audit.record.id"] == "1"


TOKEN = "c8x2-9a7b"  # of no shape, under no name


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("accounts/reset/<uidb64>/<token>/", f"/accounts/reset/Mw/{TOKEN}/"),
        ("reset/<str:token>/", f"/app/reset/{TOKEN}/"),
        ("^reset/(?P<uid>[^/]+)/(?P<token>[^/]+)/$", f"/reset/Mw/{TOKEN}/"),
        ("api/<int:pk>/^x/(?P<api_key>[^/]+)/$", f"/api/7/x/{TOKEN}/"),
        ("/invite/{token}", f"/invite/{TOKEN}"),
        ("/files/{token}/x", f"/files/{TOKEN}/x"),
        ("/invite/:token/accept", f"/invite/{TOKEN}/accept"),
        ("reset/<token>/", f"/rewritten/by/a/proxy/{TOKEN}/"),
    ],
)
@pytest.mark.parametrize("form", ["new", "old"])
def test_the_sensitive_part_of_a_path_is_masked_in_every_text_of_the_span(
    redactor: Redactor, route: str, path: str, form: str
) -> None:
    attributes = {
        "http.route": route,
        "url.path" if form == "new" else "http.target": path,
        "url.full" if form == "new" else "http.url": f"https://shop.example{path}?page=2#top",
        "http.request.header.referer": f"https://shop.example{path}",
    }
    spans = Spans()
    with spans.provider.get_tracer("tests").start_as_current_span(
        f"GET {path}", attributes=attributes
    ) as live:
        live.add_event("seen", {"path": path})
        live.set_status(Status(StatusCode.ERROR, f"not found: {path}"))
    redacted = redactor.span(spans.memory.get_finished_spans()[-1])
    assert TOKEN not in redacted.to_json()
    assert redacted.attributes is not None
    assert redacted.attributes["http.route"] == route
    assert "page=2" in str(redacted.attributes["url.full" if form == "new" else "http.url"])


def test_a_path_whose_route_names_nothing_sensitive_stays(redactor: Redactor) -> None:
    span = Spans().one(attributes={"http.route": "orders/<int:pk>/", "url.path": "/orders/7/"})
    for _ in range(2):
        assert redactor.span(span) is span


def test_a_short_secret_of_a_path_is_masked_in_its_place_only(redactor: Redactor) -> None:
    redacted = redactor.span(
        Spans().one(attributes={"http.route": "pin/<pin>/7/", "url.path": "/pin/7/7/", "n": "7"})
    )
    assert redacted.attributes == {
        "http.route": "pin/<pin>/7/",
        "url.path": "/pin/[redacted]/[redacted]/",
        "n": "7",
    }


@pytest.mark.parametrize(
    "name",
    [
        "db.query.parameter.0",
        "db.query.parameter.1",
        "db.query.parameter.param_1",
        "db.operation.parameter.1",
        "db.statement.parameters",
    ],
)
@pytest.mark.parametrize("statement", ["db.query.text", "db.statement"])
def test_parameters_go_with_a_statement_that_names_a_sensitive_column(
    redactor: Redactor, statement: str, name: str
) -> None:
    clean = {statement: "UPDATE u SET name = %s", name: "hunter2"}
    span = Spans().one(attributes=clean)
    assert redactor.span(span) is span
    # Now both are known to be clean, the value too; what they are beside decides.
    secret = clean | {statement: "UPDATE u SET password = %s"}
    assert redactor.span(Spans().one(attributes=secret)).attributes == secret | {name: "[redacted]"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "db.query.text",
            "SELECT 1 FROM u WHERE (a, password) IN ((1, 'hunter2'))",
            "SELECT 1 FROM u WHERE (a, password) IN ((1, '[redacted]'))",
        ),
        (
            "db.query.text",
            "SELECT 1 /*route='%2Fx',token='hunter2'*/",
            "SELECT 1 /*route='%2Fx',token='[redacted]'*/",
        ),
        ("url.query", "next=%252F%253Ftoken%253Dhunter2", "next=%252F%253Ftoken%253D[redacted]"),
        ("url.query", "next=https%3A%2F%2Fbob%3Ahunter2%40h", "next=https%3A%2F%2F[redacted]%40h"),
        (
            "exception.message",
            "Key (token)=(hunter2) already exists.",
            "Key (token)=([redacted]) already exists.",
        ),
        (
            "nested",
            {"x token=hunter2": {"password=hunter2": "a"}},
            {"x token=[redacted]": {"password=[redacted]": "a"}},
        ),
    ],
)
def test_secrets_inside_the_values_of_attributes(
    redactor: Redactor, name: str, value: Any, expected: Any
) -> None:
    redacted = redactor.span(Spans().one(attributes={name: value}))
    assert redacted.attributes is not None
    if name == "nested":
        assert "hunter2" not in str(redacted.attributes)
    else:
        assert redacted.attributes[name] == expected


def test_keys_of_attributes_and_mappings_are_redacted_and_none_is_lost(redactor: Redactor) -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"
    redacted = redactor.span(Spans().one(attributes={jwt: "a", "b": 1}))
    assert redacted.attributes == {"[redacted]": "a", "b": 1}
    assert redactor.mapping({jwt: 1, jwt + "x": 2, "a": 3}) == {"[redacted]": 1, "[redacted] (2)": 2, "a": 3}
    assert redactor.mapping({"x token=hunter2": "y"}) == {"x token=[redacted]": "[redacted]"}


def test_attributes_of_the_scope_are_redacted(redactor: Redactor) -> None:
    provider = TracerProvider()
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("tests", "1.2", "https://schema", {"token": "hunter2", "a": "b"})
    tracer.start_span("x").end()
    scope = redactor.span(memory.get_finished_spans()[-1]).instrumentation_scope
    assert scope is not None
    assert dict(scope.attributes or {}) == {"token": "[redacted]", "a": "b"}
    assert (scope.name, scope.version, scope.schema_url) == ("tests", "1.2", "https://schema")


class Recording(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.calls: list[Any] = []
        self.endpoint = "http://collector"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        self.calls.append(("shutdown", timeout_millis))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.calls.append(("force_flush", timeout_millis))
        return False


def test_the_wrapped_exporter_behaves_as_the_one_inside(redactor: Redactor) -> None:
    inner = Recording()
    exporter = RedactingSpanExporter(inner, redactor)
    assert exporter.export([Spans().one(attributes={"token": "hunter2"})]) is SpanExportResult.FAILURE
    assert inner.spans[0].attributes == {"token": "[redacted]"}
    assert exporter.force_flush(7) is False
    exporter.shutdown(timeout_millis=8)
    assert inner.calls == [("force_flush", 7), ("shutdown", 8)]
    assert exporter.endpoint == "http://collector"
    RedactingSpanExporter(InMemorySpanExporter(), redactor).shutdown(timeout_millis=8)


def test_a_span_that_cannot_be_redacted_is_exported_without_its_content(
    redactor: Redactor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Recording()
    exporter = RedactingSpanExporter(inner, redactor)
    span = Spans().one("token=hunter2", attributes={"token": "hunter2"})
    monkeypatch.setattr(redactor, "text", lambda _: 1 / 0)
    exporter.export([span])
    assert inner.spans[0].context == span.context
    assert "hunter2" not in inner.spans[0].to_json()
    assert "could not be redacted" in caplog.text
