"""Gaps in the history of an object: an old value that no record before it has set.

Somebody wrote past the trail then: raw SQL, another client, a trigger. That accuses somebody, so a gap is
called certain only where nothing else explains it:

- the old value is exact: asked under lock, or returned by the statement itself;
- it is neither what the record before set, nor what any record did whose order is not certain: records closer
  together than a minute may have taken effect in another order than their times say (they waited for a lock);
- it is neither masked, cut nor described, and differs also as what it is: a number, a moment, JSON;
- it is no field that is set to the time of each save (``auto_now``), which alone makes no record;
- no record in between leaves open what the field became: rows known by number only, an unknown outcome.

Everything else that does not fit is possible only.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.audit_record import Change
from otel_audit.store.entries import AuditEntry, is_stamp

APART: Final = 60 * 10**9
"""Nanoseconds between two records after which their order is certain."""

PARTS_READ: Final = ("changes", "fields", "old_values", "truncated", "completeness")
"""The parts of entries that tell a gap."""

_CUT: Final = re.compile(r"^hmac:|… \(\d+ characters\)$")
_DESCRIBED: Final = re.compile(r"<.*>", re.DOTALL)
_LONGEST: Final = 1000
_BY_NUMBER: Final = ("count", "statement")


class Gap(msgspec.Struct, frozen=True):
    """A field that held another value than the trail knows.

    ``last`` is the record that told its value last, ``found`` the one that found another. ``certain`` is
    False where something else than a write outside the trail may explain it.
    """

    field: str
    last: AuditEntry
    found: AuditEntry
    certain: bool


class _Told(msgspec.Struct, frozen=True):
    """What one record says of one field; ``change`` is None where it leaves open what the field became."""

    entry: AuditEntry
    change: Change | None


def gaps(
    entries: Sequence[AuditEntry],
    *,
    doubts: Sequence[AuditEntry] = (),
    masks: Sequence[str] = ("[redacted]",),
) -> list[Gap]:
    """Find the gaps in the history of one object, in the order of time.

    Args:
        entries: of the object, in any order.
        doubts: records about the type of the object that do not name their rows.
        masks: what stands in masked values; those are never compared.
    """
    told: dict[str, list[_Told]] = {}
    for entry in sorted(entries, key=lambda each: (each.timestamp, each.id)):
        if entry.outcome != "failure" and entry.action != "READ":
            for field, each in _tellings(entry, told):
                told.setdefault(field, []).append(each)
    open_moments = [each.timestamp for each in (*entries, *doubts) if each.completeness in _BY_NUMBER]
    found = [
        gap for field, tellings in told.items() for gap in _gaps_of(field, tellings, open_moments, masks)
    ]
    return sorted(found, key=lambda gap: (gap.found.timestamp, gap.field))


def _tellings(entry: AuditEntry, fields: Iterable[str]) -> Iterator[tuple[str, _Told]]:
    """Return what a record says of each field; ``fields`` are those that were told of before."""
    if entry.action == "DELETE":  # an object that comes after it under this id is another one
        last = {each.field: each for each in entry.changes}
        for field in {*fields, *last}:
            yield field, _Told(entry, last.get(field))
        return
    for field in entry.fields:
        yield field, _Told(entry, None)
    for change in entry.changes:
        yield change.field, _Told(entry, change)


def _gaps_of(
    field: str, tellings: Sequence[_Told], open_moments: Sequence[int], masks: Sequence[str]
) -> Iterator[Gap]:
    if any(each.change is not None and is_stamp(each.change, each.entry.timestamp) for each in tellings):
        return  # a save that changes nothing else makes no record, and sets it all the same
    for number, (last, found) in enumerate(pairwise(tellings), 1):
        change = found.change
        if change is None or change.old is UNSET or found.entry.outcome != "success":
            continue
        explained, complete = _explanations(tellings, number)
        if not explained or any(_same(each, change) for each in explained):
            continue
        if _is_hidden(change.old, masks) or any(_is_hidden(each.new, masks) for each in explained):
            continue
        begin, end = last.entry.timestamp - APART, found.entry.timestamp + APART
        certain = (
            complete
            and found.entry.old_values == "exact"
            and not found.entry.truncated
            and not any(each.entry.truncated for each in tellings[:number])
            and all(each.type == change.type for each in explained)
            and not any(begin <= at <= end for at in open_moments)
        )
        yield Gap(field, last.entry, found.entry, certain)


def _explanations(tellings: Sequence[_Told], number: int) -> tuple[list[Change], bool]:
    """Return the changes any of which may have come right before a record, and whether these are all."""
    found = tellings[number]
    begin = _first_near(tellings, number)
    # Any of those near may have been the first, right after any of the group before.
    first = _first_near(tellings, begin - 1) if begin else 0
    last = number
    while last + 1 < len(tellings) and _are_near(tellings[last], tellings[last + 1]):
        last += 1
    near = [each for each in tellings[first : last + 1] if each is not found]
    before = [each for each in near if each.entry.timestamp <= found.entry.timestamp]
    complete = (begin > 0 or tellings[0].entry.action == "CREATE") and all(
        each.change is not None and each.change.new is not UNSET and each.entry.outcome == "success"
        for each in near
    )
    if not before or before[-1].change is None or before[-1].change.new is UNSET:
        return [], False
    changes = [each.change for each in near if each.change is not None]
    return [each for each in changes if each.new is not UNSET], complete


def _first_near(tellings: Sequence[_Told], number: int) -> int:
    while number and _are_near(tellings[number - 1], tellings[number]):
        number -= 1
    return number


def _are_near(earlier: _Told, later: _Told) -> bool:
    return later.entry.timestamp - earlier.entry.timestamp <= APART


def _is_hidden(value: Any, masks: Sequence[str]) -> bool:
    """Say whether a value cannot be compared: masked, hashed, cut, described, or long enough to be cut."""
    return isinstance(value, str) and (
        any(mask in value for mask in masks)
        or len(value) > _LONGEST
        or bool(_CUT.search(value))
        or bool(_DESCRIBED.fullmatch(value))
    )


def _same(before: Change, after: Change) -> bool:
    new, old = before.new, after.old
    if new == old:
        return True
    if new is None or old is None:
        return False
    for read in (_number, _moment, json.loads):
        try:
            if read(new) == read(old):
                return True
        except (ValueError, InvalidOperation, RecursionError, TypeError):
            continue
    return str(new).rstrip() == str(old).rstrip()  # CHAR(n) comes back padded


def _number(value: Any) -> Decimal:
    text = str(value).lower()
    return Decimal({"true": "1", "false": "0"}.get(text, text))


def _moment(value: Any) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(str(value))
    return moment.astimezone(datetime.UTC) if moment.tzinfo else moment
