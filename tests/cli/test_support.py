"""What support asks with a customer on the phone: who set this, from where, and was it in the trail?"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from msgspec import UNSET

from otel_audit.audit_record import Actor, Change, Request, Source, Target
from otel_audit.store.client import StoreClient
from tests.cli.conftest import Command
from tests.trail import COMMAND, Serving, clean_environment, land, record, serving

MINUTE = 60 * 10**9
NOON = int(datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC).timestamp()) * 10**9
ANA, BEN = Actor("2", "user", "ana"), Actor("3", "user", "ben", on_behalf_of="7")
CUSTOMER = Target("shop.Customer", "7")
STAMP = "2026-11-20T12:06:00.500000+00:00"

STARTED = record("audit.stream.start", "START", at=NOON - 1, target=Target("audit.stream", "s-1"))
CREATED = record(
    "shop.customer.create",
    "CREATE",
    at=NOON,
    actor=ANA,
    source=Source("203.0.113.7", "ipv4", "", "5e55"),
    request=Request("r-1", "POST", "customers/", "/customers/", "shop.views.create"),
    target=CUSTOMER,
    changes=[Change("street", new="Elm 1"), Change("city", new="Graz")],
)
MOVED = record(
    "shop.customer.update",
    "UPDATE",
    at=NOON + 6 * MINUTE,
    actor=BEN,
    source=Source("2001:db8::5", "ipv6"),
    request=Request("r-2", "POST", "customers/<int:pk>/", "/customers/7/", "shop.views.move"),
    target=CUSTOMER,
    changes=[Change("street", "Oak 2", "Ash 3"), Change("modified", UNSET, STAMP, "datetime")],
    old_values="exact",
    reason="Ticket 4711: phoned",
)
CELLS = record(
    "shop.note.create",
    "CREATE",
    at=NOON + 7 * MINUTE,
    actor=Actor("=1+1", "user"),
    target=Target("shop.Note", "@SUM(A1)"),
    message='-2, "quoted"\nand a second line',
)
NAMELESS = record(
    "shop.cart.update",
    "UPDATE",
    at=NOON + 8 * MINUTE,
    actor=Actor("2", "user"),
    target=Target("shop.Cart", "1"),
    changes=[Change("open", "true", "false", "bool")],
)
RECORDS = [STARTED, CREATED, MOVED, CELLS, NAMELESS]


@pytest.fixture(scope="module")
def support(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A store with what happened to one customer."""
    with serving(tmp_path_factory.mktemp("support")) as server:
        client = StoreClient(server.clickhouse)
        land(client, RECORDS)
        client.close()
        yield server


@pytest.fixture
def ask(command: Command, support: Serving, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("OTEL_AUDIT_STORE_URL", support.clickhouse)
    return command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--service", "shop"], 5),
        (["--service", "sh*"], 5),
        (["--service", "sh"], 0),
        (["--address", "203.0.113.7"], 1),
        (["--address", "203.0.113.0/24"], 1),
        (["--address", "203.0.113.9/24"], 1),
        (["--address", "2001:DB8::5"], 1),
        (["--address", "2001:db8::/32"], 1),
        (["--address", "192.0.2.0/24"], 0),
        (["--session", "5e55"], 1),
        (["--route", "customers/<int:pk>/"], 1),
        (["--route", "customers/*"], 2),
        (["--route", "customers%"], 0),
        (["--reason", "ticket 4711"], 1),
        (["--on-behalf-of", "7"], 1),
        (["--since", "2026-11", "--until", "2026-11"], 5),
        (["--since", "november 2026", "--until", "november 2026"], 5),
        (["--until", "2026-10"], 0),
    ],
)
def test_records_are_found_by(ask: Command, arguments: list[str], expected: int) -> None:
    done = ask("query", "--json", *arguments)
    assert len(done.out.splitlines()) == expected, done.err


def test_a_record_with_only_the_id_of_a_user_is_found_by_name_and_shows_it_marked(ask: Command) -> None:
    done = ask("query", "--actor", "ana")
    [nameless] = [line for line in done.out.splitlines() if NAMELESS.id in line]
    assert " 2 [ana] " in nameless
    assert "[ana]" not in done.out.replace(nameless, "")
    [entry] = [
        json.loads(line) for line in ask("query", "--json", "--target", "shop.Cart/1").out.splitlines()
    ]
    assert entry["actor"] == {"id": "2", "type": "user"}
    assert entry["actor_known_as"] == "ana"
    assert "2 [ana] (user)" in ask("show", NAMELESS.id).out


def test_a_network_that_is_none_is_refused_with_what_to_write(ask: Command) -> None:
    done = ask("query", "--address", "203.0.113.0/99")
    assert done.status == 2
    assert "'203.0.113.0/99' is not a network; write 203.0.113.7, 203.0.113.0/24" in re.sub(
        r"\s+", " ", done.err
    )


def test_what_is_rarely_asked_for_is_folded_in_lists_and_nowhere_else(ask: Command) -> None:
    folded = ask("query", "--utc")
    assert "audit.stream" not in folded.out
    assert "1 record of streams that started or ended not listed; --verbose lists them" in folded.err
    assert "modified = now" in folded.out
    assert STAMP not in folded.out
    whole = ask("query", "--verbose", "--utc")
    assert "audit.stream/s-1" in whole.out
    assert f"modified = {STAMP}" in whole.out
    assert STAMP in ask("show", MOVED.id).out
    assert STAMP in ask("query", "--json").out
    assert "audit.stream/s-1" in ask("query", "--json").out.replace(
        '{"type":"audit.stream","id":"s-1"}', "audit.stream/s-1"
    )


def test_csv_is_a_table_that_no_spreadsheet_runs(ask: Command) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("query", "--csv").out)))
    assert [row["id"] for row in rows] == [each.id for each in reversed(RECORDS)]
    hostile, moved = rows[1], rows[2]
    assert hostile["actor_id"] == "'=1+1"
    assert hostile["target_id"] == "'@SUM(A1)"
    assert hostile["message"] == '\'-2, "quoted"\\nand a second line'
    assert moved["reason"] == "Ticket 4711: phoned"
    assert moved["on_behalf_of"] == "7"
    assert json.loads(moved["changes"])[0] == {"field": "street", "old": "Oak 2", "new": "Ash 3"}


def test_csv_and_json_exclude_each_other(ask: Command) -> None:
    done = ask("query", "--csv", "--json")
    assert done.status == 2
    assert "cannot be used together" in done.err


@pytest.mark.parametrize("width", [None, 80, 140])
def test_history_says_where_somebody_wrote_past_the_trail(ask: Command, width: int | None) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", ask("history", "shop.Customer/7", "--utc", width=width).out)
    words = " ".join(shown.split())
    assert "street was written outside the trail between 2026-11-20 12:00:00 and 12:06:00" in (
        words if width is None or width > 100 else words.replace("  ", " ")
    )
    assert words.index("Elm 1") < words.index("outside the trail") < words.index("Ash 3")
    assert "city was" not in words


def test_history_as_json_holds_records_alone_and_remarks_beside(ask: Command) -> None:
    done = ask("history", "shop.Customer/7", "--json")
    assert len(done.out.splitlines()) == 2
    assert "street was written outside the trail" in done.err


def test_blame_names_who_set_each_field_last_when_and_through_which_view(ask: Command) -> None:
    lines = ask("blame", "shop.Customer/7", "--utc").out.splitlines()
    [street] = [line for line in lines if line.startswith("street")]
    [city] = [line for line in lines if line.startswith("city")]
    assert street.split() == [
        *("street", "Ash", "3", "ben", "for", "7", "2026-11-20", "12:06:00", "shop.views.move", MOVED.id[-8:])
    ]
    assert city.split()[1:5] == ["Graz", "ana", "2026-11-20", "12:00:00"]


def test_blame_as_it_was_then(ask: Command) -> None:
    found = [
        json.loads(line)
        for line in ask(
            "blame", "shop.Customer/7", "--json", "--until", "2026-11-20T12:05:00Z"
        ).out.splitlines()
    ]
    assert {each["field"]: each["value"] for each in found} == {"city": "Graz", "street": "Elm 1"}
    assert found[0]["view"] == "shop.views.create"


def test_blame_of_what_nobody_changed_says_so(ask: Command) -> None:
    done = ask("blame", "shop.Customer/8")
    assert done.status == 1
    assert "No change of shop.Customer/8 is recorded." in done.err
    assert ask("blame", "shop.Customer").status == 2


def test_hints_are_about_the_question_that_was_asked(ask: Command) -> None:
    """Names that occur are not called unknown, and times are shown as times."""
    done = ask("query", "--actor", "ana", "--service", "shopp")
    assert "'shopp'" in done.err
    assert "ana" not in done.err
    done = ask("query", "--since", "2026-11-23 10:00", "--until", "2026-11-23 09:00", "--utc")
    assert "since (2026-11-23T10:00:00.000Z) is not earlier than" in done.err
    for command in ("history", "blame"):
        assert "log" not in ask(command, "shop.Customer/8").err  # page views are left out unasked


def test_a_value_without_a_field_is_refused(ask: Command) -> None:
    for field in ("=Graz", " = Graz", "", " "):
        done = ask("query", "--field", field)
        assert done.status == 2
        assert "field is empty" in done.err


@pytest.mark.parametrize("zone", ["UTC+25", "Nowhere/Land", ":", "\x1b[31m"])
def test_an_odd_time_zone_costs_no_answer(support: Serving, zone: str) -> None:
    done = subprocess.run(
        [*COMMAND, "query", "--since", "2026-11-01"],
        env=clean_environment() | {"OTEL_AUDIT_STORE_URL": support.clickhouse, "TZ": zone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert MOVED.id in done.stdout
    assert "\x1b" not in done.stdout


def test_a_full_disk_is_said_and_is_a_failure(support: Serving) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "query", "--json"],
            env=clean_environment() | {"OTEL_AUDIT_STORE_URL": support.clickhouse},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "otel-audit: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["query --json", "query", "query --actor nobody", "show nothing"])
def test_an_output_that_was_closed_is_no_failure_of_ours(support: Serving, closed: str, command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {command} {closed}', "sh", *COMMAND],
        env=clean_environment() | {"OTEL_AUDIT_STORE_URL": support.clickhouse},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == {"query --actor nobody": 1, "show nothing": 2}.get(command, 0)


@pytest.mark.parametrize("option", ["--actor", "--text", "--target", "--reason"])
def test_an_argument_of_100_kb_is_refused_without_repeating_it(ask: Command, option: str) -> None:
    done = ask("query", option, "shop.x/" + "a" * 100_000)
    assert done.status == 2
    assert "the query is too long" in done.err
    assert len(done.err) < 300


def test_completion_can_be_installed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_OTEL_AUDIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "otel-audit bl")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert "blame" in command().out
    assert os.environ["COMP_CWORD"] == "1"
