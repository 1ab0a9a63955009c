"""Rows too large for a record are said by their keys, and do not enter the application's memory."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import django
import pytest
from django.db import connection, models, transaction
from django.db.models import F, Func, Value
from django.db.models.functions import Concat
from django.test.utils import isolate_apps
from msgspec import UNSET

from otel_audit.config.model import AuditConfig, ModelConfig, RedactionConfig
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


def upsert(letters: Any, rows: int, **values: Any) -> None:
    letters.bulk_create(
        [letters.model(id=number, **values) for number in range(rows)],
        update_conflicts=True,
        update_fields=list(values),
        unique_fields=["id"] if connection.features.supports_update_conflicts_with_target else None,
    )


class Long(Func):
    """A long text of the database's own making; Django's ``Repeat`` makes it in Python on SQLite."""

    template = "REPEAT('x ', %(size)s / 2)"

    def __init__(self, size: int = 12 * MEGABYTE) -> None:
        super().__init__(size=size, output_field=models.TextField())

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="REPLACE(HEX(ZEROBLOB(%(size)s / 4)), '0', 'x ')", **context
        )


def saved(letters: Any, **values: Any) -> None:
    one = letters.get(id=0)
    for name, value in values.items():
        setattr(one, name, value)
    one.save()


UNMEASURED: dict[str, Callable[[Any], Any]] = {
    "upsert of another column": lambda letters: upsert(letters, 12, name="b"),
    "upsert over large rows": lambda letters: upsert(letters, 12, body="b"),
    "update to something large": lambda letters: letters.update(body=Long(MEGABYTE)),
    "update of one row": lambda letters: letters.filter(id=0).update(body=Long()),
    "save": lambda letters: saved(letters, body=Long()),
    "save with something else": lambda letters: saved(letters, name="b", body=Long()),
    "create": lambda letters: letters.create(id=50, body=Long()),
    "bulk_create": lambda letters: letters.bulk_create(
        [letters.model(id=50 + n, body=Long(2 * MEGABYTE)) for n in range(6)]
    ),
    "upsert of something large": lambda letters: letters.bulk_create(
        [letters.model(id=50 + n, body=Long(2 * MEGABYTE)) for n in range(6)], ignore_conflicts=True
    ),
}


# From 6.0 on Django itself asks what expressions have become of one object.
FETCHED_BY_DJANGO = ("save", "save with something else", "create") if django.VERSION >= (6, 0) else ()


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("way", UNMEASURED)
def test_what_only_the_database_knows_is_measured_before_it_is_fetched(
    letter: Any, way: str, atomic: bool
) -> None:
    large = "upsert of another" in way or "over large" in way
    write(letter, 12, MEGABYTE if large else 10)
    with auditing() as audit:
        tracemalloc.start()
        try:
            with transaction.atomic() if atomic else nullcontext():
                UNMEASURED[way](letter.objects.all())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        (record,) = audit
        assert record.outcome == "success"
        if way in FETCHED_BY_DJANGO:
            return
        assert peak < 4 * MEGABYTE
        assert "x x x" not in str(record.changes) + str(record.image) + str(record.bulk)
        if record.bulk is not None and record.completeness != "full":
            assert record.completeness == "ids"
            rows = {"upsert of something large": 6, "update of one row": 1}
            assert len(record.bulk.keys) == rows.get(way, 12)
        elif record.bulk is None and record.completeness == "full":
            assert record.target is not None
            assert record.target.id in ("0", "50")
            assert "body" in record.changed_fields
            new = {change.field: change.new for change in record.changes}
            assert new["body"] is UNSET or new["body"] == "<Long>"


@pytest.mark.parametrize("way", UNMEASURED)
def test_within_the_budget_it_is_told_whole(letter: Any, way: str) -> None:
    write(letter, 12, 10)
    small = {"upsert of another column", "upsert over large rows"}
    with auditing(max_bulk_bytes=32 * MEGABYTE) as audit:
        if way in small:
            UNMEASURED[way](letter.objects.all())
        else:
            with transaction.atomic():
                UNMEASURED[way](letter.objects.all())
        records = audit.records
    record = records[0]
    assert {each.completeness for each in records} == {"full"}
    if record.bulk is None:
        new = {change.field: change.new for change in record.changes}["body"]
        assert new.startswith("x x x")
        assert f"({12 * MEGABYTE} characters)" in new
    else:
        columns: dict[str, Any] = {column.field: column.new for column in record.bulk.columns}
        if way == "upsert of another column":
            assert set(columns["name"]) == {"b"}
        elif way == "upsert over large rows":
            assert set(columns["body"]) == {"b"}
        else:
            assert all(text.startswith("x x x") for text in columns["body"])


def test_the_key_a_database_gives_is_told_beside_what_was_not_fetched(letter: Any) -> None:
    with isolate_apps("tests.instrumentation.django.warehouse"):

        class Note(models.Model):
            body = models.TextField()

            class Meta:
                app_label = "warehouse"
                db_table = "note"

    with connection.schema_editor() as editor:
        editor.create_model(Note)
    try:
        with auditing() as audit:
            small = Note.objects.create(body=Concat(Value("a"), Value("b")))
            large = Note.objects.create(body=Long())
            several = Note.objects.bulk_create([Note(body=Long()), Note(body="c")])
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Note)
    one, other, both = audit
    assert one.target is not None
    assert other.target is not None
    assert both.bulk is not None
    assert [one.target.id, other.target.id, *both.bulk.keys] == [
        str(note.pk) for note in (small, large, *several)
    ]
    (column,) = both.bulk.columns
    assert isinstance(column.new, list)
    assert [one.changes[0].new, *column.new] == ["ab", "<Long>", "c"]
    assert other.changes[0].new == "<Long>" or "create" in FETCHED_BY_DJANGO


def test_rows_of_very_different_size_are_told_whole_if_all_of_them_are_within_the_budget(letter: Any) -> None:
    write(letter, 12, 10)
    letter.objects.filter(id=3).update(body="y" * 60_000, data=["z" * 20_000])
    with auditing(max_bulk_bytes=200_000) as audit:
        upsert(letter.objects, 12, name="b")
        (record,) = audit
    assert record.completeness == "full"
    assert record.bulk is not None
    assert len(record.bulk.keys) == 12
    assert [column.field for column in record.bulk.columns] == ["name"]


def test_every_kind_of_column_of_rows_in_the_way_counts(letter: Any) -> None:
    values: list[dict[str, Any]] = [
        {"body": "x" * 60_000},
        {"data": [str(n) for n in range(10_000)]},
        {"scan": bytes(range(250)) * 240},
    ]
    for large in values:
        letter.objects.all().delete()
        letter.objects.bulk_create([letter(id=n, **large) for n in range(2)])
        for budget, completeness in ((100_000, "ids"), (400_000, "full")):
            with auditing(max_bulk_bytes=budget) as audit, transaction.atomic():
                upsert(letter.objects, 2, name="b")
                transaction.set_rollback(True)
            assert [(record.completeness, record.action) for record in audit] == [(completeness, "UPDATE")]


@pytest.mark.parametrize("vendor", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("budget", "completeness"), [(100_000, "ids"), (400_000, "full")])
def test_json_is_measured_where_its_rows_are_selected_before(
    letter: Any, budget: int, completeness: str
) -> None:
    """Of a view, statements return nothing."""
    letter.objects.bulk_create([letter(id=n, data=["x" * 40_000]) for n in range(3)])
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW letters AS SELECT * FROM letter")
    try:
        with isolate_apps("tests.instrumentation.django.warehouse"):

            class Letters(models.Model):
                id = models.IntegerField(primary_key=True)
                data = models.JSONField(default=list)

                class Meta:
                    app_label = "warehouse"
                    db_table = "letters"
                    managed = False

        with auditing(max_bulk_bytes=budget) as audit, transaction.atomic():
            Letters.objects.update(data=[1])
            Letters.objects.filter(id__gt=0).update(data=["y" * 60_000])
            Letters.objects.all()._raw_delete("default")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW letters")
    assert [record.completeness for record in audit] == [completeness, completeness, completeness]


# --- structures, and one large value ---------------------------------------------------------------


def document(rows: int, last: Any = 0) -> dict[str, Any]:
    return {"rows": [{"name": "lorem ipsum", "tags": ["a", "b"], "n": n} for n in range(rows)], "z": last}


@pytest.mark.parametrize("key", ["", "0123456789abcdef"])
def test_a_change_in_the_tail_of_json_is_recorded_by_every_way_of_writing(letter: Any, key: str) -> None:
    config = AuditConfig(redaction=RedactionConfig(hmac_key=key))
    with auditing(config=config) as audit:
        one = letter.objects.create(id=1, data=document(4000))
        one.save()
        one.data["z"] = 1  # in place
        one.save()
        one = letter.objects.get()
        one.save()
        letter.objects.filter(id=1).update(data=copy.deepcopy(one.data))
        letter.objects.bulk_update([one], ["data"])
        one.data["z"] = 2
        letter.objects.bulk_update([one], ["data"])
        letter.objects.filter(id=1).update(data=document(4000, 3))
        with transaction.atomic():
            one = letter.objects.get()
            one.data["z"] = 4
            one.save(update_fields=["data"])
            one.save(update_fields=["data"])
        letter.objects.all().delete()
    assert [record.action for record in audit] == ["CREATE", *["UPDATE"] * 4, "DELETE"]
    values = []
    for record in audit:
        assert record.truncated
        assert record.completeness == "full"
        change = {change.field: change for change in record.changes}["data"]
        values += [value for value in (change.old, change.new) if isinstance(value, dict)]
        assert change.old != change.new or not key
    assert len(values) == 10
    for value in values:
        assert value["rows"][:2] == document(2)["rows"]
        assert value["…"].startswith("… (")
        assert (", hmac:" in value["…"]) == bool(key)
    assert len({json.dumps(value, sort_keys=True) for value in values}) == (5 if key else 1)


def test_rows_of_large_json_are_cut_one_by_one(letter: Any) -> None:
    with auditing() as audit:
        letter.objects.bulk_create([letter(id=n, data=document(5000, n)) for n in range(3)])
        with transaction.atomic():
            letter.objects.all()._raw_delete("default")
    created, deleted = audit.records
    for record, side in ((created, "new"), (deleted, "old")):
        assert record.truncated
        assert record.completeness == "full"
        assert record.bulk is not None
        assert len(record.bulk.keys) == 3
        (column,) = (column for column in record.bulk.columns if column.field == "data")
        for value in getattr(column, side):
            assert value["rows"][:2] == document(2)["rows"]
            assert value["…"].startswith("… (")


LARGE: dict[str, Callable[[int], dict[str, Any]]] = {
    "text": lambda n: {"body": "lorem ipsum " * 84_000 + str(n)},
    "binary": lambda n: {"scan": bytes(range(250)) * 4000 + str(n).encode()},
    "JSON": lambda n: {"data": [str(n) * 1000 for _ in range(900)]},
}
SAVES = 12


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("way", ["save", "save of another field", "update", "bulk_update"])
def test_what_waits_for_the_commit_is_not_as_large_as_what_was_written(
    letter: Any, kind: str, way: str
) -> None:
    letter.objects.bulk_create([letter(id=n, **LARGE[kind](n)) for n in range(SAVES)])

    def write_one(n: int) -> None:
        values = LARGE[kind](n + SAVES)
        if way == "update":
            letter.objects.filter(id=n).update(**values)
            return
        one = letter.objects.get(id=n)
        if way == "save of another field":
            values = {"name": "b"}
        for name, value in values.items():
            setattr(one, name, value)
        if way == "bulk_update":
            letter.objects.bulk_update([one], list(values))
        else:
            one.save()

    def held() -> int:
        with transaction.atomic():
            write_one(0)
            tracemalloc.start()
            for n in range(1, SAVES):
                write_one(n)
            waiting, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return waiting

    with auditing() as audit:
        assert held() < 5 * MEGABYTE
        assert len(audit) == SAVES
        for record in audit:
            assert record.truncated
            assert "… (" in str((record.changes, record.image))


def test_a_large_value_of_a_field_with_a_strategy_is_decided_by_the_whole(letter: Any) -> None:
    config = AuditConfig(redaction=RedactionConfig(hmac_key="0123456789abcdef"))
    strategies = {"body": "keep_last:8", "data": "hmac", "scan": "mask"}
    values = {**LARGE["text"](12345678), **LARGE["binary"](1), **LARGE["JSON"](1)}
    with auditing(config=config, model={"*.Letter": ModelConfig(fields=strategies)}) as audit:
        with transaction.atomic():
            one = letter.objects.create(id=1, **values)
            one.name = "b"
            one.save()
        one.body += "!"
        one.save()
    first, second, third = audit
    created = {change.field: change.new for change in first.changes}
    assert created["body"] == "[redacted]12345678"
    assert created["data"].startswith("hmac:")
    assert created["scan"] == "[redacted]"
    assert second.image["body"] == created["body"]
    assert second.image["data"] == created["data"]
    assert [change.new for change in third.changes] == ["[redacted]2345678!"]


def test_a_large_document_costs_no_copy_of_itself(letter: Any) -> None:
    def peak(key: int) -> int:
        one = letter.objects.create(id=key, data=document(100_000))
        tracemalloc.start()
        one.data["z"] += 1
        one.save()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    plain = peak(1)
    with auditing() as audit:
        assert peak(2) < plain + 2 * MEGABYTE
        assert [record.truncated for record in audit] == [True, True]
