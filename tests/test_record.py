"""The record is plain data: whatever a database hands out becomes portable, and ids sort by time."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import os
import uuid
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.record import AuditRecord, new_record_id, portable, portable_type


class Colour(enum.Enum):
    """An enumeration whose values need converting themselves."""

    RED = decimal.Decimal("1.50")


class Mute:
    """An object that cannot be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "expected", "kind"),
    [
        (None, None, ""),
        (True, True, ""),
        (7, 7, ""),
        (2**64, str(2**64), ""),
        (1.5, 1.5, ""),
        (math.nan, "nan", ""),
        (-math.inf, "-inf", ""),
        ("é", "é", ""),
        ("a\ud800b", "a?b", ""),
        (decimal.Decimal("19.90"), "19.90", "decimal"),
        (datetime.date(2026, 11, 23), "2026-11-23", "date"),
        (datetime.time(8, 30), "08:30:00", "time"),
        (datetime.datetime(2026, 11, 23, 8, tzinfo=datetime.UTC), "2026-11-23T08:00:00+00:00", "datetime"),
        (datetime.timedelta(seconds=90), "PT90S", "duration"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007", "uuid"),
        (b"\x00\xff", "AP8=", "bytes"),
        ({"a": (1, decimal.Decimal(2))}, {"a": [1, "2"]}, ""),
        ({3, 1, 2}, [1, 2, 3], ""),
        (Colour.RED, "1.50", "decimal"),
        (Mute(), "<Mute>", "text"),
    ],
)
def test_a_value_becomes_portable_and_its_type_is_named(value: Any, expected: Any, kind: str) -> None:
    assert portable(value) == expected
    assert portable_type(value) == kind


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.decimals()
        | st.datetimes()
        | st.uuids(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_every_portable_value_is_strict_json(value: Any) -> None:
    json.dumps(portable(value), allow_nan=False).encode("utf-8")


@given(st.lists(st.integers(0, 2**47), min_size=2, unique_by=lambda ns: ns // 1_000_000))
def test_record_ids_are_uuids_of_version_7_that_sort_by_millisecond(times: list[int]) -> None:
    ids = [new_record_id(time) for time in sorted(times)]
    assert ids == sorted(ids)
    for time, text in zip(sorted(times), ids, strict=True):
        identifier = uuid.UUID(text)
        assert str(identifier) == text
        assert identifier.version == 7
        assert identifier.variant == uuid.RFC_4122
        assert identifier.int >> 80 == time // 1_000_000


def test_record_ids_made_in_one_instant_differ() -> None:
    assert len({new_record_id(5) for _ in range(10_000)}) == 10_000


def test_record_ids_of_threads_and_of_a_forked_child_differ() -> None:
    """Random bits are fetched ahead: what the parent has left must not be used by its child as well."""
    made: list[str] = []
    threads = [Thread(target=lambda: made.extend([new_record_id(1) for _ in range(2000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, " ".join(new_record_id(1) for _ in range(300)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    made += [new_record_id(1) for _ in range(300)]
    with os.fdopen(reading) as pipe:
        made += pipe.read().split()
    os.waitpid(pid, 0)
    assert len(made) == len(set(made)) == 8600


def test_a_record_cannot_be_changed() -> None:
    record = AuditRecord(id="1", timestamp=1, observed_timestamp=1, event_name="a.b", action="READ")
    with pytest.raises(AttributeError):
        record.action = "DELETE"  # type: ignore[misc]
