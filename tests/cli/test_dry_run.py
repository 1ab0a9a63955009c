"""explain policy --dry-run: what a policy would have recorded of what is in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit.audit_record import Actor, Change, Database, Request, Target
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from tests.cli.conftest import Command
from tests.trail import Serving, land, record, serving

PER_PATH = 300
POLICY = """
[[policy]]
path = "/health"
level = "none"

[[policy]]
path = "/api/*"
method = "POST"
level = "request_response"

[[policy]]
path = "/api/*"
level = "metadata"

[[policy]]
kind = "change"
model = "shop.Card"
level = "metadata"

[[policy]]
command = "migrate"
level = "none"
"""


def request(number: int, method: str, path: str, **attributes: Any) -> Any:
    return record(
        "http.server.request",
        "REQUEST",
        at=10**18 + number * 10**9,
        log="activity",
        actor=Actor("7", "user"),
        request=Request(f"r-{number}", method, "", path, "shop.views.x"),
        target=Target("http.route", path),
        attributes={"http.response.status_code": 200, **attributes},
    )


RECORDS = [
    *(request(number, "GET", "/health") for number in range(PER_PATH)),
    *(request(1000 + number, "POST", "/api/cards") for number in range(PER_PATH)),
    *(
        request(
            2000 + number, "GET", "/api/cards", **{"http.request.header.accept": "*/*", "request.body": "x"}
        )
        for number in range(PER_PATH)
    ),
    record(
        "shop.card.update",
        "UPDATE",
        at=10**18 + 3000 * 10**9,
        target=Target("shop.Card", "1"),
        changes=[Change("number", "1", "2")],
        database=Database("sqlite", "shop", "shop_card"),
    ),
    record(
        "command.run",
        "EXECUTE",
        at=10**18 + 3001 * 10**9,
        target=Target("command", "migrate"),
        attributes={"output": "done"},
    ),
    record("user.login.success", "LOGIN", at=10**18 + 3002 * 10**9, target=Target("auth.User", "7")),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("trail")) as server:
        client = StoreClient(server.clickhouse)
        land(client, RECORDS)
        land(client, RECORDS[:20])  # a Collector sent some twice
        client.close()
        yield server


def run(command: Command, store: Serving, *arguments: str) -> dict[tuple[Any, ...], int]:
    done = command("explain", "policy", *arguments, "--dry-run", "--json", "--url", store.clickhouse)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    return {(row["rule"], row["kind"], row["recorded"], row["would_be"]): row["records"] for row in rows}


EXPECTED = {
    (1, "request", "metadata", "none"): PER_PATH,
    (2, "request", "metadata", "request_response"): PER_PATH,
    (3, "request", "request", "metadata"): PER_PATH,
    (4, "change", "values", "metadata"): 1,
    (5, "command", "request_response", "none"): 1,
}


def test_records_are_counted_by_rule_and_level(command: Command, store: Serving, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text(POLICY)
    assert run(command, store) == EXPECTED


def test_a_policy_of_another_file_is_tried(command: Command, store: Serving, tmp_path: Path) -> None:
    (tmp_path / "changed.toml").write_text(POLICY)
    assert run(command, store, "changed.toml") == EXPECTED
    assert run(command, store) == {
        (None, "request", "metadata", "metadata"): 2 * PER_PATH,
        (None, "request", "request", "metadata"): PER_PATH,
        (None, "change", "values", "values"): 1,
        (None, "command", "request_response", "metadata"): 1,
    }


def test_only_the_newest_records_are_asked_for(command: Command, store: Serving, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text(POLICY)
    assert run(command, store, "--last", "13") == {
        (3, "request", "request", "metadata"): 10,
        (4, "change", "values", "metadata"): 1,
        (5, "command", "request_response", "none"): 1,
    }


def test_people_read_totals_rules_with_their_place_and_an_example(
    command: Command, store: Serving, tmp_path: Path
) -> None:
    (tmp_path / "otel-audit.toml").write_text(POLICY)
    done = command("explain", "policy", "--dry-run", "--url", store.clickhouse, width=200)
    assert done.status == 0, done.err
    assert "Of 903 records: 301 would not be recorded, 301 with less, 300 with more, 1 are not" in done.out
    assert "otel-audit.toml:2" in done.out
    assert "GET /health" in done.out
    assert "is not counted" in done.err


def test_a_bad_policy_is_refused_before_the_store_is_asked(command: Command, tmp_path: Path) -> None:
    (tmp_path / "changed.toml").write_text('[[policy]]\npath = "api"\nlevel = "none"\n')
    done = command("explain", "policy", "changed.toml", "--dry-run", "--url", "http://127.0.0.1:1")
    assert done.status != 0
    assert "changed.toml:2: policy.path: 'api' can never match" in done.err


def test_recent_records_are_those_that_were_sent_each_once_newest_first(store: Serving) -> None:
    with AuditStore(store.clickhouse) as trail:
        recent = list(trail.recent(10_000))
        assert [each.timestamp for each in recent] == [each.timestamp for each in RECORDS[::-1]]
        assert {each.id: each for each in recent} == {each.id: each for each in RECORDS}
        assert len(list(trail.recent(501))) == 501
        assert list(trail.recent(0)) == []
