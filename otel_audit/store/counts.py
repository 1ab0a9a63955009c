"""How often: the number of requests that match, each counted once.

The engine counts from an index alone where there is nothing else to look at, in a few milliseconds however
many there are: of months that are asked for as a whole. In the month where a range begins or ends it reads
the times of the shorter side.

A record that was sent twice is there twice until its parts are merged. There can be two of one only where
parts of a table overlap in time, and in parts that were never merged: there record ids are counted. Nearly
always this is the last hour.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from otel_audit.errors import QueryError
from otel_audit.store.client import Ask
from otel_audit.store.filters import MOMENT, Conditions, address_condition, pattern_condition
from otel_audit.store.schema import OTHER_LOG, events
from otel_audit.store.work import REQUEST_LOGS

Status: TypeAlias = "int | str | Sequence[int | str]"

_STATUS: Final = re.compile(r"[1-5](?:[0-9][0-9]|xx)")
_TABLES: Final = tuple(map(events, REQUEST_LOGS))
_OTHERS: Final = events(OTHER_LOG)
_MOST_MONTHS: Final = 24
"""Months that are counted one by one: each of them is a statement of its own to the engine."""
_MOST_RANGES: Final = 20
_MOST_LOOKS: Final = 3
_ALL_TIME: Final = (-(2**63), 2**63 - 1)
_SECOND: Final = 10**9


class Asked(NamedTuple):
    """What requests are counted by; ``users`` are all the names and ids that one user goes by."""

    ip: str | None = None
    path: str | None = None
    view: str | None = None
    slug: str | None = None
    method: str | Sequence[str] | None = None
    status: Status | None = None
    users: Sequence[str] = ()


class Range(NamedTuple):
    """Nanoseconds since the epoch; the first is included, the last is not."""

    since: int
    until: int


class Part(NamedTuple):
    """A part of a table: its name, and the times of its first and last row."""

    name: str
    first: int
    last: int

    @property
    def merged(self) -> bool:
        """Whether it was merged, so that it has each record once; the fourth part of its name tells."""
        return self.name.split("_")[3] != "0"


class Piece(NamedTuple):
    """What is counted at once, and whether it is added or taken away: a month (202611), a range, or all."""

    sign: int
    month: int = 0
    range: Range | None = None


def count(
    ask: Ask, database: str, asked: Asked, since: int | None, until: int | None, exclude: Sequence[str]
) -> int:
    """Return how many requests match.

    Args:
        ask: asks the store.
        database: where the tables are.
        asked: the conditions.
        since, until: nanoseconds since the epoch.
        exclude: ids of requests or records that do not count.

    Raises:
        QueryError: a condition is not valid; the message says what is.
    """
    wanted = Range(_ALL_TIME[0] if since is None else since, _ALL_TIME[1] if until is None else until)
    found = _by_index(ask, database, asked, wanted)
    if found is None:
        found = _distinct(ask, database, asked, wanted)
    return found - (_distinct(ask, database, asked, wanted, exclude) if exclude else 0)


def _by_index(ask: Ask, database: str, asked: Asked, wanted: Range) -> int | None:
    """Count by the index; None where it cannot tell, or rows arrived at each look."""
    for _ in range(_MOST_LOOKS):
        parts, others = _look(ask, database, asked)
        if others:  # in the table of another log: the same record may be in both
            return None
        found = _count(ask, database, asked, wanted, parts)
        if found is not None:
            return found
    return None


def _look(ask: Ask, database: str, asked: Asked) -> tuple[dict[str, list[Part]], int]:
    """Return the parts of each table, and the number of such requests that are with the records of others."""
    where = _conditions(asked)
    each = [*_parts(database), _counted("others", 0, database, _OTHERS, where)]
    parts: dict[str, list[Part]] = {table: [] for table in _TABLES}
    others = 0
    for row in ask(" UNION ALL ".join(each), where.parameters):
        if row["kind"] == "others":
            others = row["n"]
        else:
            parts[row["kind"]].append(Part(row["part"], row["first"], row["last"]))
    return parts, others


def _parts(database: str) -> Iterator[str]:
    for table in _TABLES:
        yield (
            f"SELECT '{table}' AS kind, _part AS part, toUnixTimestamp64Nano(min(timestamp)) AS first, "
            f"toUnixTimestamp64Nano(max(timestamp)) AS last, toInt64(0) AS n FROM {database}.{table} "
            "GROUP BY part"
        )


def _counted(
    kind: str, sign: int, database: str, table: str, where: Conditions, what: str = "count()"
) -> str:
    number = f"{sign} * toInt64({what})" if sign else f"toInt64({what})"
    return (
        f"SELECT '{kind}' AS kind, '' AS part, toInt64(0) AS first, toInt64(0) AS last, {number} AS n "
        f"FROM {database}.{table} WHERE {where}"
    )


def _count(ask: Ask, database: str, asked: Asked, wanted: Range, parts: dict[str, list[Part]]) -> int | None:
    """Count by the index, and apart where a record may be there twice; None if rows arrived meanwhile."""
    shared = Conditions()
    each = list(_parts(database))
    for table, there in parts.items():
        if not there:
            continue
        whole = Range(min(part.first for part in there), max(part.last for part in there) + 1)
        clipped = _both(whole, wanted)
        if clipped is None:
            continue
        for piece in pieces(clipped, whole):
            where = _conditions(asked, shared, months=(piece.month,) if piece.month else ())
            if piece.range is not None:
                _within(where, [piece.range])
            each.append(_counted("count", piece.sign, database, table, where))
        doubtful = [both for each_ in overlaps(there) if (both := _both(each_, clipped))]
        if doubtful:
            where = _conditions(asked, shared)
            _within(where, doubtful)
            each.append(_counted("count", -1, database, table, where, "count() - uniqExact(record_id)"))
    rows = ask(" UNION ALL ".join(each), shared.parameters)
    seen = {row["part"] for row in rows if row["kind"] != "count"}
    if seen != {part.name for there in parts.values() for part in there}:
        return None
    return sum(int(row["n"]) for row in rows if row["kind"] == "count")


def _distinct(ask: Ask, database: str, asked: Asked, wanted: Range, only: Sequence[str] = ()) -> int:
    """Count record ids, whatever tables they are in; ``only`` of these requests or records."""
    where = _conditions(asked)
    _within(where, [wanted])
    if only:
        where.add("(request_id IN {Array(String)} OR toString(record_id) IN {Array(String)})", only, only)
    each = [f"SELECT record_id FROM {database}.{table} WHERE {where}" for table in (*_TABLES, _OTHERS)]
    [row] = ask(f"SELECT uniqExact(record_id) AS n FROM ({' UNION ALL '.join(each)})", where.parameters)
    return int(row["n"])


def pieces(wanted: Range, whole: Range) -> Iterator[Piece]:
    """Say what to count so that it is what lies in ``wanted``, a part of the ``whole`` that there is."""
    if wanted == whole:
        yield Piece(1)
        return
    months = list(_months(wanted))
    if len(months) > _MOST_MONTHS:
        yield Piece(1, range=wanted)
        return
    for number, begin, end in months:
        month = _both(Range(begin, end), whole)
        inside = _both(Range(begin, end), wanted)
        assert month is not None
        assert inside is not None
        if 2 * (inside.until - inside.since) < month.until - month.since:
            yield Piece(1, range=inside)
            continue
        yield Piece(1, month=number)
        if month.since < inside.since:
            yield Piece(-1, range=Range(month.since, inside.since))
        if inside.until < month.until:
            yield Piece(-1, range=Range(inside.until, month.until))


def _months(wanted: Range) -> Iterator[tuple[int, int, int]]:
    """Return the months of a range, each with its number and the nanoseconds at which it begins and ends."""
    day = datetime.datetime.fromtimestamp(wanted.since // _SECOND, datetime.UTC)
    begin = datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC)
    while (nanoseconds := int(begin.timestamp()) * _SECOND) < wanted.until:
        following = (begin + datetime.timedelta(days=31)).replace(day=1)
        yield begin.year * 100 + begin.month, nanoseconds, int(following.timestamp()) * _SECOND
        begin = following


def overlaps(parts: Sequence[Part]) -> list[Range]:
    """Return the times in which a record may be there twice: of two parts, or of one that was not merged."""
    found: list[Range] = []
    reached = _ALL_TIME[0]
    for part in sorted(parts, key=lambda each: each.first):
        until = min(reached, part.last) + 1 if part.merged else part.last + 1
        if part.first < until:
            if found and part.first <= found[-1].until:
                found[-1] = Range(found[-1].since, max(found[-1].until, until))
            else:
                found.append(Range(part.first, until))
        reached = max(reached, part.last)
    while len(found) > _MOST_RANGES:  # the two that are nearest become one
        at = min(range(len(found) - 1), key=lambda i: found[i + 1].since - found[i].until)
        found[at : at + 2] = [Range(found[at].since, found[at + 1].until)]
    return found


def _both(one: Range, other: Range) -> Range | None:
    both = Range(max(one.since, other.since), min(one.until, other.until))
    return both if both.since < both.until else None


def _within(where: Conditions, ranges: Sequence[Range]) -> None:
    each: list[str] = []
    values: list[int] = []
    for one in ranges:
        sides = [(">=", one.since)] if one.since > _ALL_TIME[0] else []
        sides += [("<", one.until)] if one.until < _ALL_TIME[1] else []
        each.append(" AND ".join(f"timestamp {sign} {MOMENT}" for sign, _ in sides) or "1")
        values += [value for _, value in sides]
    where.add(f"({' OR '.join(f'({one})' for one in each)})", *values)


def _conditions(asked: Asked, shared: Conditions | None = None, months: Sequence[int] = ()) -> Conditions:
    """Return the conditions on requests: one that the index answers, as far as possible.

    ``shared`` has the parameters of statements that are asked together.
    """
    where = Conditions() if shared is None else Conditions(shared.parameters)
    items = ["request", *(f"month={month}" for month in months)]
    for name in ("path", "view", "slug"):
        value = getattr(asked, name)
        if value is None:
            continue
        if "*" in value or not value.strip():
            pattern_condition(where, name, value)
        else:
            items.append(f"{name}={value}")
    if asked.ip is not None:
        if "/" in asked.ip or not asked.ip.strip():
            address_condition(where, asked.ip)
        else:
            items.append(f"ip={asked.ip.strip()}")
    for choice in (
        [f"method={each.upper()}" for each in _several("method", asked.method)],
        [f"status={_status(each)}" for each in _several("status", asked.status)],
        [f"user={each}" for each in asked.users],
    ):
        if len(choice) == 1:
            items += choice
        elif choice:
            where.add("hasAny(request_items, {Array(String)})", choice)
    where.add("hasAll(request_items, {Array(String)})", items)
    return where


def _several(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    listed = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
    found = [str(each).strip() for each in listed]
    if not found or not all(found):
        raise QueryError(f"{name} is empty; omit it, or write what to count")
    return found


def _status(text: str) -> str:
    if not _STATUS.fullmatch(text.lower()):
        raise QueryError(
            f"status {text!r} does not exist; write a number such as 404, or 4xx for all of them"
        )
    return text.lower()
