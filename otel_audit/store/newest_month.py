"""Which questions are asked of the newest month first, and only then, if that is not enough, of the others.

The engine keeps a month in parts of its own, and reads a block of each part for the newest fifty records,
though the newest month would do: in a store of thirty months, thirty blocks. A question that rarely finds a
page in one month is asked once, since each statement costs some 20 ms before it reads.
"""

from __future__ import annotations

import datetime
import time
from typing import Final

from otel_audit.store.filters import Filters, read_cursor
from otel_audit.store.times import parse_time

_DAYS: Final = 7
"""On the first days of a month, the one before counts as well."""


def newest_month(filters: Filters, cursor: str | None) -> int | None:
    """Return the time (ns) from which to ask first; None if all is to be asked at once.

    Raises:
        QueryError: a time or the cursor is not valid.
    """
    if not _finds_many(filters):
        return None
    last = time.time_ns()
    if filters.until is not None:
        last = min(last, parse_time(filters.until))
    if cursor is not None:
        last = min(last, read_cursor(cursor)[0])
    day = datetime.datetime.fromtimestamp(last // 10**9, datetime.UTC) - datetime.timedelta(days=_DAYS)
    begin = int(datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC).timestamp()) * 10**9
    return None if filters.since is not None and parse_time(filters.since) >= begin else begin


def _finds_many(filters: Filters) -> bool:
    """Say whether a month is likely to have a page of what is asked for."""
    if filters.target is not None and "/" in filters.target:
        return False
    return all(
        value is None
        for value in (
            *(filters.request_id, filters.trace_id, filters.session, filters.parent),
            *(filters.related, filters.on_behalf_of, filters.reason, filters.text),
        )
    )
