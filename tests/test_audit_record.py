"""The record is plain data, and ids sort by time."""

from __future__ import annotations

import os
import uuid
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.audit_record import AuditRecord, new_record_id


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
