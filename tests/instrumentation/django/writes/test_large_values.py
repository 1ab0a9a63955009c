"""Rows too large for a record are said by their keys, and do not enter the application's memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test.utils import isolate_apps

from otel_audit.config.model import AuditConfig, RedactionConfig
from tests.instrumentation.django.warehouse.databases import auditing

MEGABYTE = 1024 * 1024


@pytest.fixture
def letter(vendor: str) -> Iterator[Any]:
    """A model with columns nothing bounds, and its table on each database in turn."""
    with isolate_apps("tests.instrumentation.django.warehouse"):

        class Letter(models.Model):
            id = models.IntegerField(primary_key=True)
            name = models.CharField(max_length=20, default="a")
            body = models.TextField(default="")
            data = models.JSONField(default=list)
            scan = models.BinaryField(default=b"", null=True)

            class Meta:
                app_label = "warehouse"
                db_table = "letter"

        with connection.schema_editor() as editor:
            editor.create_model(Letter)
        try:
            yield Letter
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Letter)


def write(model: Any, rows: int, size: int) -> None:
    model.objects.bulk_create(
        [model(id=number, body="lorem ipsum " * (size // 12)) for number in range(rows)]
    )


UPDATES: dict[str, Callable[[Any], Any]] = {
    "update to a value": lambda letters: letters.update(body="short"),
    "update to an expression": lambda letters: letters.update(body=Concat(F("body"), Value("!"))),
    "delete": lambda letters: letters._raw_delete("default"),
    "delete of some": lambda letters: letters.filter(id__in=range(50))._raw_delete("default"),
}


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("way", UPDATES)
def test_rows_beyond_the_budget_are_keys_and_stay_in_the_database(
    letter: Any, way: str, atomic: bool
) -> None:
    write(letter, 12, MEGABYTE)
    with auditing() as audit:
        tracemalloc.start()
        try:
            if atomic:
                with transaction.atomic():
                    assert UPDATES[way](letter.objects.all()) == 12
            else:
                assert UPDATES[way](letter.objects.all()) == 12
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MEGABYTE
        (record,) = audit
        assert record.completeness == "ids"
        assert record.bulk is not None
        assert sorted(record.bulk.keys, key=int) == [str(number) for number in range(12)]
        assert record.outcome == "success"


@pytest.mark.parametrize("way", UPDATES)
def test_rows_within_the_budget_are_told_whole(letter: Any, way: str) -> None:
    write(letter, 12, 1024)
    letter.objects.filter(id=3).update(scan=b"x" * 50, data={"a": [1]})
    with auditing() as audit:
        assert UPDATES[way](letter.objects.all()) == 12
        (record,) = audit
        assert record.completeness == "full"
        assert record.bulk is not None
        old: dict[str, Any] = {column.field: column.old for column in record.bulk.columns}
        assert {len(text) for text in old["body"]} == {1020}
        if way == "delete":
            assert old["data"][record.bulk.keys.index("3")] == {"a": [1]}


def test_each_kind_of_column_counts(letter: Any) -> None:
    letter.objects.bulk_create(
        [
            letter(id=1, body="x" * 30_000),
            letter(id=2, data=["x" * 30_000]),
            letter(id=3, scan=b"x" * 30_000),
            letter(id=4, scan=None),
        ]
    )
    for budget, completeness in ((80_000, "ids"), (200_000, "full")):
        with auditing(max_bulk_bytes=budget) as audit, transaction.atomic():
            letter.objects.all()._raw_delete("default")
            transaction.set_rollback(True)
        assert [record.completeness for record in audit] == [completeness]


def test_one_row_is_told_whatever_its_size(letter: Any) -> None:
    write(letter, 2, 1000)
    with auditing(max_bulk_bytes=10) as audit:
        letter.objects.get(id=1).delete()
        letter.objects.filter(id=0).update(body="b")
        assert [record.completeness for record in audit] == ["full", "full"]


def test_a_large_value_set_in_many_rows_and_large_new_rows_count_too(letter: Any) -> None:
    with auditing(max_bulk_bytes=100_000) as audit:
        write(letter, 20, 12_000)
        letter.objects.update(body="x" * 12_000)
        letter.objects.bulk_create(
            [letter(id=50 + n, body="y" * 12_000) for n in range(20)], ignore_conflicts=True
        )
        assert [(record.action, record.completeness) for record in audit] == [
            ("CREATE", "ids"),
            ("UPDATE", "ids"),
            ("CREATE", "ids"),
        ]
        assert all(record.bulk is not None and len(record.bulk.keys) == 20 for record in audit)


@pytest.mark.parametrize("key", ["", "0123456789abcdef"])
def test_a_change_behind_the_cut_is_recorded(letter: Any, key: str) -> None:
    body = "lorem ipsum " * 20_000
    config = AuditConfig(redaction=RedactionConfig(hmac_key=key))
    letter.objects.create(id=1, body=body)
    with auditing(config=config) as audit:
        one = letter.objects.get(id=1)
        one.body = body[:-1] + "!"
        one.save(update_fields=["body"])
        one.save(update_fields=["body"])  # nothing has changed since
        letter.objects.filter(id=1).update(body=body)
        letter.objects.filter(id=1).update(body=body)
        assert [record.action for record in audit] == ["UPDATE", "UPDATE"]
        for record in audit:
            (change,) = record.changes
            assert change.field == "body"
            assert change.old.startswith("lorem ipsum lorem")
            assert "240000 characters" in change.old
            assert len(change.old) <= 64 * 1024
            assert (change.old != change.new) == bool(key)
            assert record.truncated
