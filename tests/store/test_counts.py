"""Counting requests: as when each is looked at, whatever was sent twice and wherever a range begins."""

from __future__ import annotations

import datetime
import fnmatch
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from otel_audit.audit_record import Actor, AuditRecord, Request, Source, Target, new_record_id
from otel_audit.errors import QueryError
from otel_audit.store.count_plans import Part, Plan, Range, overlaps, pieces, plan
from otel_audit.store.query import AuditStore
from tests.attack.chance import Chance
from tests.engine_process import in_stopped_server
from tests.trail import exported, land, record, serving

BEGIN: Final = 1_788_220_800 * 10**9
"""2026-09-01, in nanoseconds."""
HOUR: Final = 3600 * 10**9
DAYS: Final = 80
SLUGS: Final = ("", "", "pay", "export")


def request(chance: Chance) -> AuditRecord:
    """Make the record of a request, or of something else that happened in one."""
    number = chance.randrange(5)
    status = chance.choice((200, 200, 201, 302, 404, 403, 500))
    method = chance.choice(("GET", "POST"))
    return record(
        chance.choice(("http.server.request",) * 4 + ("http.client.request",)),
        "REQUEST",
        at=BEGIN + chance.randrange(DAYS * 24 * HOUR),
        log="pageview" if method == "GET" and status < 400 else "activity",
        actor=chance.choice(
            (Actor("7", "user", "ana"), Actor("7", "user"), Actor("8", "user", "bob"), Actor())
        ),
        target=Target("http.route", f"orders/{number}"),
        source=Source(f"203.0.{number}.{chance.randrange(3)}", "ipv4"),
        request=Request(
            f"r-{chance.getrandbits(60)}",
            method,
            "orders/<int:pk>/",
            f"/orders/{number}/",
            f"shop.views.v{number}",
        ),
        slug=chance.choice(SLUGS),
        attributes={"http.response.status_code": status, "duration": 0.25},
    )


def counted(made: Sequence[AuditRecord], asked: dict[str, Any]) -> int:
    """Count one by one."""

    def matches(each: AuditRecord) -> bool:
        status = str(each.attributes["http.response.status_code"])
        wanted: dict[str, Callable[[Any], bool]] = {
            "since": lambda value: each.timestamp >= value,
            "until": lambda value: each.timestamp < value,
            "ip": lambda value: ipaddress.ip_address(each.source.id) in ipaddress.ip_network(value),
            "path": lambda value: fnmatch.fnmatchcase(each.request.path, value),
            "view": lambda value: fnmatch.fnmatchcase(each.request.view, value),
            "slug": lambda value: fnmatch.fnmatchcase(each.slug, value),
            "method": lambda value: each.request.method in value.upper().split(","),
            "status": lambda value: any(
                status == part or status[0] + "xx" == part for part in str(value).split(",")
            ),
            "user": lambda value: {"ana": "7", "bob": "8"}.get(value, value) == each.actor.id,
            "exclude": lambda value: each.request.id not in value and each.id not in value,
        }
        return each.event_name == "http.server.request" and all(wanted[name](asked[name]) for name in asked)

    return sum(map(matches, made))


def question(chance: Chance, made: Sequence[AuditRecord]) -> dict[str, Any]:
    """Ask for anything."""
    begin, end = sorted(BEGIN + chance.randrange(DAYS * 24 * HOUR) for _ in range(2))
    parts: dict[str, Any] = {
        "since": begin,
        "until": end + 1,
        "ip": chance.choice(("203.0.1.1", "203.0.2.0/24", "203.0.0.0/16", "198.51.100.1")),
        "path": chance.choice(("/orders/1/", "/orders/*", "*2/")),
        "view": chance.choice(("shop.views.v1", "shop.views.*")),
        "slug": chance.choice(("pay", "p*")),
        "method": chance.choice(("GET", "post", "GET,POST")),
        "status": chance.choice((200, "404", "4xx", "2xx,500")),
        "user": chance.choice(("7", "ana", "bob", "nobody")),
        "exclude": [chance.choice(made).id, chance.choice(made).request.id],
    }
    return {name: parts[name] for name in chance.sample(tuple(parts), chance.randrange(4))}


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AuditStore, list[AuditRecord]]]:
    """A store in which half of the records came twice: some merged, some in the same insert, some later."""
    directory = tmp_path_factory.mktemp("counts")
    chance = Chance(14)
    made = [request(chance) for _ in range(600)]
    made.append(
        record(
            "user.login.success",
            "LOGIN",
            at=BEGIN,
            actor=Actor("7", "user", "ana"),
            attributes={"http.response.status_code": 200},
        )
    )
    with serving(directory) as running, AuditStore(running.clickhouse) as store:
        land(store._client, made[:450])
        land(store._client, made[100:200])
    plans = in_stopped_server(
        directory,
        "for log in ('activity', 'pageview'):\n"
        "    connection.query(f'OPTIMIZE TABLE otel.{log}_events FINAL')\n"
        "    where = \"hasAll(request_items, ['request', 'month=202609', 'method=GET'])\"\n"
        "    plan = f'EXPLAIN SELECT count() FROM otel.{log}_events WHERE {where}'\n"
        "    result.append(str(connection.rows(plan)))\n",
    )
    # As long as the engine finds the index: an expression with IN, for instance, it would not know again.
    assert all("ReadFromTextIndexCount" in plan for plan in plans), plans
    with serving(directory) as running, AuditStore(running.clickhouse) as store:
        land(store._client, [*made[400:500], *made[470:500]])
        for begin in range(500, len(made), 20):
            land(store._client, made[begin : begin + 20])
        land(store._client, made[300:340])
        yield store, made


def test_each_request_counts_once(counting: tuple[AuditStore, list[AuditRecord]]) -> None:
    """Whatever the conditions, and also in the middle of an hour."""
    store, made = counting
    chance = Chance(15)
    for _ in range(80):
        asked = question(chance, made)
        assert store.count_requests(**asked) == counted(made, asked), asked


def test_a_range_that_begins_within_an_hour_has_no_more_than_that(
    counting: tuple[AuditStore, list[AuditRecord]],
) -> None:
    """To the nanosecond, at both ends."""
    store, made = counting
    found = sorted(each.timestamp for each in made if each.event_name == "http.server.request")
    for number in (0, 7, 100, len(found) - 1):
        moment = found[number]
        assert store.count_requests(since=moment) == len(found) - number
        assert store.count_requests(since=moment + 1) == len(found) - number - 1
        assert store.count_requests(until=moment) == number
        assert store.count_requests(until=moment + 1) == number + 1


def test_a_request_in_the_table_of_another_log_counts_once(
    counting: tuple[AuditStore, list[AuditRecord]],
) -> None:
    """As when a client without routing sends again what has already arrived."""
    store, made = counting
    before = store.count_requests()
    some = [each for each in made if each.event_name == "http.server.request"][:5]
    rows = [
        {
            "Timestamp": f"{each.timestamp // 10**9}.{each.timestamp % 10**9:09d}",
            "LogAttributes": exported(each),
        }
        for each in some
    ]
    store._client.insert("other_log", rows)
    assert store.count_requests() == before


def test_what_arrives_between_two_counts_is_counted(
    counting: tuple[AuditStore, list[AuditRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New, late, or a second time; and a store that was asked before is asked but once."""
    store, made = counting
    asked: dict[str, Any] = {"ip": "192.0.2.1", "since": BEGIN + HOUR}
    assert store.count_requests(**asked) == 0
    chance = Chance(16)
    first = request(chance)
    expected = 0
    for at in (BEGIN + DAYS * 24 * HOUR, BEGIN + 2 * HOUR, BEGIN + (DAYS + 40) * 24 * HOUR, BEGIN):
        each = msgspec.structs.replace(
            first,
            id=new_record_id(at),
            event_name="http.server.request",
            timestamp=at,
            source=Source("192.0.2.1", "ipv4"),
        )
        made.append(each)
        land(store._client, [each])
        expected += at >= BEGIN + HOUR
        assert store.count_requests(**asked) == expected
        land(store._client, [each])
        assert store.count_requests(**asked) == expected
    statements: list[str] = []
    query = store._client.query
    monkeypatch.setattr(
        store._client, "query", lambda sql, parameters: statements.append(sql) or query(sql, parameters)
    )
    assert store.count_requests(**asked) == expected
    assert len(statements) == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"status": "9xx"}, "4xx for all"),
        ({"status": []}, "status is empty"),
        ({"method": ""}, "method is empty"),
        ({"view": ""}, "view is empty"),
        ({"ip": "203.0.113/99"}, "is not a network"),
        ({"since": "soon"}, "soon"),
    ],
)
def test_a_mistake_is_explained(
    counting: tuple[AuditStore, list[AuditRecord]], asked: dict[str, Any], said: str
) -> None:
    """Instead of counting nothing."""
    with pytest.raises(QueryError, match=said):
        counting[0].count_requests(**asked)


def test_pieces_add_up_to_the_range() -> None:
    """Whatever it is, however long: each moment in it is counted once, and no other one."""
    chance = Chance(3)
    for _ in range(500):
        length = chance.choice((3, 40, 300, 1200)) * 24 * HOUR
        first, begin, end, last = sorted(BEGIN + chance.randrange(length) for _ in range(4))
        whole, wanted = Range(first, last + 1), Range(begin, end + 1)
        made = list(pieces(wanted, whole))
        for _ in range(20):
            moment = chance.choice((begin, end, first, last, first + chance.randrange(last - first + 1)))
            times = sum(
                piece.sign
                for piece in made
                if (not piece.month or piece.month == month_of(moment))
                and (piece.range is None or piece.range.since <= moment < piece.range.until)
            )
            assert times == (begin <= moment <= end)


def test_a_count_in_parts_counts_each_record_once() -> None:
    """By the parts there are, and by those of a moment ago for as long as that does no harm."""
    chance = Chance(5)
    held = 0
    for _ in range(2000):
        made = [(BEGIN + chance.randrange(70 * 24) * HOUR, number) for number in range(60)]
        there = some_parts(chance, made)
        arrived = some_parts(chance, made[30:], begun=len(there))
        if chance.randrange(2):  # newer than all there was, as nearly always
            newest = max(moment for part in there for moment, _ in part)
            arrived = [
                [(newest + 1 + moment - BEGIN, -number) for moment, number in part] for part in arrived
            ]
        begin, end = sorted(BEGIN + chance.randrange(80 * 24) * HOUR for _ in range(2))
        wanted = chance.choice((Range(begin, end + 1), Range(begin, 2**63 - 1), Range(-(2**63), end)))
        earlier = plan(wanted, described(there))
        now = plan(wanted, described([*there, *arrived]))
        assert by_plan(earlier, there) == once(wanted, there)
        assert by_plan(now, [*there, *arrived]) == once(wanted, [*there, *arrived])
        if arrived and earlier.holds_for(now):
            held += 1
            assert by_plan(earlier, [*there, *arrived]) == once(wanted, [*there, *arrived])
    assert held > 200


Rows: TypeAlias = list[tuple[int, int]]
"""Moment and number of each; of a part that was merged, no two are the same."""


def some_parts(chance: Chance, made: Rows, begun: int = 0) -> list[Rows]:
    """Put some records into parts, some of them twice; a part is merged if its number is even."""
    parts = []
    for number in range(begun, begun + chance.randrange(0 if begun else 1, 5)):
        begin = chance.randrange(len(made) - 5)
        some = sorted(made)[begin : begin + chance.randrange(1, 20)]
        parts.append(some if number % 2 == 0 else [*some, *some[: chance.randrange(3)]])
    return parts


def described(parts: list[Rows]) -> list[Part]:
    """Describe parts as the engine does."""
    return [
        Part(f"202611_{number}_{number}_{1 - number % 2}", min(part)[0], max(part)[0])
        for number, part in enumerate(parts)
    ]


def by_plan(counting: Plan, parts: list[Rows]) -> int:
    """Count rows as a plan says."""
    rows = [row for part in parts for row in part]
    doubtful = [row for row in rows if any(each.since <= row[0] < each.until for each in counting.doubtful)]
    return sum(
        piece.sign
        for moment, _ in rows
        for piece in counting.pieces
        if (not piece.month or piece.month == month_of(moment))
        and (piece.range is None or piece.range.since <= moment < piece.range.until)
    ) - (len(doubtful) - len(set(doubtful)))


def once(wanted: Range, parts: list[Rows]) -> int:
    """Count each record once."""
    return len({row for part in parts for row in part if wanted.since <= row[0] < wanted.until})


def month_of(moment: int) -> int:
    """Return the month of a moment as a number such as 202609."""
    day = datetime.datetime.fromtimestamp(moment // 10**9, datetime.UTC)
    return day.year * 100 + day.month


def test_what_may_be_there_twice_lies_within_the_overlaps() -> None:
    """Every moment that two parts share, and every one of a part that was not merged."""
    chance = Chance(4)
    for _ in range(300):
        parts = []
        for number in range(chance.randrange(1, 30)):
            first = chance.randrange(1000)
            parts.append(
                Part(
                    f"202611_{number}_{number}_{chance.choice((0, 1, 3))}",
                    first,
                    first + chance.randrange(90),
                )
            )
        found = overlaps(parts)
        assert len(found) <= 20
        for moment in range(1100):
            there = [part for part in parts if part.first <= moment <= part.last]
            if len(there) > 1 or any(not part.merged for part in there):
                assert any(each.since <= moment < each.until for each in found)
    assert overlaps([Part("202611_1_5_2", 0, 9), Part("202611_6_6_1_3", 10, 12)]) == []
