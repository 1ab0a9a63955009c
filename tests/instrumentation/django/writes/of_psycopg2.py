"""What only psycopg2 has; ``test_psycopg2.py`` runs it."""

from __future__ import annotations

import io

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from psycopg2 import sql

from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Supplier
from tests.instrumentation.django.writes.test_raw_sql import told

COPY = "COPY warehouse_supplier (name) FROM STDIN"


def test_copy_through_the_cursor(postgres: str) -> None:
    with auditing() as audit, connection.cursor() as cursor:
        cursor.copy_expert(COPY, io.StringIO("hunter2\nb\n"))
        cursor.copy_from(io.StringIO("c\n"), "warehouse_supplier", columns=["name"])
        with CaptureQueriesContext(connection):
            cursor.close()
            with connection.cursor() as debugging:
                debugging.copy_expert(COPY, io.StringIO("d\n"))
        assert told(audit) == [
            ("supplier.create", "statement", "success", 2),
            ("supplier.create", "statement", "success", 1),
            ("supplier.create", "statement", "success", 1),
        ]
        assert audit.records[0].database.query == COPY
        audit.assert_no_secrets("hunter2")
    assert Supplier.objects.count() == 4


class Torn(io.StringIO):
    def read(self, size: int | None = -1) -> str:
        raise KeyError("torn")


def test_copy_that_fails(postgres: str) -> None:
    with auditing() as audit:
        with connection.cursor() as cursor:
            with pytest.raises(Exception, match="does not exist"):
                cursor.copy_expert("COPY warehouse_supplier (nothing) FROM STDIN", io.StringIO("a\n"))
            with pytest.raises(Exception, match="torn"):
                cursor.copy_expert(COPY, Torn())
            output = io.StringIO()
            cursor.copy_expert("COPY warehouse_supplier TO STDOUT", output)
            assert output.getvalue() == ""
        assert told(audit) == [("supplier.create", "statement", "failure", None)] * 2
        audit.clear()
        with pytest.raises(KeyError), transaction.atomic(), connection.cursor() as cursor:
            cursor.copy_expert(COPY, io.StringIO("c\n"))
            raise KeyError
        assert told(audit) == [("supplier.create", "statement", "failure", 1)]
    assert not Supplier.objects.exists()


def test_compositions_are_read(postgres: str) -> None:
    """Django's own execute() takes text alone with psycopg2."""
    with auditing() as audit, connection.cursor() as cursor:
        cursor.copy_expert(
            sql.SQL("COPY {} (name) FROM STDIN").format(sql.Identifier("warehouse_supplier")),
            io.StringIO("hunter2\n"),
        )
        assert told(audit) == [("supplier.create", "statement", "success", 1)]
        audit.assert_no_secrets("hunter2")


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_what_follows_a_transaction_ended_by_text_is_unknown(postgres: str, ending: str) -> None:
    """The driver does not notice the end, and begins no other transaction: what follows commits by itself."""
    with auditing() as audit:
        transaction.set_autocommit(False)
        try:
            Supplier.objects.create(name="a")
            with connection.cursor() as cursor:
                cursor.execute(ending)
            Supplier.objects.create(name="b")
            transaction.rollback()
            Supplier.objects.create(name="c")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        outcomes = {record.changes[0].new: record.outcome for record in audit.records}
    assert Supplier.objects.filter(name="b").exists()
    assert outcomes == {"a": "success" if ending == "COMMIT" else "failure", "b": "unknown", "c": "success"}
