"""One bulk record becomes one row a target in the store, with every value under its own field."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest

from otel_audit.audit_record import AuditRecord, Bulk, Column, Target, new_record_id
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from tests.e2e.running import Store, running_store
from tests.trail import exported

TIME = 1_790_000_000_000_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 3), (9, 7), (1000, 12)])
def test_each_target_has_its_own_values(store: Store, count: int, width: int) -> None:
    """Row by row, field by field: old and new of each are those of the record's columns."""
    kind = f"shop.Wide{count}x{width}"
    bulk = Bulk(
        count,
        keys=[str(row) for row in range(count)],
        columns=[
            Column(
                f"field{column}",
                old=[f"old {row} {column}" for row in range(count)],
                new=[None if row == column else f"new {row} {column}" for row in range(count)],
            )
            for column in range(width)
        ],
    )
    record = AuditRecord(
        id=new_record_id(TIME),
        timestamp=TIME,
        observed_timestamp=TIME,
        event_name="shop.wide.update",
        action="UPDATE",
        target=Target(kind),
        bulk=bulk,
    )
    moment = datetime.datetime.fromtimestamp(TIME / 1e9, datetime.UTC)
    client = StoreClient(store.url)
    client.insert(
        "audit_log",
        [
            {
                "Timestamp": f"{moment:%Y-%m-%d %H:%M:%S.%f}",
                "LogAttributes": exported(record),
            }
        ],
    )
    client.close()
    with AuditStore(store.url) as trail:
        for row in {0, 1, count // 2, count - 1} & set(range(count)):
            (entry,) = trail.history(f"{kind}/{row}")
            assert [(change.field, change.old, change.new) for change in entry.changes] == [
                (f"field{column}", f"old {row} {column}", None if row == column else f"new {row} {column}")
                for column in range(width)
            ]
