"""Times as people write them: what is meant, in whose zone, and what is said of the rest."""

from __future__ import annotations

import contextlib
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.errors import QueryError
from otel_audit.store.times import format_iso, format_time, parse_time, zone_name

BERLIN = ZoneInfo("Europe/Berlin")
NOW = dt.datetime(2026, 11, 23, 15, 30, 0, tzinfo=BERLIN)  # a Monday


def ns(moment: dt.datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000


def parsed(text: str, *, end: bool = False, now: dt.datetime = NOW) -> dt.datetime:
    found = parse_time(text, now=ns(now), zone=BERLIN, end=end)
    return dt.datetime.fromtimestamp(found / 1e9, BERLIN)


def berlin(*parts: int) -> dt.datetime:
    return dt.datetime(*parts).replace(tzinfo=BERLIN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("15m", berlin(2026, 11, 23, 15, 15)),
        ("2 hours ago", berlin(2026, 11, 23, 13, 30)),
        ("2 Hours  Ago", berlin(2026, 11, 23, 13, 30)),
        ("an hour ago", berlin(2026, 11, 23, 14, 30)),
        ("last hour", berlin(2026, 11, 23, 14, 30)),
        ("1.5h", berlin(2026, 11, 23, 14, 0)),
        ("2h30m", berlin(2026, 11, 23, 13, 0)),
        ("1 day and 2 hours ago", berlin(2026, 11, 22, 13, 30)),
        ("3d", berlin(2026, 11, 20, 15, 30)),
        ("a week ago", berlin(2026, 11, 16, 15, 30)),
        ("1 month ago", berlin(2026, 10, 23, 15, 30)),
        ("a year ago", berlin(2025, 11, 23, 15, 30)),
        ("today", berlin(2026, 11, 23)),
        ("yesterday", berlin(2026, 11, 22)),
        ("yesterday 14:00", berlin(2026, 11, 22, 14, 0)),
        ("yesterday at 9:05:07", berlin(2026, 11, 22, 9, 5, 7)),
        ("monday", berlin(2026, 11, 23)),
        ("last monday", berlin(2026, 11, 16)),
        ("fri", berlin(2026, 11, 20)),
        ("14:30", berlin(2026, 11, 23, 14, 30)),
        ("2026-11-01", berlin(2026, 11, 1)),
        ("2026-11-01 08:15", berlin(2026, 11, 1, 8, 15)),
        ("2026-11-01T08:15:30", berlin(2026, 11, 1, 8, 15, 30)),
        ("2026-11-01T08:15:30Z", berlin(2026, 11, 1, 9, 15, 30)),
        ("2026-11-01 08:15 +05:30", berlin(2026, 11, 1, 3, 45)),
        ("1700000000", berlin(2023, 11, 14, 23, 13, 20)),
        ("1700000000000", berlin(2023, 11, 14, 23, 13, 20)),
    ],
)
def test_text_means(text: str, expected: dt.datetime) -> None:
    assert parsed(text) == expected


def test_days_go_by_the_calendar_over_a_change_of_summer_time() -> None:
    monday_after_change = berlin(2026, 10, 26, 12, 0)
    assert parsed("2 days ago", now=monday_after_change) == berlin(2026, 10, 24, 12, 0)
    assert parsed("48 hours ago", now=monday_after_change) == berlin(2026, 10, 24, 13, 0)


def test_month_before_the_thirty_first_ends_at_its_last_day() -> None:
    assert parsed("1 month ago", now=berlin(2026, 3, 31, 10, 0)) == berlin(2026, 2, 28, 10, 0)


def test_a_whole_day_as_end_includes_the_day_but_a_clock_time_is_itself() -> None:
    assert parsed("yesterday", end=True) == berlin(2026, 11, 23)
    assert parsed("2026-11-01", end=True) == berlin(2026, 11, 2)
    assert parsed("yesterday 14:00", end=True) == berlin(2026, 11, 22, 14, 0)
    assert parsed("2h", end=True) == berlin(2026, 11, 23, 13, 30)


def test_nanoseconds_survive() -> None:
    text = "2026-11-23T14:30:00.123456789Z"
    assert format_iso(parse_time(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "5", "5 parsecs", "h", "1.5 months ago", "in 2 hours", "9999 years ago"),
        *("2026-13-01", "2026-02-30", "25:00", "yesterday noon", "2026-11-23T10:00 Europe/Berlin"),
        *("'; DROP TABLE x", "9" * 400 + "d"),
    ],
)
def test_anything_else_is_refused_with_what_is_valid(text: str) -> None:
    with pytest.raises(QueryError, match=r"is not valid; write one of 15m, 2h, .*2026-11-23T14:30:00Z"):
        parse_time(text, now=ns(NOW), zone=BERLIN)


@given(st.text())
def test_no_text_ends_in_another_error(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert isinstance(parse_time(text, now=ns(NOW), zone=BERLIN), int)


def test_python_times_are_taken_as_they_are() -> None:
    assert parse_time(NOW) == ns(NOW)
    assert parse_time(NOW.replace(tzinfo=None), zone=BERLIN) == ns(NOW)
    assert parse_time(NOW.date(), zone=BERLIN) == ns(berlin(2026, 11, 23))
    assert parse_time(dt.timedelta(hours=1), now=ns(NOW)) == ns(NOW) - 3600 * 10**9
    assert parse_time(123) == 123
    with pytest.raises(QueryError, match="1900 to 2262"):
        parse_time(2**63)


def test_times_are_shown_in_the_zone_asked_for() -> None:
    moment = ns(NOW)
    assert format_time(moment, zone=BERLIN) == "2026-11-23 15:30:00"
    assert format_time(moment, zone=dt.UTC, date=False) == "14:30:00"
    assert zone_name(moment, zone=BERLIN) == "CET (+01:00)"
    assert zone_name(moment, zone=dt.UTC) == "UTC"
    assert format_iso(moment, zone=BERLIN) == "2026-11-23T15:30:00.000000000+01:00"
