"""Make a store of :mod:`benchmarks.store_load` several times as large, of its own rows, inside the engine.

A copy of all records for each time, earlier than the one before by the time they span, with ids of their own
and with as many times more users and objects, so that a user or an object is as rare among them as the same
generator would make it: of a request all records go to the same one of the users that take the place of one,
and the records of each user lie in the whole span. New values with an ``@`` are told apart as well; other
words stay, so that a number in a text is as frequent among ten times as many.

A month is written as one part with its indexes, as the server leaves it after a night; to make the parts of
an ordinary load and merge them would take twice as long.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from otel_audit.server.engine.engine import Connection, Engine
from otel_audit.store.schema import EVENTS

_SOURCE: Final = "multiplied"
_DAY: Final = datetime.timedelta(days=1)
_SETTINGS: Final = {
    "max_threads": 1,
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 5_000_000,  # more than a month has, so that it becomes one part
    "min_insert_block_size_bytes": 0,
}


class _Month(NamedTuple):
    begin: datetime.datetime
    until: datetime.datetime


def multiply(engine: Engine, database: str, times: int, *, end: str) -> None:
    """Put ``times`` as many records, the newest of them at ``end``, in the place of those there are.

    Goes on where it was stopped.
    """
    source, table = f"{database}.{_SOURCE}", f"{database}.{EVENTS}"
    last = datetime.datetime.fromisoformat(end)
    with engine.connection() as connection:
        if not int(connection.rows(f"EXISTS TABLE {source}")[0][0]):
            connection.query(f"RENAME TABLE {table} TO {source}")
        connection.query(f"SYSTEM STOP MERGES {source}")
        connection.query(f"CREATE TABLE IF NOT EXISTS {table} AS {source}")
        [[first, newest]] = connection.rows(
            f"SELECT toString(min(toDate(timestamp))), toString(max(toDate(timestamp))) FROM {source}"
        )
        there = _Month(*map(datetime.datetime.fromisoformat, (first, newest)))
        span = there.until + _DAY - there.begin
        # By how much each copy is earlier; the first one may be later.
        earlier = [there.until + _DAY - last + copy * span for copy in range(times)]

    def write(month: _Month) -> None:
        copies = [
            (copy, by, _Month(month.begin + by, month.until + by))
            for copy, by in enumerate(earlier)
            if month.begin + by <= there.until and month.until + by > there.begin
        ]
        with engine.connection() as connection:
            wanted = sum(_count(connection, source, lies) for _, _, lies in copies)
            found = _count(connection, table, month)
            if found != wanted:
                for name, value in _SETTINGS.items():
                    connection.query(f"SET {name} = {value}")
                if found:
                    connection.query(f"ALTER TABLE {table} DROP PARTITION {month.begin:%Y%m}")
                # The oldest copy is the one whose last records begin the month.
                each = [_copy(source, copy, times, by, _within(lies)) for copy, by, lies in reversed(copies)]
                connection.query(f"INSERT INTO {table} {' UNION ALL '.join(each)}")
        sys.stderr.write(f"{wanted} records in {month.begin:%Y-%m}\n")

    for month in _months(last - span * times, last):  # one takes some 8 GB of memory
        write(month)
    with engine.connection() as connection:
        connection.query(f"DROP TABLE {source} SYNC")


def _months(since: datetime.datetime, until: datetime.datetime) -> Iterator[_Month]:
    """Return the months of a range, the newest first."""
    begin = until.replace(day=1, hour=0, minute=0, second=0)
    following = (begin + 31 * _DAY).replace(day=1)
    while following > since:
        yield _Month(begin, following)
        begin, following = (begin - _DAY).replace(day=1), begin


def _within(month: _Month) -> str:
    begin, until = (f"toDateTime64('{each}', 9, 'UTC')" for each in month)
    return f"s.timestamp >= {begin} AND s.timestamp < {until}"


def _count(connection: Connection, table: str, month: _Month) -> int:
    return int(connection.rows(f"SELECT count() FROM {table} AS s WHERE {_within(month)}")[0][0])


def _copy(source: str, copy: int, times: int, earlier: datetime.timedelta, where: str) -> str:
    """Return the SELECT of one copy."""
    user, key = f"of_request % {times}", f"of_record % {times}"
    values = {
        "timestamp": "at",
        "record_id": _uuid_text("random", "toUUID"),
        "actor_id": f"toString(toUInt64OrZero(s.actor_id) * {times} + {user})",
        "actor_name": f"concat('user', toString(toUInt64OrZero(s.actor_id) * {times} + {user}))",
        "session": f"lower(hex(intHash64(toUInt64OrZero(s.actor_id) * {times} + {user})))",
        "target_id": f"toString(toUInt64OrZero(s.target_id) * {times} + {key})",
        "request_id": "request",
        "transaction": _uuid_text("request"),
        "trace_id": f"lower(hex(sipHash128(s.trace_id, {copy})))",
        "span_id": "lower(hex(of_record))",
        "stream": f"concat(substring(s.stream, 1, 17), '{copy:x}', substring(s.stream, 19))",
        "`changes.new`": f"arrayMap(v -> replaceOne(v, '@', concat(toString({key}), '@')), s.changes.new)",
    }
    replaced = ", ".join(f"{value} AS {name}" for name, value in values.items())
    return f"""
WITH
    sipHash64(s.request_id, {copy}) AS of_request, sipHash64(s.record_id, {copy}) AS of_record,
    lower(hex(sipHash128(s.record_id, {copy}))) AS random,
    lower(hex(sipHash128(s.request_id, {copy}, 'request'))) AS request,
    s.timestamp - toIntervalDay({earlier.days}) AS at,
    lower(leftPad(hex(toUnixTimestamp64Milli(at)), 12, '0')) AS moment
SELECT * REPLACE ({replaced}) FROM {source} AS s WHERE {where}"""


def _uuid_text(random: str, function: str = "") -> str:
    """Return the SQL of a UUIDv7 of the record's moment."""
    return (
        f"{function}(concat(substring(moment, 1, 8), '-', substring(moment, 9, 4), '-7', "
        f"substring({random}, 1, 3), '-8', substring({random}, 4, 3), '-', substring({random}, 7, 12)))"
    )
