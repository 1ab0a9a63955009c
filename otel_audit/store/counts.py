"""How often: the number of requests that match, each counted once.

The engine counts from an index alone where there is nothing else to look at, in a few milliseconds however
many there are: of months that are asked for as a whole. In the month where a range begins or ends it reads
the times of the shorter side.

A record that was sent twice is there twice until its parts are merged. There can be two of one only where
parts of a table overlap in time, and in parts that were never merged: there record ids are counted. Nearly
always this is the last hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from otel_audit.errors import QueryError
from otel_audit.named_tuples import NamedTuple
from otel_audit.store.client import Ask
from otel_audit.store.count_plans import ALL_TIME, Part, Parts, Plan, Range, plan
from otel_audit.store.filters import MOMENT, Conditions, address_condition, pattern_condition
from otel_audit.store.schema import OTHER_LOG, events
from otel_audit.store.work import KINDS, REQUEST_LOGS

Status: TypeAlias = "int | str | Sequence[int | str]"

_STATUS: Final = re.compile(r"[1-5](?:[0-9][0-9]|xx)")
_TABLES: Final = tuple(map(events, REQUEST_LOGS))
_OTHERS: Final = events(OTHER_LOG)
_MOST_LOOKS: Final = 4


class Asked(NamedTuple):
    """What requests are counted by; ``users`` are all the names and ids that one user goes by."""

    ip: str | None = None
    path: str | None = None
    view: str | None = None
    slug: str | None = None
    method: str | Sequence[str] | None = None
    status: Status | None = None
    users: Sequence[str] = ()


class Seen:
    """What the last count found: the next one needs to ask but once.

    The parts of the tables; and whether other logs have requests among their records.
    """

    def __init__(self) -> None:
        self.parts: Parts = {}
        self.in_others = False


def count(
    ask: Ask,
    database: str,
    asked: Asked,
    since: int | None,
    until: int | None,
    exclude: Sequence[str],
    seen: Seen,
) -> int:
    """Return how many requests match.

    Args:
        ask: asks the store.
        database: where the tables are.
        asked: the conditions.
        since, until: nanoseconds since the epoch.
        exclude: ids of requests or records that do not count.
        seen: what counting found in the same store before.

    Raises:
        QueryError: a condition is not valid; the message says what is.
    """
    wanted = Range(ALL_TIME[0] if since is None else since, ALL_TIME[1] if until is None else until)
    found = _by_index(ask, database, asked, wanted, seen)
    if found is None:
        found = _distinct(ask, database, asked, wanted)
    return found - (_distinct(ask, database, asked, wanted, exclude) if exclude else 0)


def _by_index(ask: Ask, database: str, asked: Asked, wanted: Range, seen: Seen) -> int | None:
    """Count by the index; None where it cannot tell, or rows arrived out of order at each look."""
    for _ in range(_MOST_LOOKS):
        parts = seen.parts or _parts(ask(" UNION ALL ".join(_parts_of(database)), {}))
        plans = {table: plan(wanted, there) for table, there in parts.items()}
        in_others = seen.in_others
        rows = ask(*_statement(database, asked, plans, in_others=in_others))
        seen.parts = found = _parts(rows)
        if any(row["n"] for row in rows if row["kind"] == "others"):
            if in_others:
                return None  # in the table of another log: the same record may be in both
            seen.in_others = True
        elif all(plans[table].holds_for(plan(wanted, there)) for table, there in found.items()):
            return sum(int(row["n"]) for row in rows if row["kind"] == "count")
    return None


def _parts(rows: Sequence[dict[str, Any]]) -> Parts:
    parts: Parts = {table: [] for table in _TABLES}
    for row in rows:
        if row["kind"] in parts:
            parts[row["kind"]].append(Part(row["part"], row["first"], row["last"]))
    return parts


def _parts_of(database: str) -> Iterator[str]:
    for table in _TABLES:
        yield (
            f"SELECT '{table}' AS kind, _part AS part, toUnixTimestamp64Nano(min(timestamp)) AS first, "
            f"toUnixTimestamp64Nano(max(timestamp)) AS last, toInt64(0) AS n FROM {database}.{table} "
            "GROUP BY part"
        )


def _counted(
    kind: str, sign: int, database: str, table: str, where: Conditions, what: str = "count()"
) -> str:
    return (
        f"SELECT '{kind}' AS kind, '' AS part, toInt64(0) AS first, toInt64(0) AS last, "
        f"{sign} * toInt64({what}) AS n FROM {database}.{table} WHERE {where}"
    )


def _statement(
    database: str, asked: Asked, plans: dict[str, Plan], *, in_others: bool
) -> tuple[str, dict[str, Any]]:
    """Return one statement that counts by these plans, and says which parts there are.

    The engine takes one snapshot of a table for all of a statement, so that these are the parts counted.
    """
    shared = Conditions()
    each = list(_parts_of(database))
    # Who asked is there, too, in parts that no merge has indexed yet; a request hardly ever is.
    others = _conditions(asked, shared) if in_others else Conditions(shared.parameters)
    if not in_others:
        others.add("event_name IN {Array(String)} AND ordinal = 0", list(KINDS["request"]))
    each.append(_counted("others", 1, database, _OTHERS, others))
    for table, (pieces_, doubtful) in plans.items():
        for piece in pieces_:
            where = _conditions(asked, shared, months=(piece.month,) if piece.month else ())
            if piece.range is not None:
                _within(where, [piece.range])
            each.append(_counted("count", piece.sign, database, table, where))
        if pieces_ and doubtful:
            where = _conditions(asked, shared)
            _within(where, doubtful)
            each.append(_counted("count", -1, database, table, where, "count() - uniqExact(record_id)"))
    return " UNION ALL ".join(each), shared.parameters


def _distinct(ask: Ask, database: str, asked: Asked, wanted: Range, only: Sequence[str] = ()) -> int:
    """Count record ids, whatever tables they are in; ``only`` of these requests or records."""
    where = _conditions(asked)
    _within(where, [wanted])
    if only:
        where.add("(request_id IN {Array(String)} OR toString(record_id) IN {Array(String)})", only, only)
    each = [f"SELECT record_id FROM {database}.{table} WHERE {where}" for table in (*_TABLES, _OTHERS)]
    [row] = ask(f"SELECT uniqExact(record_id) AS n FROM ({' UNION ALL '.join(each)})", where.parameters)
    return int(row["n"])


def _within(where: Conditions, ranges: Sequence[Range]) -> None:
    each: list[str] = []
    values: list[int] = []
    for one in ranges:
        sides = [(">=", one.since)] if one.since > ALL_TIME[0] else []
        sides += [("<", one.until)] if one.until < ALL_TIME[1] else []
        each.append(" AND ".join(f"timestamp {sign} {MOMENT}" for sign, _ in sides) or "1")
        values += [value for _, value in sides]
    where.add(f"({' OR '.join(f'({one})' for one in each)})", *values)


def _conditions(asked: Asked, shared: Conditions | None = None, months: Sequence[int] = ()) -> Conditions:
    """Return the conditions on requests: one that the index answers, as far as possible.

    ``shared`` has the parameters of statements that are asked together.
    """
    where = Conditions() if shared is None else Conditions(shared.parameters)
    items = [f"month={month}" for month in months]
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
    # Only requests have any of them.
    where.add("hasAll(request_items, {Array(String)})", items or ["request"])
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
