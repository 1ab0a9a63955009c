"""What was captured, sorted by what it is about, with the parts of each by name."""

from __future__ import annotations

from typing import Any

import otel_audit
from otel_audit import Target
from otel_audit.testing import capture_audit
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401 - fixtures
    auditing,
    sqlite,
    sqlite_warehouse,
)
from tests.instrumentation.django.warehouse.models import Place, Supplier


def test_changes_have_model_id_fields_and_values(sqlite: str) -> None:  # noqa: F811
    with auditing() as audit:
        place = Place.objects.create(name="a")
        place.name = "b"
        place.save()
        Place.objects.bulk_create([Place(name="c"), Place(name="d")])
        Place.objects.all().delete()
        created, saved, many, *_, deleted = audit.changes
        assert (created.action, created.model, created.id) == (
            "CREATE",
            "warehouse.Place",
            str(place.pk or 1),
        )
        assert (saved.action, saved.fields, saved.old, saved.new) == (
            "UPDATE",
            ["name"],
            {"name": "a"},
            {"name": "b"},
        )
        assert (saved.count, saved.ids, saved.outcome) == (1, [created.id], "success")
        assert (many.count, many.new["name"], many.id) == (2, ["c", "d"], "")
        assert deleted.action == "DELETE"
        assert [*audit.reads, *audit.logins, *audit.requests] == []


def test_reads_have_model_ids_and_fields(sqlite: str) -> None:  # noqa: F811
    with auditing(reads=["warehouse.Supplier"]) as audit:
        supplier = Supplier.objects.create(name="a")
        list(Supplier.objects.only("name"))
        [read] = audit.reads
        assert (read.model, read.ids, read.count) == ("warehouse.Supplier", [str(supplier.pk)], 1)
        assert "name" in read.fields
        assert [change.model for change in audit.changes] == ["warehouse.Supplier"]


def test_logins_have_user_and_outcome() -> None:
    with capture_audit() as captured:
        otel_audit.login("7")
        otel_audit.login_failed("bob")
        otel_audit.logout("7")
    assert [(each.user, each.outcome) for each in captured.logins] == [("7", "success"), ("bob", "failure")]


def test_requests_have_all_their_parts() -> None:
    with capture_audit() as captured, otel_audit.context(related=[Target("shop.Order", "7")]):
        otel_audit.record(
            "http.server.request",
            "REQUEST",
            target=Target("http.route", "api/cards/<int:pk>"),
            attributes={
                "http.response.status_code": 201,
                "url.scheme": "https",
                "url.query": "page=2",
                "server.address": "shop.example",
                "server.port": 8443,
                "http.request.header.accept": "text/html",
                "http.response.header.content-type": "application/json",
                "http.request.body.size": 3,
                "http.response.body.size": 4,
                "request.body": {"a": 1},
                "response.body": "text",
                "duration": 0.25,
            },
        )
    [request] = captured.requests
    assert (request.status, request.scheme, request.host) == (201, "https", "shop.example:8443")
    assert (request.query, request.request_size, request.response_size) == ("page=2", 3, 4)
    assert request.request_headers == {"accept": "text/html"}
    assert request.response_headers == {"content-type": "application/json"}
    assert (request.request_body, request.response_body) == ({"a": 1}, "text")
    assert (request.duration, request.related) == (0.25, ["shop.Order/7"])
    assert (request.method, request.path, request.exception) == ("", "", "")
    assert [*captured.outgoing, *captured.changes] == []


def test_what_a_request_does_not_have_is_none_or_empty() -> None:
    with capture_audit() as captured:
        otel_audit.record("http.server.request", "REQUEST")
    [request] = captured.requests
    assert (request.status, request.request_body, request.response_body, request.duration) == (None,) * 4
    assert (request.host, request.query, request.target, request.related) == ("", "", "", [])
    assert request.request_headers == {}


def test_calls_commands_and_tasks_are_sorted() -> None:
    happened: list[tuple[str, str, Target, dict[str, Any]]] = [
        (
            "http.client.request",
            "CALL",
            Target("http.host", "api.example"),
            {"http.request.method": "POST", "url.full": "https://api.example/orders?page=2"},
        ),
        ("command.start", "EXECUTE", Target("command", "migrate"), {}),
        ("command.run", "EXECUTE", Target("command", "migrate"), {"arguments": ["--plan"], "output": "done"}),
        ("job.run", "EXECUTE", Target("job", "billing.nightly"), {"process.exit.code": 3}),
        ("task.publish", "PUBLISH", Target("shop.tasks.ship", "id-1"), {"task.state": "PENDING"}),
        ("task.start", "EXECUTE", Target("shop.tasks.ship", "id-1"), {}),
        ("task.retry", "EXECUTE", Target("shop.tasks.ship", "id-1"), {"task.state": "RETRY"}),
        ("task.run", "EXECUTE", Target("shop.tasks.ship", "id-1"), {"task.retries": 1, "task.result": 5}),
    ]
    with capture_audit() as captured:
        for name, action, target, attributes in happened:
            otel_audit.record(name, action, target=target, attributes=attributes)
    [call] = captured.outgoing
    assert (call.method, call.scheme, call.path, call.query) == ("POST", "https", "/orders", "page=2")
    migrate, billing = captured.commands
    assert (migrate.name, migrate.arguments, migrate.output, migrate.exit_code) == (
        "migrate",
        ["--plan"],
        "done",
        None,
    )
    assert (billing.name, billing.exit_code, billing.arguments) == ("billing.nightly", 3, [])
    [published] = captured.tasks_published
    assert (published.name, published.id, published.state) == ("shop.tasks.ship", "id-1", "PENDING")
    assert [(run.state, run.retries, run.result) for run in captured.tasks_run] == [
        ("RETRY", 0, None),
        ("", 1, 5),
    ]
    assert "CapturedPublish task.publish shop.tasks.ship/id-1 success" in repr(published)


def test_parts_are_cleared_with_the_records() -> None:
    with capture_audit() as captured:
        otel_audit.record("command.run", "EXECUTE")
        assert len(captured.commands) == 1
        captured.clear()
        assert captured.commands == []
