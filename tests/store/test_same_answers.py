"""A question is answered as one plain statement over all tables would answer it, however it is asked."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Collection

import msgspec
import pytest

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Request,
    Target,
    new_record_id,
)
from otel_audit.errors import QueryError
from otel_audit.store.client import StoreClient
from otel_audit.store.entries import PARTS, AuditEntry, entry
from otel_audit.store.filters import MAX_LIMIT, Filters, select
from otel_audit.store.query import AuditStore
from otel_audit.store.schema import LANDING
from tests.trail import exported, land, record

SEED = 20261128
QUESTIONS = 16
S = 10**9
BEGIN = time.time_ns() - 3600 * S
LOGS = ("audit", "audit", "audit", "activity", "pageview", "billing")


def any_record(chance: random.Random) -> AuditRecord:
    """Return a record of few different times, people and objects, with any id."""
    target = Target("shop.Order", str(chance.randrange(4)))
    bulk = None
    if chance.random() < 0.15:
        keys = [str(n) for n in range(chance.randrange(1, 12))]
        values = [chance.choice(("new", "paid")) for _ in keys]
        target, bulk = Target("shop.Order"), Bulk(len(keys), keys, [Column("status", new=values)])
    return record(
        "shop.order.update",
        chance.choice(("UPDATE", "DELETE")),
        at=BEGIN + chance.randrange(40) * S,
        id=str(uuid.UUID(int=chance.getrandbits(128))),
        log=chance.choice(LOGS),
        outcome=chance.choice(("success", "failure")),
        actor=Actor(chance.choice(("1", "2", "ana")), "user", chance.choice(("", "ana", "ben"))),
        target=target,
        bulk=bulk,
        changes=[] if bulk else [Change("status", "new", chance.choice(("new", "paid")))],
        related=[Target("shop.Order", "1")] if chance.random() < 0.2 else [],
        request=Request(chance.choice(("", "r-1", "r-2"))),
        message=chance.choice(("", "order paid", "refund of order")),
    )


def any_filters(chance: random.Random) -> tuple[Filters, bool]:
    """Return what somebody may search for, and whether related objects count."""
    choices: dict[str, tuple[str | int, ...]] = {
        "actor": ("1", "ana", "nobody"),
        "target": ("shop.Order/1", "shop.Order", "shop.*"),
        "action": ("update", "delete"),
        "outcome": ("failure", "success,failure"),
        "field": ("status", "status=paid"),
        "request_id": ("r-1",),
        "text": ("order", "refund order", "paid"),
        "since": (BEGIN + 10 * S,),
        "until": (BEGIN + 30 * S,),
    }
    names = chance.sample(sorted(choices), chance.randrange(3))
    log = chance.choice((None, "*", "activity", "billing", "audit,billing", "!pageview", "!audit"))
    filters = msgspec.structs.replace(
        Filters(log=log), **{name: chance.choice(choices[name]) for name in names}
    )
    return filters, filters.target == "shop.Order/1" and chance.random() < 0.5


def stray(client: StoreClient, each: AuditRecord) -> None:
    """Insert a record into the landing table of the audit log, whatever log it names."""
    client.insert(
        LANDING,
        [
            {
                "Timestamp": f"{each.timestamp // S}.{each.timestamp % S:09d}",
                "ServiceName": "shop",
                "Body": each.message,
                "LogAttributes": exported(each),
            }
        ],
    )


def plain(client: StoreClient, store: AuditStore, filters: Filters, related: bool) -> list[AuditEntry]:
    """Return the whole answer of one statement over all tables, each record once."""
    filters = store._with_actor_ids(filters)
    sql, parameters = select(client.config.database, filters, rows=MAX_LIMIT, related=related)
    found: dict[str, AuditEntry] = {}
    for each in map(entry, client.query(sql, parameters)):
        found.setdefault(each.id, each)
    return store._with_names(list(found.values()))


def paged(store: AuditStore, filters: Filters, related: bool, limit: int) -> list[AuditEntry]:
    """Return the whole answer page by page; every page but the last one is full."""
    found: list[AuditEntry] = []
    cursor: str | None = None
    while True:
        page = store.find(filters, limit=limit, cursor=cursor, related=related)
        assert len(page) == limit or page.cursor is None
        assert len(page) or not found, "a page behind the last one"
        found += page
        cursor = page.cursor
        if cursor is None:
            return found


def test_pages_of_a_random_trail_are_its_one_plain_answer(client: StoreClient) -> None:
    """Equal times, records sent twice, bulk records and strays, asked in pages of any size."""
    chance = random.Random(SEED)
    records = [any_record(chance) for _ in range(120)]
    with AuditStore(client.config) as early:
        for log in {each.log for each in records}:
            early.find(Filters(log=log))  # with no record there is nothing in other_events
        land(client, records)
        land(client, chance.sample(records, 40))
        for each in chance.sample([each for each in records if each.log == "activity"], 4):
            stray(client, each)
        answers = 0
        for number in range(QUESTIONS):
            filters, related = any_filters(chance)
            expected = plain(client, early, filters, related)
            limit = max(chance.choice((1, 2, 3, 7, 20, 500)), len(expected) // 4)
            note = f"seed {SEED}, question {number}: {filters}, {related=}, {limit=}"
            assert [each.id for each in paged(early, filters, related, limit)] == [
                each.id for each in expected
            ], note
            answers += bool(expected)
        assert answers > QUESTIONS // 2


def test_a_page_of_more_rows_than_the_engine_reads_at_once_has_each_in_order(client: StoreClient) -> None:
    """Of several parts whose times overlap, in tables of two logs."""
    chance = random.Random(SEED + 3)
    moment = BEGIN + 300 * S
    records = [
        record(
            "shop.order.update",
            "UPDATE",
            at=moment + number * S // 100,
            log=chance.choice(("audit", "activity")),
            request=Request("long-page"),
        )
        for number in range(2600)
    ]
    newest_first = [each.id for each in reversed(records)]
    chance.shuffle(records)
    for first in range(0, len(records), 900):
        land(client, records[first : first + 900])
    with AuditStore(client.config) as store:
        for log, limit in (("*", 2500), ("*", 3000), ("*", 1), ("audit", 2000)):
            found = [each.id for each in store.find(Filters(log=log, request_id="long-page"), limit=limit)]
            wanted = newest_first if log == "*" else [each for each in newest_first if each in set(found)]
            assert found == wanted[:limit], (log, limit)
        audit = sum(each.log == "audit" for each in records)
        assert len(store.find(Filters(log="audit", request_id="long-page"), limit=3000)) == audit


def without(each: AuditEntry, parts: Collection[str]) -> AuditEntry:
    """Return an entry with all other parts than these, and what every entry has, as if nothing were known."""
    known = {name: getattr(each, name) for name in each.__struct_fields__}
    return AuditEntry(**{name: value for name, value in known.items() if name not in PARTS or name in parts})


def test_an_entry_of_which_parts_are_read_has_these_as_the_whole_one(client: StoreClient) -> None:
    """Of random records and questions; what is not read says nothing."""
    chance = random.Random(SEED + 1)
    records = [any_record(chance) for _ in range(60)]
    land(client, records)
    land(client, chance.sample(records, 20))
    answers = 0
    with AuditStore(client.config) as store:
        for number in range(QUESTIONS):
            filters, related = any_filters(chance)
            parts = chance.sample(sorted(PARTS), chance.randrange(len(PARTS)))
            if "changes" in parts or "fields" in parts:  # they share their columns
                parts += ["changes", "fields"]
            whole = store.find(filters, limit=40, related=related)
            some = store.find(filters, limit=40, related=related, parts=parts)
            note = f"seed {SEED + 1}, question {number}: {filters}, {related=}, {parts=}"
            assert some.entries == [without(each, parts) for each in whole], note
            assert some.cursor == whole.cursor, note
            answers += bool(whole)
    assert answers > QUESTIONS // 2


def test_a_question_names_only_the_columns_of_the_parts_asked_for() -> None:
    """Most of what a list costs is reading columns."""
    asked = select("otel", Filters(), rows=1, parts=("changes",)).sql
    assert "changes.new" in asked
    assert not any(name in asked for name in ("route", "message", "stream", "trace_id", "related"))
    assert all(name in select("otel", Filters(), rows=1).sql for name in ("route", "message", "stream"))
    with pytest.raises(QueryError, match=r"'rout' is not a part of an entry; valid are .*route"):
        select("otel", Filters(), rows=1, parts=("rout",))


def test_a_record_is_found_by_its_id_wherever_its_time_lies(client: StoreClient) -> None:
    """Near the moment its id says, far from it, or with an id that says none; in every table."""
    chance = random.Random(SEED + 2)
    moment = BEGIN + 200 * S
    ids = (
        new_record_id(moment),
        new_record_id(moment - 3600 * S),
        new_record_id(moment + 59 * S),
        f"ffffffff-ffff-7{'0' * 3}-8000-{chance.getrandbits(48):012x}",
        f"00000000-0000-7{'0' * 3}-8000-{chance.getrandbits(48):012x}",
        str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    )
    records = [
        record(
            "shop.order.update",
            "UPDATE",
            at=moment + at,
            id=f"{each[:-12]}{chance.getrandbits(48):012x}",
            log=log,
        )
        for log in ("audit", "activity", "billing")
        for at, each in enumerate(ids)
    ]
    land(client, records)
    with AuditStore(client.config) as store:
        for each in records:
            found = store.get(each.id)
            assert found is not None, each.id
            assert (found.id, found.timestamp) == (each.id, each.timestamp)
        assert store.get(new_record_id(moment)) is None


def test_a_stray_is_found_at_once(client: StoreClient) -> None:
    """Whatever was asked, and answered without other_events, a moment before."""
    moment = BEGIN + 100 * S
    with AuditStore(client.config) as store:
        filters = Filters(log="pageview", since=moment)
        assert store.find(filters).entries == []
        viewed = record("shop.page.view", "READ", at=moment + S, log="pageview")
        stray(client, viewed)
        assert [each.id for each in store.find(filters)] == [viewed.id]
        assert store.get(viewed.id) is not None
