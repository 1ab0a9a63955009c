"""PostgreSQL: ``db.namespace`` tells the schemas of tenants apart where they are known without asking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from otel_audit.instrumentation.django import schemas
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing, default_database
from tests.instrumentation.django.warehouse.models import Supplier

SCHEMAS = ("acme", "umbrella")


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The name of a database with a table of suppliers in each of two schemas and in ``public``."""
    with connection.cursor() as cursor:
        for schema in SCHEMAS:
            cursor.execute(f"CREATE SCHEMA {schema}")
            cursor.execute(
                f"CREATE TABLE {schema}.warehouse_supplier (LIKE warehouse_supplier INCLUDING ALL)"
            )
    yield str(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute("RESET search_path")
        for schema in SCHEMAS:
            cursor.execute(f"DROP SCHEMA {schema} CASCADE")


def sql(statement: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)


def places(audit: CapturedAudit) -> list[str]:
    found = [record.database.namespace for record in audit]
    audit.clear()
    return found


def test_the_schema_set_at_a_cursor_is_in_the_namespace(database: str) -> None:
    with auditing() as audit:
        Supplier.objects.create(name="a")
        assert places(audit) == [database]
        for schema in SCHEMAS:
            sql(f"SET search_path TO {schema}, public")
            Supplier.objects.create(name="b")
            assert places(audit) == [f"{database}|{schema}"]
        sql("SET search_path = %s", "acme")
        Supplier.objects.create(name="c")
        sql("RESET search_path")
        Supplier.objects.create(name="d")
        assert places(audit) == [f"{database}|acme", database]


def test_a_statement_that_names_a_schema_is_in_the_namespace(database: str) -> None:
    with auditing() as audit:
        sql("INSERT INTO warehouse_supplier (name) VALUES ('a')")
        sql("INSERT INTO acme.warehouse_supplier SELECT * FROM warehouse_supplier")
        with transaction.atomic():
            sql('DELETE FROM "umbrella".warehouse_supplier')  # nothing
            sql('UPDATE "acme"."warehouse_supplier" SET name = %s', "b")
            sql("DELETE FROM warehouse_supplier")
        assert places(audit) == [database, f"{database}|acme", f"{database}|acme", database]


def test_each_write_of_a_transaction_has_the_schema_it_went_to(database: str) -> None:
    with auditing() as audit:
        with transaction.atomic():
            for schema in SCHEMAS:
                sql(f"SET search_path TO {schema}")
                Supplier.objects.create(name="a")
        Supplier.objects.create(name="b")
        assert places(audit) == [f"{database}|acme", f"{database}|umbrella", f"{database}|umbrella"]


def test_a_rollback_takes_the_schema_back_and_a_local_one_ends_with_its_transaction(database: str) -> None:
    with auditing() as audit:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            sql("SET search_path TO acme")
            raise ZeroDivisionError
        Supplier.objects.create(name="a")
        with transaction.atomic():
            sql("SET LOCAL search_path TO umbrella")
            Supplier.objects.create(name="b")
        Supplier.objects.create(name="c")
        assert places(audit) == [database, f"{database}|umbrella", database]


def test_the_schema_of_the_connection_options_is_in_the_namespace(database: str) -> None:
    settings = {
        name: connection.settings_dict[name]
        for name in ("ENGINE", "NAME", "USER", "HOST", "PASSWORD", "PORT")
    }
    settings["OPTIONS"] = {"options": "-c statement_timeout=9000 -c search_path=acme,public"}
    with default_database(settings), auditing() as audit:
        Supplier.objects.create(name="a")
        assert places(audit) == [f"{database}|acme"]


def test_the_schema_of_a_package_for_tenants_is_in_the_namespace(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections["default"], "schema_name", "acme", raising=False)
    with auditing() as audit:
        with transaction.atomic():
            Supplier.objects.create(name="a")
            monkeypatch.setattr(connections["default"], "schema_name", "umbrella")
            Supplier.objects.create(name="b")
        assert places(audit) == [f"{database}|acme", f"{database}|umbrella"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SET search_path TO acme", ("acme", False)),
        ("set search_path=acme , public;", ("acme", False)),
        ("SET LOCAL search_path = 'Acme'", ("Acme", True)),
        ('SET SESSION search_path TO "a ""b""", public', ('a "b"', False)),
        ("SET search_path TO ACME", ("acme", False)),
        ('SET search_path TO "$user", public', ("", False)),
        ("SET search_path TO DEFAULT", (None, False)),
        ("RESET search_path", (None, False)),
        ("RESET ALL", (None, False)),
        ("SET statement_timeout TO 5", None),
        ("SET ROLE acme", None),
        ("-- tenant\n /* acme */ SET search_path TO acme", ("acme", False)),
        ("DISCARD ALL", (None, False)),
        ("SELECT set_config('search_path', 'acme', false)", ("acme", False)),
        ("select pg_catalog.set_config( 'search_path' , 'Acme,public'::text , TRUE ) AS x", ("acme", True)),
        ("SELECT set_config('search_path', '\"A''b\"', false)", ("A'b", False)),
        ("SELECT set_config('search_path', '', false)", ("", False)),
        ("SELECT set_config('search_path', upper('acme'), false)", ("", False)),
        ("SELECT set_config(name, 'acme', false) FROM settings", ("", False)),
        ("SELECT set_config('app.user', '7', true)", None),
        (
            "SELECT set_config('app.user', '7', true), set_config('search_path', 'acme', true)",
            ("acme", True),
        ),
        ("SELECT settled FROM orders", None),
    ],
)
def test_a_statement_says_which_schema_comes_first(statement: str, expected: Any) -> None:
    assert schemas.setting(statement) == expected


@pytest.mark.parametrize(
    ("statement", "params", "expected"),
    [
        ("SELECT set_config(%s, %s, %s)", ["search_path", "acme", True], ("acme", True)),
        ("SELECT set_config('search_path', %s, false)", ("acme",), ("acme", False)),
        (
            "SELECT set_config('app.user', %s, true), set_config('search_path', %s, %s)",
            (7, "a", "f"),
            ("a", False),
        ),
        ("SELECT set_config('search_path', %(to)s, false)", {"to": "acme"}, ("acme", False)),
        ("SELECT set_config('search_path', %s, false)", None, ("", False)),
        ("SELECT set_config('search_path', %s, false)", (), ("", False)),
        ("SELECT set_config(%s, %s, %s)", ["app.user", "acme", True], None),
    ],
)
def test_the_function_takes_parameters(statement: str, params: Any, expected: Any) -> None:
    assert schemas.setting(statement, params) == expected


def test_the_function_sets_the_schema_of_what_comes_next(database: str) -> None:
    with auditing() as audit:
        sql("SELECT set_config('search_path', %s, false)", "acme")
        Supplier.objects.create(name="a")
        with transaction.atomic():
            sql("SELECT pg_catalog.set_config('search_path', 'umbrella', true)")
            Supplier.objects.create(name="b")
        Supplier.objects.create(name="c")
        assert places(audit) == [f"{database}|acme", f"{database}|umbrella", f"{database}|acme"]
        with transaction.atomic():
            sql("SELECT set_config('search_path', concat('umb', 'rella'), true)")
            Supplier.objects.create(name="d")  # nobody can tell: not acme's
        assert places(audit) == [database]
        assert Supplier.objects.count() == 2
        sql("DISCARD ALL")
        Supplier.objects.create(name="e")
        assert places(audit) == [database]


def test_however_the_statement_is_handed_over(database: str) -> None:
    from django.db.backends.postgresql.psycopg_any import sql as compose

    with auditing() as audit:
        statements = (
            "\n  SET search_path TO acme",
            "/* tenant */ SET search_path TO umbrella",
            compose.SQL("SET search_path TO {}").format(compose.Identifier("acme")),
            compose.SQL("SELECT set_config('search_path', {}, false)").format(compose.Literal("umbrella")),
        )
        for statement in statements:
            with connection.cursor() as cursor:
                cursor.execute(statement)
            Supplier.objects.create(name="a")
        assert places(audit) == [f"{database}|acme", f"{database}|umbrella"] * 2


def test_a_savepoint_that_is_rolled_back_takes_the_schema_back(database: str) -> None:
    with auditing() as audit:
        with transaction.atomic():
            sql("SET search_path TO acme")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                sql("SET search_path TO umbrella")
                Supplier.objects.create(name="gone")
                raise ZeroDivisionError
            Supplier.objects.create(name="a")
            with transaction.atomic():
                sql("SET search_path TO umbrella")
            Supplier.objects.create(name="b")
        Supplier.objects.create(name="c")
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM acme.warehouse_supplier")
            assert cursor.fetchone() == (1,)
        assert places(audit) == [f"{database}|umbrella", f"{database}|acme", *[f"{database}|umbrella"] * 2]


def test_a_local_path_that_names_no_schema_is_not_that_of_the_session(database: str) -> None:
    with auditing() as audit:
        sql("SET search_path TO acme")
        with transaction.atomic():
            sql('SET LOCAL search_path TO "$user", public')
            Supplier.objects.create(name="a")
        assert places(audit) == [database]
