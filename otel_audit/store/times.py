"""Points in time as people write them, and back: ``2 hours ago``, ``15m``, ``yesterday 14:00``, ISO 8601.

A time is nanoseconds since the Unix epoch. Days begin and clock times are meant in the reader's zone.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
import time
from typing import Final, TypeAlias

from otel_audit.errors import QueryError

TimeLike: TypeAlias = "str | int | dt.datetime | dt.date | dt.timedelta"

VALID_TIMES: Final = (
    "15m, 2h, 3d, 1w, 3mo, '2 hours ago', 'an hour ago', today, yesterday, 'yesterday 14:00', monday, 14:30, "
    "october, 'october 2025', 'this month', 2026-10, 2026-11-23, '2026-11-23 14:30', "
    "2026-11-23T14:30:00Z, now"
)
"""What a message lists when a time is not understood."""

_SECOND: Final = 1_000_000_000
_LOWEST: Final = -2_208_988_800 * _SECOND  # 1900, the first year of a DateTime64
_HIGHEST: Final = 2**63 - 1

_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
}
_DAY_UNITS: Final = {
    **dict.fromkeys(("d", "day", "days"), 1),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 7),
}
_MONTH_UNITS: Final = {
    **dict.fromkeys(("mo", "month", "months"), 1),
    **dict.fromkeys(("y", "yr", "year", "years"), 12),
}
# Not calendar's names, which the locale decides.
_WEEKDAYS: Final = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_MONTHS: Final = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?|an?(?= ))\s*([a-z]+)\s*(?:,|and\b)?\s*")
_CLOCK: Final = re.compile(r"(?:at )?(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?")
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ]\s*(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(z|utc|[+-]\d\d:?\d\d)?)?"
    r"(?<!\s)",
    re.IGNORECASE,
)
_EPOCH_UNITS: Final = {9: 10**9, 10: 10**9, 13: 10**6, 16: 10**3, 19: 1}
_EPOCH: Final = re.compile(r"@?(\d{9,10}|\d{13}|\d{16}|\d{19})")


def parse_time(
    value: TimeLike, *, now: int | None = None, zone: dt.tzinfo | None = None, end: bool = False
) -> int:
    """Turn what a person wrote, or a Python time, into nanoseconds since the epoch.

    Args:
        value: text as :data:`VALID_TIMES` shows, nanoseconds, a datetime (naive: in ``zone``), a date, or a
            duration before now.
        now: the present in nanoseconds; by default the clock's.
        zone: whose days and clock times are meant; by default the machine's.
        end: a whole day means its end, not its beginning (``until yesterday`` includes yesterday).

    Raises:
        QueryError: the text is not understood, or the time is outside 1900–2262; says what is valid.
    """
    present = time.time_ns() if now is None else now
    if isinstance(value, bool):
        raise _not_understood(repr(value))
    if isinstance(value, int):
        return _within(value, str(value))
    if isinstance(value, dt.timedelta):
        return _within(present - value // dt.timedelta(microseconds=1) * 1000, str(value))
    if isinstance(value, dt.datetime):
        return _within(_nanoseconds(value, zone), str(value))
    if isinstance(value, dt.date):
        return _within(_day(value, zone, end), str(value))
    try:
        return _within(_parse(value.strip(), present, zone, end), value)
    except (ValueError, OverflowError) as error:
        raise _not_understood(value) from error


def _parse(text: str, now: int, zone: dt.tzinfo | None, end: bool) -> int:
    iso = _ISO.fullmatch(text)
    if iso:
        return _iso(iso, zone, end)
    epoch = _EPOCH.fullmatch(text)
    if epoch:
        digits = epoch.group(1)
        return int(digits) * _EPOCH_UNITS[len(digits)]
    words = " ".join(text.lower().split())
    local = _local(now, zone)
    if words == "now":
        return now
    clock = _CLOCK.fullmatch(words)
    if clock:
        return _at(local.date(), clock, zone)
    month = _named_month(words, local.date())
    if month is not None:
        return _day(_next_month(month) if end else month, zone, end=False)
    name, _, rest = words.removeprefix("last ").partition(" ")
    day = _named_day(name, local.date(), before=words.startswith("last "))
    if day is not None:
        if not rest:
            return _day(day, zone, end)
        clock = _CLOCK.fullmatch(rest)
        if clock is None:
            raise _not_understood(text)
        return _at(day, clock, zone)
    return _ago(words, now, zone)


def _ago(words: str, now: int, zone: dt.tzinfo | None) -> int:
    """Read durations: ``2h``, ``2h30m``, ``a day and 2 hours ago``, ``-15m``."""
    words = words.removesuffix(" ago").removeprefix("-")
    if words.startswith("last "):
        words = words.removeprefix("last ")
        words = words if words[:1].isdigit() else "1 " + words  # "last hour", "last 3 days"
    position, seconds, days, months = 0, 0.0, 0.0, 0
    while position < len(words):
        part = _AMOUNT.match(words, position)
        if part is None:
            raise _not_understood(words)
        amount = 1.0 if part.group(1).startswith("a") else float(part.group(1))
        unit = part.group(2)
        if unit in _UNITS:
            seconds += amount * _UNITS[unit]
        elif unit in _DAY_UNITS:
            days += amount * _DAY_UNITS[unit]
        elif unit in _MONTH_UNITS and amount.is_integer():
            months += int(amount) * _MONTH_UNITS[unit]
        else:
            raise _not_understood(words)
        position = part.end()
    if not position:
        raise _not_understood(words)
    # Days and months go by the calendar: "3 days ago" is the same clock time over a change of summer time.
    result = now
    if months or days >= 1:
        local = _months_before(_local(now, zone), months) - dt.timedelta(days=int(days))
        result = _nanoseconds(local, zone) + now % 1000
    return result - round((seconds + (days - int(days)) * 86400) * _SECOND)


def _months_before(local: dt.datetime, months: int) -> dt.datetime:
    year, month = divmod(local.year * 12 + local.month - 1 - months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return local.replace(year=year, month=month + 1, day=min(local.day, last))


def _iso(match: re.Match[str], zone: dt.tzinfo | None, end: bool) -> int:
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    date = dt.date(int(year), int(month), int(day))
    if hour is None:
        return _day(date, zone, end)
    moment = dt.datetime.combine(date, dt.time(int(hour), int(minute), int(second or 0)))
    if offset:
        shift = "+00:00" if offset.lower() in ("z", "utc") else offset
        moment = moment.replace(tzinfo=dt.datetime.strptime(shift.replace(":", ""), "%z").tzinfo)
    return _nanoseconds(moment, zone) + int((fraction or "0").ljust(9, "0"))


def _named_day(name: str, today: dt.date, *, before: bool) -> dt.date | None:
    if name in ("today", "yesterday") and not before:
        return today - dt.timedelta(days=name == "yesterday")
    for number, weekday in enumerate(_WEEKDAYS):
        if name in (weekday, weekday[:3]):
            back = (today.weekday() - number) % 7
            return today - dt.timedelta(days=back or 7 * before)
    return None


def _named_month(words: str, today: dt.date) -> dt.date | None:
    """Return the first day of a month: ``2026-10``, ``october`` (the latest), ``october 2025``."""
    if words == "this month":
        return today.replace(day=1)
    numbered = re.fullmatch(r"(\d{4})-(\d\d)", words)
    if numbered:
        return dt.date(int(numbered[1]), int(numbered[2]), 1)
    named = re.fullmatch(r"(?:last )?([a-z]+)(?: (\d{4}))?", words)
    for number, name in enumerate(_MONTHS, 1) if named else ():
        if named and named[1] in (name, name[:3]):
            year = int(named[2]) if named[2] else today.year - (number > today.month)
            if words.startswith("last ") and not named[2] and number == today.month:
                year -= 1
            return dt.date(year, number, 1)
    return None


def _next_month(first: dt.date) -> dt.date:
    return (first + dt.timedelta(days=31)).replace(day=1)


def _at(day: dt.date, clock: re.Match[str], zone: dt.tzinfo | None) -> int:
    hour, minute, second, fraction = clock.groups()
    moment = dt.datetime.combine(day, dt.time(int(hour), int(minute), int(second or 0)))
    return _nanoseconds(moment, zone) + int((fraction or "0").ljust(9, "0"))


def _day(day: dt.date, zone: dt.tzinfo | None, end: bool) -> int:
    midnight = dt.datetime.combine(day + dt.timedelta(days=end), dt.time())
    return _nanoseconds(midnight, zone)


def _local(nanoseconds: int, zone: dt.tzinfo | None) -> dt.datetime:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=nanoseconds // 1000)
    return _in_zone(moment, zone).replace(tzinfo=None)


def _nanoseconds(moment: dt.datetime, zone: dt.tzinfo | None) -> int:
    if moment.tzinfo is None:
        moment = _in_zone(moment, None) if zone is None else moment.replace(tzinfo=zone)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1) * 1000


def _within(nanoseconds: int, text: str) -> int:
    if not _LOWEST <= nanoseconds <= _HIGHEST:
        raise QueryError(f"time {text!r} is outside the range of the store, 1900 to 2262")
    return nanoseconds


def _not_understood(text: str) -> QueryError:
    return QueryError(f"time {text!r} is not valid; write one of {VALID_TIMES}")


def format_time(nanoseconds: int, *, zone: dt.tzinfo | None = None, date: bool = True) -> str:
    """Write a time for people, to the second, in ``zone`` (default: the machine's)."""
    return _aware(nanoseconds, zone).strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")


def format_iso(nanoseconds: int, *, zone: dt.tzinfo | None = dt.UTC, digits: int = 9) -> str:
    """Write a time in ISO 8601 with ``digits`` of the second's fraction and offset (``Z`` for UTC)."""
    moment = _aware(nanoseconds, zone)
    offset = moment.strftime("%z")
    shown = "Z" if zone is dt.UTC else f"{offset[:3]}:{offset[3:5]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{f'{nanoseconds % _SECOND:09d}'[:digits]}{shown}"


def zone_name(nanoseconds: int, *, zone: dt.tzinfo | None = None) -> str:
    """Name the zone at a time, with its offset: ``CET (+01:00)``, ``UTC``."""
    moment = _aware(nanoseconds, zone)
    name, offset = moment.tzname() or "", moment.strftime("%z")
    offset = f"{offset[:3]}:{offset[3:5]}"
    if name == "UTC":
        return name
    return offset if not name or name[0] in "+-" else f"{name} ({offset})"


def _aware(nanoseconds: int, zone: dt.tzinfo | None) -> dt.datetime:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=nanoseconds // 1000)
    return _in_zone(moment, zone)


def _in_zone(moment: dt.datetime, zone: dt.tzinfo | None) -> dt.datetime:
    """Bring a time into a zone; where the machine's makes no sense (TZ=UTC+25), into UTC."""
    try:
        return moment.astimezone(zone)
    except ValueError:
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
