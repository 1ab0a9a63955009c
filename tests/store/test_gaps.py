"""Gaps in an object's history: found where somebody wrote past the trail, and never where nobody did."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from otel_audit.audit_record import Change, Target
from otel_audit.store.entries import AuditEntry
from otel_audit.store.gaps import gaps

MINUTE = 60 * 10**9
_BEGIN = 1_790_000_000 * 10**9


def entry(minute: float, action: str = "UPDATE", *changes: Change, **parts: Any) -> AuditEntry:
    """Make an entry of one object; old values are exact unless said otherwise."""
    parts = {"outcome": "success", "old_values": "exact", "completeness": "full"} | parts
    return AuditEntry(
        id=f"{minute:010.3f}",
        timestamp=_BEGIN + int(minute * MINUTE),
        event_name=f"shop.customer.{action.lower()}",
        action=action,
        target=Target("shop.Customer", "7"),
        changes=list(changes),
        **parts,
    )


def street(old: Any, new: Any, kind: str = "str") -> Change:
    return Change("street", old, new, kind)


def verdicts(*entries: AuditEntry, **options: Any) -> list[tuple[str, bool]]:
    return [(gap.field, gap.certain) for gap in gaps(entries, **options)]


CREATED = entry(0, "CREATE", street(UNSET, "Elm 1"))


def test_an_old_value_nobody_set_is_a_gap_between_the_two_records() -> None:
    later = entry(6, "UPDATE", street("Oak 2", "Ash 3"))
    [gap] = gaps([later, CREATED])
    assert (gap.field, gap.last, gap.found, gap.certain) == ("street", CREATED, later, True)


def test_a_history_without_gaps_has_none() -> None:
    assert not verdicts(
        CREATED, entry(6, "UPDATE", street("Elm 1", "Oak 2")), entry(9, "UPDATE", street("Oak 2", "x"))
    )


def test_a_gap_is_told_once_and_the_trail_is_believed_from_there_on() -> None:
    found = verdicts(
        CREATED, entry(6, "UPDATE", street("Oak 2", "Ash 3")), entry(12, "UPDATE", street("Ash 3", "Fir 4"))
    )
    assert found == [("street", True)]


@pytest.mark.parametrize("parts", [{"old_values": "as_loaded"}, {"old_values": ""}, {"truncated": True}])
def test_a_value_that_is_not_exact_accuses_nobody(parts: dict[str, Any]) -> None:
    assert verdicts(CREATED, entry(6, "UPDATE", street("Oak 2", "Ash 3"), **parts)) == [("street", False)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[redacted]", "Oak 2"),
        ("Elm 1", "[redacted]"),
        ("Elm 1", "[redacted]1234"),
        ("Elm 1", "hmac:0123456789abcdef0123456789abcdef"),
        ("Elm 1", "Elm… (70000 characters)"),
        ("Elm 1", "<expression>"),
        ("Elm 1", "E" * 1001),
        ("Elm 1", "###"),
    ],
)
def test_masked_cut_and_described_values_are_not_compared(before: str, after: str) -> None:
    created = entry(0, "CREATE", street(UNSET, before))
    assert not verdicts(created, entry(6, "UPDATE", street(after, "x")), masks=("[redacted]", "###"))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("9.9", "9.90", "decimal"),
        ("true", "1", "bool"),
        ("2026-11-23T14:00:00+00:00", "2026-11-23T15:00:00+01:00", "datetime"),
        ('{"a":1,"b":2}', '{"b": 2, "a": 1}', "json"),
        ("ab", "ab   ", "str"),
    ],
)
def test_two_spellings_of_one_value_are_no_gap(before: str, after: str, kind: str) -> None:
    created = entry(0, "CREATE", street(UNSET, before, kind))
    assert not verdicts(created, entry(6, "UPDATE", street(after, "x", kind)))


def test_records_within_a_minute_may_have_taken_effect_in_another_order() -> None:
    """The first waited for the lock that the second held."""
    first = entry(5.0, "UPDATE", street("Oak 2", "Ash 3"))
    second = entry(5.1, "UPDATE", street("Elm 1", "Oak 2"))
    assert not verdicts(CREATED, first, second)
    assert not verdicts(CREATED, first, second, entry(9, "UPDATE", street("Ash 3", "x")))


def test_a_value_that_no_order_explains_is_a_gap_among_records_within_a_minute() -> None:
    first = entry(5.0, "UPDATE", street("Elm 1", "Oak 2"))
    second = entry(5.1, "UPDATE", street("Bay 9", "Ash 3"))
    assert verdicts(CREATED, first, second) == [("street", True)]


@pytest.mark.parametrize(
    "between",
    [
        entry(3, "UPDATE", street("Elm 1", "Oak 2"), outcome="unknown"),
        entry(3, "UPDATE", completeness="count"),
        entry(3, "UPDATE", completeness="statement"),
        entry(3, "UPDATE", fields=["street"], completeness="ids"),
        entry(3, "UPDATE", street("Elm 1", UNSET)),
    ],
)
def test_what_leaves_open_what_the_field_became_accuses_nobody(between: AuditEntry) -> None:
    found = verdicts(CREATED, between, entry(6, "UPDATE", street("Bay 9", "Ash 3")))
    assert ("street", True) not in found


def test_records_of_other_rows_known_by_number_only_leave_it_open() -> None:
    later = entry(6, "UPDATE", street("Oak 2", "Ash 3"))
    number = AuditEntry(
        id="d",
        timestamp=_BEGIN + 3 * MINUTE,
        event_name="shop.customer.update",
        action="UPDATE",
        outcome="success",
        completeness="count",
    )
    assert verdicts(CREATED, later, doubts=[number]) == [("street", False)]


def test_failures_and_reads_change_nothing() -> None:
    found = verdicts(
        CREATED,
        entry(2, "UPDATE", street("Elm 1", "Oak 2"), outcome="failure"),
        entry(3, "READ", fields=["street"]),
        entry(6, "UPDATE", street("Elm 1", "Ash 3")),
    )
    assert not found


def test_another_object_under_the_same_id_begins_anew() -> None:
    found = verdicts(
        CREATED,
        entry(5, "DELETE", street("Elm 1", UNSET)),
        entry(10, "CREATE", street(UNSET, "Oak 2")),
        entry(15, "UPDATE", street("Oak 2", "x")),
    )
    assert not found


def test_a_delete_tells_of_a_gap_too() -> None:
    assert verdicts(CREATED, entry(5, "DELETE", street("Oak 2", UNSET))) == [("street", True)]


def test_a_change_of_type_accuses_nobody() -> None:
    assert verdicts(CREATED, entry(6, "UPDATE", street("5", "6", "int"))) == [("street", False)]


@pytest.mark.parametrize(
    ("stamps", "kind"),
    [
        (("2026-09-21T14:13:20+00:00", "2026-09-21T16:19:20+02:00", "2026-09-21T14:25:20+00:00"), "datetime"),
        (("2026-09-21T19:58:20", "2026-09-21T20:04:20.5", "2026-09-21T20:10:20"), "datetime"),
        (("2026-09-21", "2026-09-22", "2026-09-21"), "date"),
    ],
)
def test_a_field_set_at_each_save_has_no_gaps(stamps: tuple[str, str, str], kind: str) -> None:
    """A save that changes only such a field makes no record, and sets it all the same."""
    first, second, third = stamps
    found = gaps(
        [
            entry(0, "CREATE", Change("modified", UNSET, first, kind)),
            entry(12, "UPDATE", Change("modified", second, third, kind)),
        ]
    )
    assert not found
