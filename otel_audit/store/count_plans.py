"""What to count, and where records may be there twice, so that each request counts once."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from otel_audit.named_tuples import NamedTuple

_MOST_MONTHS: Final = 24
"""Months that are counted one by one: each of them is a statement of its own to the engine."""
_MOST_RANGES: Final = 20
ALL_TIME: Final = (-(2**63), 2**63 - 1)
_SECOND: Final = 10**9
_LATE: Final = 60 * _SECOND
"""How much older than the oldest of the parts not yet merged a record may be that arrives next."""


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


Parts: TypeAlias = dict[str, list[Part]]
"""Those of each table."""


class Piece(NamedTuple):
    """What is counted at once, and whether it is added or taken away: a month (202611), a range, or all."""

    sign: int
    month: int = 0
    range: Range | None = None


class Plan(NamedTuple):
    """How to count in a table: what at once, and in which times by record ids."""

    pieces: tuple[Piece, ...]
    doubtful: tuple[Range, ...]

    def holds_for(self, other: Plan) -> bool:
        """Whether what the other one would count is counted by this one as well, perhaps with more effort."""
        return self.pieces == other.pieces and all(
            any(common(mine, each) == each for mine in self.doubtful) for each in other.doubtful
        )


def plan(wanted: Range, parts: Sequence[Part]) -> Plan:
    """Say how to count what lies in ``wanted`` in a table of these parts.

    Where the newest rows are in doubt, so are those to come, and those that may come somewhat late: they are
    counted by the same plan.
    """
    if not parts:
        return Plan((), ())
    whole = Range(min(part.first for part in parts), max(part.last for part in parts) + 1)
    doubtful = overlaps(parts)
    if doubtful and doubtful[-1].until == whole.until:
        doubtful[-1] = Range(doubtful[-1].since - _LATE, ALL_TIME[1])
    return Plan(
        tuple(pieces(wanted, whole)), tuple(both for each in doubtful if (both := common(each, wanted)))
    )


def pieces(wanted: Range, whole: Range) -> Iterator[Piece]:
    """Say what to count so that it is what lies in ``wanted``, where the ``whole`` is what there is.

    More may arrive in the months that there are, and is counted as well if it lies in ``wanted``.
    """
    clipped = common(wanted, whole)
    if clipped is None:
        return
    if clipped == whole:
        yield Piece(1)
        return
    months = list(_months(clipped))
    if len(months) > _MOST_MONTHS:
        yield Piece(1, range=wanted)
        return
    for number, begin, end in months:
        month = common(Range(begin, end), whole)
        inside = common(Range(begin, end), wanted)
        assert month is not None
        assert inside is not None
        there = common(month, inside)
        assert there is not None
        if 2 * (there.until - there.since) < month.until - month.since:
            yield Piece(1, range=inside)
            continue
        yield Piece(1, month=number)
        if month.since < there.since:
            yield Piece(-1, range=Range(begin, inside.since))
        if there.until < month.until:
            yield Piece(-1, range=Range(inside.until, end))


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
    reached = ALL_TIME[0]
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


def common(one: Range, other: Range) -> Range | None:
    """Return what lies in both ranges; None if nothing does."""
    found = Range(max(one.since, other.since), min(one.until, other.until))
    return found if found.since < found.until else None
