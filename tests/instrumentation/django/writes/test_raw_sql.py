"""SQL of the application's own: one record per statement and table, with the outcome of its transaction."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.db.models.expressions import RawSQL
from django.test.utils import CaptureQueriesContext

from otel_audit.audit_record import AuditRecord
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Ignored, Item, Pallet, Stock, Supplier, Ticket

SYSTEMS = {"sqlite": "sqlite", "postgresql": "postgresql", "mysql": "mariadb"}


def run(sql: str, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def told(audit: CapturedAudit) -> list[tuple[str, str, str, int | None]]:
    """Name, completeness, outcome and rows of each record."""
    return [
        (r.event_name.removeprefix("warehouse."), r.completeness, r.outcome, r.bulk.count if r.bulk else None)
        for r in audit
    ]


def suppliers(audit: CapturedAudit, *names: str) -> None:
    Supplier.objects.bulk_create([Supplier(name=name) for name in names])
    audit.clear()


def test_a_statement_is_on_record_with_its_text_and_rows(audit: CapturedAudit, vendor: str) -> None:
    suppliers(audit, "a", "b", "c")
    run("UPDATE warehouse_supplier SET name = 'hunter2' WHERE name <> %s", ["c"])
    record: AuditRecord = audit.one()
    assert told(audit) == [("supplier.update", "statement", "success", 2)]
    assert record.action == "UPDATE"
    assert str(record.target) == "warehouse.Supplier"
    assert record.database.query == "UPDATE warehouse_supplier SET name = ? WHERE name <> %s"
    assert (record.database.system, record.database.table) == (SYSTEMS[vendor], "warehouse_supplier")
    assert record.database.transaction
    assert record.changed_fields == []
    audit.assert_no_secrets("hunter2")


def test_each_verb_is_told(audit: CapturedAudit) -> None:
    run("INSERT INTO warehouse_supplier (name) VALUES (%s), (%s)", ["a", "b"])
    run("update warehouse_supplier set name = %s", ["c"])
    run("/* by hand */ DELETE FROM warehouse_supplier")
    assert told(audit) == [
        ("supplier.create", "statement", "success", 2),
        ("supplier.update", "statement", "success", 2),
        ("supplier.delete", "statement", "success", 2),
    ]


def test_a_statement_that_matches_nothing_or_only_reads_is_none(audit: CapturedAudit) -> None:
    run("UPDATE warehouse_supplier SET name = 'x' WHERE id = 0")
    run("SELECT * FROM warehouse_supplier")
    run("INSERT INTO warehouse_ignored (name) SELECT name FROM warehouse_supplier")
    Ignored.objects.create(name="x")
    run("UPDATE warehouse_ignored SET name = 'y'")
    assert told(audit) == []


def test_many_sets_of_parameters_are_one_record(audit: CapturedAudit) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO warehouse_supplier (name) VALUES (%s)", [["a"], ["b"], ["c"]])
    assert told(audit) == [("supplier.create", "statement", "success", 3)]


def test_the_transaction_decides(audit: CapturedAudit) -> None:
    with transaction.atomic():
        run("INSERT INTO warehouse_supplier (name) VALUES ('a')")
        with pytest.raises(KeyError), transaction.atomic():
            run("INSERT INTO warehouse_supplier (name) VALUES ('b')")
            raise KeyError
        assert [outcome for _, _, outcome, _ in told(audit)] == ["failure"]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        run("DELETE FROM warehouse_supplier")
        1 / 0  # noqa: B018
    assert told(audit) == [
        ("supplier.create", "statement", "failure", 1),
        ("supplier.create", "statement", "success", 1),
        ("supplier.delete", "statement", "failure", 1),
    ]
    assert [record.error for record in audit] == ["KeyError", "", "ZeroDivisionError"]
    assert Supplier.objects.count() == 1


def test_a_refused_statement_is_a_failure(audit: CapturedAudit) -> None:
    Stock.objects.create(code="x")
    audit.clear()
    sql = "INSERT INTO warehouse_stock (code, shelf, level, note) VALUES (%s, 1, 1, '')"
    with pytest.raises(DatabaseError):
        run(sql, ["x"])
    with pytest.raises(DatabaseError), transaction.atomic():
        run(sql, ["x"])
    with pytest.raises((DatabaseError, TypeError, InterfaceError)):
        run(sql, [object()])
    assert [outcome for _, _, outcome, _ in told(audit)] == ["failure"] * 3
    assert Stock.objects.count() == 1


def test_it_shares_the_transaction_of_the_orms_records(audit: CapturedAudit) -> None:
    with transaction.atomic():
        Supplier.objects.create(name="a")
        run("UPDATE warehouse_supplier SET name = 'b'")
    assert [name for name, *_ in told(audit)] == ["supplier.create", "supplier.update"]
    assert len({record.database.transaction for record in audit}) == 1


def test_the_intent_is_on_disk_before_a_statement_in_autocommit_is_sent(audit: CapturedAudit) -> None:
    seen: list[bytes] = []

    class Cursor:
        """The driver's cursor, looking at the spool when it is asked."""

        def __init__(self, cursor: Any) -> None:
            self.cursor = cursor

        def execute(self, *args: Any) -> Any:
            spool = audit.pipeline.spool
            assert spool.lock is not None
            seen.append(b"".join(file.read_bytes() for file in spool.lock.path.glob("*.seg")))
            return self.cursor.execute(*args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cursor, name)

    with connection.cursor() as cursor:
        cursor.cursor = Cursor(cursor.cursor)
        cursor.execute("INSERT INTO warehouse_supplier (name) VALUES ('a')")
    assert b"INSERT INTO warehouse_supplier" in seen[0]
    assert told(audit) == [("supplier.create", "statement", "success", 1)]


def test_nothing_of_the_orms_is_counted_twice(audit: CapturedAudit) -> None:
    supplier = Supplier.objects.create(name="a")
    supplier.name = "b"
    supplier.save()
    item = Item.objects.create(name="i", supplier=supplier)
    Item.objects.update(quantity=RawSQL("quantity + %s", [1]))
    Item.objects.bulk_create([Item(id=item.pk, name="j")], ignore_conflicts=True)
    pallet = Pallet.objects.create(label="p")
    pallet.items.add(item)
    pallet.delete()
    with transaction.atomic():
        Item.objects.filter(supplier__name="b").update(name="k")
        supplier.delete()
    assert "statement" not in {record.completeness for record in audit}
    Item.objects.all()._raw_delete("default")
    assert "statement" not in {record.completeness for record in audit}


def test_a_fault_of_ours_before_the_statement_is_told_once(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The plain statement runs, under our eyes: it is not taken for the application's own."""
    from otel_audit.instrumentation.django.writes import update

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours")

    suppliers(audit, "a")
    monkeypatch.setattr(update, "update_rows", broken)
    Supplier.objects.update(name="b")
    assert told(audit) == [("supplier.update", "count", "success", 1)]
    assert "a fault of ours" in caplog.text


def test_a_fault_of_ours_before_an_insert_that_returns_nothing_costs_values_only(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_audit.instrumentation.django.writes import insert, insert_fast_path

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(insert, "_to_ask", broken)
    monkeypatch.setattr(insert_fast_path, "_prepare", broken)
    Ticket.objects.bulk_create([Ticket(code="a")])
    assert told(audit) == [("ticket.create", "statement", "success", None)]


def test_what_was_loaded_is_no_longer_believed(audit: CapturedAudit) -> None:
    suppliers(audit, "a")
    supplier = Supplier.objects.get()
    run("UPDATE warehouse_supplier SET name = 'raw'")
    supplier.name = "b"
    supplier.save()
    (change,) = audit.records[-1].changes
    assert (change.old, change.new) == ("raw", "b")


def test_several_tables_in_one_statement(postgres: str) -> None:
    with auditing() as audit:
        suppliers(audit, "a", "b")
        run(
            "WITH gone AS (DELETE FROM warehouse_supplier RETURNING name) "
            "INSERT INTO warehouse_place (name, rating) SELECT name, 1 FROM gone"
        )
        run("UPDATE warehouse_place SET rating = 2; DELETE FROM warehouse_place")
        run("TRUNCATE warehouse_label, warehouse_shelf CASCADE")
        assert {(name, count) for name, _, _, count in told(audit)} == {
            ("supplier.delete", None),
            ("place.create", None),
            ("place.update", None),
            ("place.delete", None),
            ("label.delete", None),
            ("shelf.delete", None),
        }


def test_transactions_within_one_text(postgres: str) -> None:
    with auditing() as audit:
        run("BEGIN; INSERT INTO warehouse_supplier (name) VALUES ('a'); COMMIT")
        assert told(audit) == [("supplier.create", "statement", "success", None)]
        run("BEGIN; INSERT INTO warehouse_supplier (name) VALUES ('b'); ROLLBACK")
        assert told(audit)[-1] == ("supplier.create", "statement", "unknown", None)
        run("BEGIN; INSERT INTO warehouse_supplier (name) VALUES ('c')")
        assert len(audit) == 2
        run("ROLLBACK")
        assert told(audit)[-1] == ("supplier.create", "statement", "failure", None)
        Supplier.objects.create(name="d")
        assert told(audit)[-1] == ("supplier.create", "full", "success", None)


@pytest.mark.psycopg3
def test_compositions_and_bytes_are_read(postgres: str) -> None:
    from psycopg import sql

    with auditing() as audit:
        suppliers(audit, "a")
        table = sql.Identifier("warehouse_supplier")
        run(sql.SQL("UPDATE {} SET name = {}").format(table, sql.Literal("hunter2")))  # type: ignore[arg-type]
        run(b"DELETE FROM warehouse_supplier")  # type: ignore[arg-type]
        assert told(audit) == [
            ("supplier.update", "statement", "success", 1),
            ("supplier.delete", "statement", "success", 1),
        ]
        assert audit.records[0].database.query == 'UPDATE "warehouse_supplier" SET name = ?'


def test_truncate_commits_by_itself_on_mariadb(mariadb: str) -> None:
    with auditing() as audit:
        suppliers(audit, "a")
        connection.set_autocommit(False)
        try:
            run("UPDATE warehouse_supplier SET name = 'b'")
            run("TRUNCATE warehouse_sticker")
            connection.rollback()
        finally:
            connection.set_autocommit(True)
        assert sorted(told(audit)) == [
            ("sticker.delete", "statement", "success", None),
            ("supplier.update", "statement", "success", 1),
        ]
        assert Supplier.objects.get().name == "b"


def test_a_connection_that_broke_leaves_it_unknown(postgres: str) -> None:
    with auditing() as audit, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        with connection.copy().cursor() as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
            other.db.close()
        with pytest.raises(OperationalError):
            cursor.execute("UPDATE warehouse_supplier SET name = 'x'")
        connection.close()
        assert told(audit) == [("supplier.update", "statement", "unknown", None)]
        assert audit.one().error == "OperationalError"


@pytest.mark.psycopg3
def test_copy_through_the_cursor(postgres: str) -> None:
    sql = "COPY warehouse_supplier (name) FROM STDIN"
    with auditing() as audit:
        with connection.cursor() as cursor:
            with cursor.copy(sql) as copy:
                copy.write("hunter2\nb\n")
            with pytest.raises(KeyError), cursor.copy(sql) as copy:
                copy.write("c\n")
                raise KeyError
            with pytest.raises(Exception, match="does not exist"):  # noqa: SIM117
                with cursor.copy("COPY warehouse_supplier (nothing) FROM STDIN") as copy:
                    copy.write("c\n")
            with cursor.copy("COPY warehouse_supplier TO STDOUT") as copy:
                assert len(list(copy)) == 2
        assert told(audit) == [
            ("supplier.create", "statement", "success", 2),
            ("supplier.create", "statement", "failure", None),
            ("supplier.create", "statement", "failure", None),
        ]
        assert audit.records[0].database.query == sql
        audit.clear()
        with pytest.raises(KeyError), transaction.atomic(), connection.cursor() as cursor:
            with cursor.copy(sql) as copy:
                copy.write("c\n")
            raise KeyError
        assert told(audit) == [("supplier.create", "statement", "failure", 1)]
        audit.assert_no_secrets("hunter2")
    assert Supplier.objects.count() == 2


@pytest.mark.psycopg3
def test_copy_where_queries_are_kept_for_debugging(postgres: str) -> None:
    """Django's cursor has a copy() of its own then."""
    with auditing() as audit, CaptureQueriesContext(connection), connection.cursor() as cursor:
        with cursor.copy("COPY warehouse_supplier (name) FROM STDIN") as copy:
            copy.write("a\n")
        assert told(audit) == [("supplier.create", "statement", "success", 1)]


def test_a_script_on_sqlite(sqlite: str) -> None:
    with auditing() as audit, connection.cursor() as cursor:
        cursor.executescript(
            "INSERT INTO warehouse_supplier (name) VALUES ('a');"
            "INSERT INTO warehouse_place VALUES (1, 'b', 2)"
        )
        assert sorted(told(audit)) == [
            ("place.create", "statement", "success", None),
            ("supplier.create", "statement", "success", None),
        ]
        assert not hasattr(cursor, "copy")
        with pytest.raises(AttributeError, match="copy"):
            cursor.copy("COPY a FROM STDIN")


def test_a_search_index_kept_by_raw_upserts(audit: CapturedAudit, vendor: str) -> None:
    """As Wagtail's: SQL of its own on a model's table, by its quoted name, inside the page's transaction."""
    table = connection.ops.quote_name(Stock._meta.db_table)
    conflict = (
        "ON DUPLICATE KEY UPDATE note = VALUES(note)"
        if vendor == "mysql"
        else "ON CONFLICT (code) DO UPDATE SET note = EXCLUDED.note"
    )
    upsert = f"""
        INSERT INTO {table} (code, shelf, level, note)
        VALUES (%s, %s, 1, %s)
        {conflict}
    """
    with transaction.atomic():
        for number in range(136):
            run(upsert, [f"page {number}", number, f"text {number}"])
        run(upsert, ["page 0", 0, "again"])
    assert Stock.objects.count() == 136
    assert {(name, kind, outcome) for name, kind, outcome, _ in told(audit)} == {
        ("stock.create", "statement", "success")
    }
    assert len(audit) == 137
    assert len({record.database.query for record in audit}) == 1
    audit.assert_no_secrets("text 7")
    audit.assert_every_write_recorded()
