"""Requests, calls, commands, jobs and tasks on the command line: one clear line each, or all of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Change, Request, Target
from otel_audit.store.client import StoreClient
from tests.cli.afternoon import ANA, ATTACK, at
from tests.cli.conftest import Command
from tests.trail import land, record, serving

TRACE: Final = "c" * 32
ORDER: Final = Target("shop.Order", "7")
VIEW: Final = Request("r-1", "POST", "orders/<int:pk>/", "/orders/7/", "shop.views.pay")
COMMAND: Final = Request("c-1", view="shop.management.commands.bill", parent="r-1")
EXCEPTION: Final = {
    "exception.type": "shop.Declined",
    "exception.message": "no money",
    "exception.stacktrace": "shop/views.py:12 in pay\n  charge(order)",
}


def work(event: str, action: str, second: int, request: Request, **values: Any) -> AuditRecord:
    values.setdefault("trace_id", TRACE)
    return record(event, action, at=at(second), log="activity", actor=ANA, request=request, **values)


REQUEST: Final = work(
    "http.server.request",
    "REQUEST",
    1,
    VIEW,
    target=Target("http.route", "orders/<int:pk>/"),
    outcome="failure",
    related=[ORDER],
    slug="pay-invoice",
    attributes={
        "http.response.status_code": 500,
        "duration": 0.0342,
        "http.request.body.size": 2048,
        "http.request.header.content-type": "application/json",
        "http.response.header.x-evil": ATTACK,
        "request.body": {"order": 7, "lines": [{"sku": "a", "note": ATTACK}]},
        "response.body": "first line\r\nsecond line" + ATTACK,
        "ticket": 42,
        **EXCEPTION,
    },
)
CALL: Final = work(
    "http.client.request",
    "CALL",
    2,
    VIEW,
    target=Target("http.host", "bank.example"),
    related=[ORDER],
    attributes={
        "http.request.method": "PUT",
        "url.full": "https://bank.example/pay",
        "http.response.status_code": 402,
        "duration": 12.25,
    },
)
STARTED: Final = work("command.start", "EXECUTE", 3, COMMAND, target=Target("command", "bill"))
CHANGED: Final = record(
    "shop.order.update",
    "UPDATE",
    at=at(4),
    actor=Actor("bill", "system"),
    target=ORDER,
    changes=[Change("status", "new", "billed")],
    request=COMMAND,
    trace_id=TRACE,
)
RAN: Final = work(
    "command.run",
    "EXECUTE",
    3,
    COMMAND,
    target=Target("command", "bill"),
    outcome="failure",
    attributes={
        "arguments": ["--all", "--password=[redacted]"],
        "process.exit.code": 2,
        "duration": 700,
        "output": "billing 1\nbilling 2" + ATTACK,
    },
)
PUBLISHED: Final = work(
    "task.publish",
    "PUBLISH",
    5,
    VIEW,
    target=Target("shop.ship", "5c1b"),
    attributes={"task.queue": "orders", "task.state": "PENDING"},
)
TASK: Final = work(
    "task.run",
    "EXECUTE",
    6,
    Request("t-1", view="shop.ship", parent="r-1"),
    target=Target("shop.ship", "5c1b"),
    trace_id="d" * 32,
    attributes={"task.queue": "orders", "task.state": "SUCCESS", "duration": 7500, "arguments": {"order": 7}},
)
HOSTILE: Final = work(
    "http.client.request",
    "CALL",
    7,
    Request(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK, ATTACK),
    target=Target(ATTACK, ATTACK),
    trace_id="e" * 32,
    slug=ATTACK,
    event_code=ATTACK,
    attributes={
        "http.request.method": ATTACK,
        "url.full": ATTACK,
        "task.queue": ATTACK,
        f"http.request.header.{ATTACK}": [ATTACK],
        "request.body": {ATTACK: ATTACK},
        "arguments": ATTACK,
        "output": ATTACK,
        "duration": ATTACK,
        ATTACK: ATTACK,
        **dict.fromkeys(EXCEPTION, ATTACK),
    },
)
JOB: Final = work(
    "job.run",
    "EXECUTE",
    8,
    Request("j-1"),
    target=Target("job", "nightly"),
    trace_id="",
    attributes={"duration": 1},
)
BILLED: Final = work("shop.bill", "BILL", 9, Request("j-1"), target=Target("shop.Bill", "1"), trace_id="")
ALL: Final = (REQUEST, CALL, STARTED, CHANGED, RAN, PUBLISHED, TASK, HOSTILE, JOB, BILLED)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("work")) as running:
        client = StoreClient(running.clickhouse)
        land(client, ALL)
        client.close()
        yield running.clickhouse


def test_each_has_a_line_that_says_what_it_was_and_how_it_ended(url: str, command: Command) -> None:
    lines = command("query", "--url", url, "--log", "*", "--trace-id", TRACE).out.splitlines()[1:]
    lines += command("query", "--url", url, "--kind", "task", "--outcome", "success").out.splitlines()[1:]
    found = {line.split()[6]: line for line in lines if line}
    assert found[REQUEST.id].endswith("POST /orders/7/  500  34 ms")
    assert found[CALL.id].endswith("PUT https://bank.example/pay  402  12.2 s")
    assert found[STARTED.id].endswith("started")
    assert found[RAN.id].endswith("exit code 2  12 min")
    assert found[PUBLISHED.id].endswith("published  queue orders")
    assert found[TASK.id].endswith("success  queue orders  2 h 5 min")
    table = command("query", "--url", url, "--kind", "request,command", width=160).out
    for word in ("POST /orders/7/", "500", "34 ms", "command/bill", "exit code 2", "✗ failure"):
        assert word in table


def test_one_record_shows_all_that_was_kept(url: str, command: Command) -> None:
    """Headers, bodies as JSON over several lines, arguments, output and exception."""
    shown = command("show", "--url", url, REQUEST.id).out
    lines = [line.rstrip() for line in shown.splitlines()]
    for line in (
        "Request headers",
        "  content-type: application/json",
        "Request body",
        '    "order": 7,',
        '        "sku": "a",',
        "  first line",
        "Exception",
        "  shop/views.py:12 in pay",
        "  shop.Declined: no money",
        "  slug          pay-invoice",
    ):
        assert line in lines, shown
    assert "34 ms" in shown
    assert "2.0 KiB" in shown
    assert "ticket" in shown
    ran = [line.rstrip() for line in command("show", "--url", url, RAN.id).out.splitlines()]
    assert ran[ran.index("Arguments") + 1 :][:4] == [
        "  [",
        '    "--all",',
        '    "--password=[redacted]"',
        "  ]",
    ]
    assert ran[ran.index("Output") + 1] == "  billing 1"
    assert any(line.split() == ["inside", "of", "r-1"] for line in ran)


def test_a_trace_is_a_tree_of_work_also_without_spans(url: str, command: Command) -> None:
    """The command below the request that called it, and the task below the request that published it."""
    found = [json.loads(line) for line in command("trace", "--url", url, TRACE, "--json").out.splitlines()]
    assert [(each["id"], each["depth"]) for each in found] == [
        (REQUEST.id, 0),
        (CALL.id, 1),
        (RAN.id, 1),
        (STARTED.id, 2),
        (CHANGED.id, 2),
        (PUBLISHED.id, 1),
        (TASK.id, 1),
    ]
    tree = command("trace", "--url", url, TRACE).out
    assert "REQUEST http.route/orders/<int:pk>/ by ana ✗ failure POST /orders/7/  500  34 ms" in tree
    assert "EXECUTE command/bill by ana ✗ failure exit code 2  12 min" in tree


def test_work_without_a_trace_is_shown_with_what_happened_in_it(url: str, command: Command) -> None:
    for number in (JOB.id, BILLED.id[-8:]):
        done = command("trace", "--url", url, number, "--json")
        found = [json.loads(line) for line in done.out.splitlines()]
        assert [(each["id"], each["depth"]) for each in found] == [(JOB.id, 0), (BILLED.id, 1)]
    assert "no trace" in command("trace", "--url", url, JOB.id).out


def test_comma_separated_values_have_what_a_line_says(url: str, command: Command) -> None:
    out = command(
        "query", "--url", url, "--kind", "request,outgoing,command", "--until", "2026-11-23T14:00:05", "--csv"
    ).out
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(out))}
    assert (rows[REQUEST.id]["method"], rows[REQUEST.id]["status"], rows[REQUEST.id]["path"]) == (
        *("POST", "500", "/orders/7/"),
    )
    assert (rows[CALL.id]["method"], rows[CALL.id]["url"]) == ("PUT", "https://bank.example/pay")
    assert (rows[RAN.id]["exit_code"], rows[RAN.id]["duration"], rows[RAN.id]["status"]) == ("2", "700.0", "")


def test_the_history_of_an_object_has_what_named_it(url: str, command: Command) -> None:
    history = command("history", "--url", url, "shop.Order/7").out
    assert re.findall("[0-9a-f]{8}-[-0-9a-f]{27}", history) == [REQUEST.id, CALL.id, CHANGED.id]
    blame = command("blame", "--url", url, "shop.Order/7").out
    assert "shop.management.commands.bill" in blame


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--kind", "outgoing"),
        ("query", "--kind", "outgoing", "--json"),
        ("query", "--kind", "outgoing", "--csv"),
        ("show", HOSTILE.id),
        ("show", HOSTILE.id, "--json"),
        ("show", REQUEST.id),
        ("show", RAN.id),
        ("trace", "e" * 32),
    ],
)
@pytest.mark.parametrize("width", [None, 90])
def test_nothing_in_a_record_acts_on_the_terminal(
    url: str, command: Command, arguments: tuple[str, ...], width: int | None
) -> None:
    done = command(*arguments, "--url", url, width=width)
    assert done.status == 0, done.err
    for attack in ("\x1b]0;", "\x1b[31m[bold]", "\x07", "\r", "\x9b", "\u202e", "\u200b"):
        assert attack not in done.out
    assert "pwned" in done.out


def test_a_kind_that_does_not_exist_is_explained(url: str, command: Command) -> None:
    done = command("query", "--url", url, "--kind", "mail")
    assert (done.status, "valid are request, outgoing" in done.err) == (2, True)
    nothing = command("query", "--url", url, "--slug", "pay-invoice")
    assert "The log 'activity' has matching records" in nothing.err
