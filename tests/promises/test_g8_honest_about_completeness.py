"""G8: what a record cannot say in full, it says that it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, models

from otel_audit.audit_record import AuditRecord
from otel_audit.instrumentation.django.writes import insert, update
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    audit,
    auditing,
    default_database,
    empty_tables,
    mariadb_warehouse,
    postgresql_warehouse,
    sqlite_warehouse,
    vendor,
)
from tests.instrumentation.django.warehouse.models import Item, Label, Shelf, Supplier


def told(audit: CapturedAudit) -> list[tuple[str, str, int | None]]:  # noqa: F811
    return [(r.event_name, r.completeness, r.bulk.count if r.bulk else None) for r in audit]


def test_rows_beyond_the_limits_are_ids_then_a_count(vendor: str) -> None:  # noqa: F811
    with auditing(max_bulk_rows=5, max_bulk_ids=8) as audit:  # noqa: F811
        for rows, completeness in ((4, "full"), (7, "ids"), (12, "count")):
            Supplier.objects.bulk_create([Supplier(name=str(n)) for n in range(rows)])
            Supplier.objects.update(name=f"all {rows}")
            Supplier.objects.all().delete()
            assert told(audit) == [
                (f"warehouse.supplier.{verb}", completeness, rows) for verb in ("create", "update", "delete")
            ]
            for record in audit:
                assert record.bulk is not None
                assert len(record.bulk.keys) == (0 if completeness == "count" else rows)
                assert bool(record.bulk.columns) == (completeness == "full")
            audit.clear()


def test_what_capture_could_not_do_is_a_record_that_says_less(
    audit: CapturedAudit,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours after the statement: its count; before it: the plain statement and its count."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours")

    Supplier.objects.bulk_create([Supplier(name=str(n)) for n in range(3)])
    audit.clear()
    monkeypatch.setattr(update.UpdateStatement, "writes", broken)
    Supplier.objects.update(name="b")
    monkeypatch.setattr(update, "assignment", broken)
    Supplier.objects.update(name="c")
    monkeypatch.setattr(insert, "_note_one", broken)
    Supplier.objects.create(name="d")
    assert told(audit) == [
        ("warehouse.supplier.update", "count", 3),
        ("warehouse.supplier.update", "count", 3),
        ("warehouse.supplier.create", "count", 1),
    ]
    assert "a fault of ours" in caplog.text


def test_a_record_that_cannot_be_built_is_still_told(
    audit: CapturedAudit,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from otel_audit.capture import writes

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(writes, "key_text", broken)
    Supplier.objects.create(name="a")
    assert told(audit) == [("warehouse.supplier.create", "statement", None)]


def test_a_role_that_may_not_read_still_deletes_and_updates(
    postgresql_warehouse: dict[str, Any],  # noqa: F811
    postgresql_server: Any,
) -> None:
    """RETURNING needs the SELECT privilege; a plain statement without conditions does not."""
    with default_database(postgresql_warehouse):
        empty_tables()
        Supplier.objects.bulk_create([Supplier(name="a"), Supplier(name="b")])
    name = postgresql_warehouse["NAME"]
    postgresql_server.execute(
        "DROP ROLE IF EXISTS writer", "CREATE ROLE writer LOGIN SUPERUSER", database=name
    )
    postgresql_server.execute("ALTER ROLE writer NOSUPERUSER", database=name)
    postgresql_server.execute("GRANT DELETE, UPDATE ON warehouse_supplier TO writer", database=name)
    with default_database(postgresql_warehouse | {"USER": "writer"}), auditing() as audit:  # noqa: F811
        query = models.sql.UpdateQuery(Supplier)
        query.add_update_values({"name": "c"})
        assert query.get_compiler("default").execute_sql("row count") == 2
        queryset = Supplier.objects.all()
        assert queryset._raw_delete("default") == 2
        assert told(audit) == [
            ("warehouse.supplier.update", "count", 2),
            ("warehouse.supplier.delete", "count", 2),
        ]


def test_a_view_is_written_as_without_us(postgresql_warehouse: dict[str, Any]) -> None:  # noqa: F811
    """With INSTEAD OF triggers nothing can be locked or returned."""
    with default_database(postgresql_warehouse):
        empty_tables()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE warehouse_supplier RENAME TO warehouse_supplier_rows")
            cursor.execute("CREATE VIEW warehouse_supplier AS SELECT * FROM warehouse_supplier_rows")
        try:
            with auditing() as audit:
                Supplier.objects.create(name="a")
                assert Supplier.objects.update(name="b") == 1
                Supplier.objects.all()._raw_delete("default")
                assert not [record for record in audit if record.outcome != "success"]
                assert len(audit) == 3
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP VIEW warehouse_supplier")
                cursor.execute("ALTER TABLE warehouse_supplier_rows RENAME TO warehouse_supplier")


def test_rows_the_database_removes_by_itself_are_said_where_nobody_can_know_them(vendor: str) -> None:  # noqa: F811
    """Django 6.1's DB_CASCADE: no statement of the ORM names them; before, Django deletes them."""
    with auditing(max_bulk_rows=1, max_bulk_ids=1) as audit:  # noqa: F811
        shelf = Shelf.objects.create(name="s")
        for text in "tu":
            Label.objects.create(shelf=shelf, text=text)
        audit.clear()
        shelf.delete()
        kinds = {record.event_name: record.completeness for record in audit}
    said = {"warehouse.label.delete": "count"}
    if hasattr(models, "DB_CASCADE"):
        said = {"warehouse.label.delete": "statement", "warehouse.sticker.delete": "statement"}
    assert kinds == {"warehouse.shelf.delete": "full", **said}
    assert not Label.objects.exists()


def test_old_values_say_how_certain_they_are(audit: CapturedAudit) -> None:  # noqa: F811
    item = Item.objects.create(name="a")
    item.name = "b"
    item.save()
    Item.objects.update(name="c")
    item.delete()
    labels: list[str | None] = [record.old_values for record in audit]
    assert labels == [None, "as_loaded", "exact", "exact"]


def test_every_record_says_its_completeness_on_the_wire(audit: CapturedAudit) -> None:  # noqa: F811
    from otel_audit.semconv import to_attributes

    Item.objects.create(name="a")
    Item.objects.bulk_create([Item(name="b"), Item(name="c")])
    records: list[AuditRecord] = audit.records
    assert [to_attributes(record)["otel_audit.completeness"] for record in records] == ["full", "full"]
