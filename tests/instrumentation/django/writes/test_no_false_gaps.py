"""What `otel-audit history` calls written outside the trail: nothing that went through the ORM."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from django.db import connection
from django.db.models import F

from otel_audit.audit_record import AuditRecord
from otel_audit.store.gaps import Gap, gaps
from otel_audit.store.query import AuditStore
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Item
from tests.instrumentation.django.writes.test_locks import in_threads
from tests.instrumentation.django.writes.workload import Workload
from tests.trail import land, serving


def found(directory: Path, records: Iterable[AuditRecord]) -> list[Gap]:
    """Return the certain gaps in the histories of all objects that records are about."""
    records = list(records)
    targets = {
        f"{record.target.type}/{key}"
        for record in records
        if record.target is not None
        for key in ([record.target.id] if record.bulk is None else record.bulk.keys)
        if key
    }
    with serving(directory) as server, AuditStore(server.clickhouse) as store:
        land(store._client, records)
        assert len(targets) > 1
        histories = [store.history(target, limit=1000).entries for target in sorted(targets)]
    return [gap for history in histories for gap in gaps(history) if gap.certain]


def test_a_random_workload_has_none(postgres: str, tmp_path: Path) -> None:
    workload = Workload(3)
    with auditing(old_values="exact") as audit:
        for _ in range(150):
            workload.run()
        records = list(audit)
    assert found(tmp_path, records) == []


def test_threads_that_wait_for_each_other_have_none(postgres: str, tmp_path: Path) -> None:
    keys = [Item.objects.create(name=f"i{number}", quantity=0).pk for number in range(3)]

    def work(number: int) -> None:
        for turn in range(25):
            key = keys[(number + turn) % len(keys)]
            if turn % 2:
                Item.objects.filter(pk=key).update(quantity=F("quantity") + 1)
            else:
                item = Item.objects.get(pk=key)
                item.quantity += 1
                item.save()

    with auditing(old_values="exact") as audit:
        in_threads(4, work)
        records = list(audit)
    assert found(tmp_path, records) == []


def test_raw_sql_between_two_saves_is_one(postgres: str, tmp_path: Path) -> None:
    with auditing(old_values="exact") as audit:
        one, other = Item.objects.create(name="a", quantity=1), Item.objects.create(name="b", quantity=1)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {Item._meta.db_table} SET quantity = 99 WHERE id = %s", [one.pk])
        for item in (one, other):
            Item.objects.filter(pk=item.pk).update(quantity=5)
        records = list(audit)
    [gap] = found(tmp_path, records)
    assert (gap.field, str(gap.found.target)) == ("quantity", f"warehouse.Item/{one.pk}")
