"""Records of many months: the newest month is asked first, and nothing may show that it is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Bulk, Change, Column, Target
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from tests.trail import land, record

S = 10**9
DAY = 86_400 * S
NOW = time.time_ns()
ACTORS = Actor("1", "user", "mona"), Actor("2", "user", "nils"), Actor("3", "user", "once")


def made() -> list[AuditRecord]:
    """Return records of eight months, some at the same moment, some of tomorrow; "once" acted long ago."""
    chosen = random.Random(3)
    moments = [NOW - chosen.randrange(240 * DAY) for _ in range(70)]
    moments += [NOW - chosen.randrange(10 * DAY) for _ in range(25)] + [NOW + DAY] * 2
    moments += [moments[5]] * 4 + [moments[80]] * 3
    records = [
        record(
            f"month.{chosen.choice('ab')}",
            chosen.choice(["CREATE", "UPDATE"]),
            at=moment,
            actor=chosen.choice(ACTORS[:2]),
            outcome=chosen.choice(["success", "failure"]),
            target=Target("month.Thing", str(chosen.randrange(4))),
            changes=[Change("size", None, chosen.choice(["big", "small"]))],
            message=f"case {chosen.randrange(3)}",
            log=chosen.choice(["audit", "audit", "activity"]),
        )
        for moment in moments
    ]
    keys = [str(number) for number in range(9)]
    bulk = Bulk(9, keys, [Column("size", ["small"] * 9, ["big"] * 9)])
    records += [
        record("month.bulk", "UPDATE", at=NOW - days * DAY, target=Target("month.Thing"), bulk=bulk)
        for days in (1, 2, 100)
    ]
    return [*records, record("month.a", "UPDATE", at=NOW - 200 * DAY, actor=ACTORS[2])]


RECORDS = made()


@pytest.fixture(scope="module")
def store(client: StoreClient) -> Iterator[AuditStore]:
    land(client, RECORDS)
    land(client, RECORDS[30:60])  # delivered twice
    with AuditStore(client.config) as asked:
        yield asked


def sizes(each: AuditRecord) -> set[Any]:
    """Return the new values of the field "size", of all rows."""
    rows = [column.new or [] for column in each.bulk.columns] if each.bulk else []
    return {change.new for change in each.changes}.union(*rows)


QUESTIONS = [
    ({}, lambda each: each.log == "audit"),
    ({"log": "*"}, lambda each: True),
    ({"actor": "mona", "log": "*"}, lambda each: each.actor.name == "mona"),
    ({"actor": "once"}, lambda each: each.actor.name == "once"),
    ({"actor": "nobody"}, lambda each: False),
    (
        {"action": "create", "log": "activity"},
        lambda each: each.action == "CREATE" and each.log == "activity",
    ),
    ({"target": "month.Thing", "outcome": "failure", "log": "*"}, lambda each: each.outcome == "failure"),
    ({"field": "size=big", "log": "*"}, lambda each: "big" in sizes(each)),
    ({"text": "case 1", "log": "*"}, lambda each: each.message == "case 1"),
    (
        {"log": "*", "since": NOW - 130 * DAY, "until": NOW - 2 * DAY},
        lambda each: NOW - 130 * DAY <= each.timestamp < NOW - 2 * DAY,
    ),
    ({"log": "*", "until": NOW - 45 * DAY}, lambda each: each.timestamp < NOW - 45 * DAY),
    ({"log": "*", "since": NOW - 2 * DAY}, lambda each: each.timestamp >= NOW - 2 * DAY),
]


@pytest.mark.parametrize("limit", [1, 3, 50, 1000])
@pytest.mark.parametrize(("filters", "answers"), QUESTIONS)
def test_pages_over_many_months_hold_every_record_once_newest_first(
    store: AuditStore, filters: dict[str, Any], answers: Any, limit: int
) -> None:
    expected = {each.id: each.timestamp for each in filter(answers, RECORDS)}
    found: list[str] = []
    cursor = None
    while True:
        page = store.query(**filters, limit=limit, cursor=cursor)
        found += [entry.id for entry in page]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page) == limit
    assert sorted(found) == sorted(expected)
    moments = [expected[each] for each in found]
    assert moments == sorted(moments, reverse=True)


def test_older_months_are_asked_only_if_the_newest_has_no_page(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is rare, such as the records of one object, is asked once."""
    asked: list[str] = []
    query = StoreClient.query

    def noted(client: StoreClient, sql: str, *arguments: Any, **options: Any) -> Any:
        asked.extend(["records"] * ("changes" in sql))
        return query(client, sql, *arguments, **options)

    monkeypatch.setattr(StoreClient, "query", noted)
    for question, statements in (
        ({"limit": 5}, 1),
        ({"limit": 90}, 2),
        ({"actor": "once"}, 2),
        ({"target": "month.Thing/3"}, 1),
        ({"text": "somebody@example.com"}, 1),
        ({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, 1),
        ({"limit": 90, "since": NOW - DAY}, 1),
    ):
        asked.clear()
        store.query(**question)
        assert len(asked) == statements, question
