"""Outcomes: each record says what the database did with its transaction."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError

import otel_audit
from otel_audit.config.model import AuditConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing, create_tables, default_database
from tests.instrumentation.django.warehouse.models import Item, Kiosk, Pallet, Stock, Supplier


def outcomes(audit: CapturedAudit) -> dict[str, str]:
    """Name to outcome of the suppliers created."""
    return {
        next(change.new for change in record.changes if change.field == "name"): record.outcome
        for record in audit.find(event_name="warehouse.supplier.create")
    }


def stored() -> set[str]:
    return set(Supplier.objects.values_list("name", flat=True))


def check(audit: CapturedAudit) -> dict[str, str]:
    """Compare with the database, give what was recorded."""
    seen = outcomes(audit)
    assert {name for name, outcome in seen.items() if outcome == "success"} == stored()
    return seen


def supplier(name: str) -> Supplier:
    return Supplier.objects.create(name=name)


def test_a_statement_in_autocommit_is_recorded_at_once(audit: CapturedAudit) -> None:
    one = supplier("a")
    assert check(audit) == {"a": "success"}
    record = audit.one(event_name="warehouse.supplier.create")
    assert record.target is not None
    assert record.target.id == str(one.pk)
    assert record.database.transaction


def test_records_of_a_transaction_appear_with_its_commit_and_share_its_id(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        supplier("b")
        assert len(audit) == 0
    assert check(audit) == {"a": "success", "b": "success"}
    assert len({record.database.transaction for record in audit}) == 1


def test_a_transaction_rolled_back_is_a_failure_that_names_its_cause(audit: CapturedAudit) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        supplier("a")
        1 / 0  # noqa: B018
    assert check(audit) == {"a": "failure"}
    assert audit.records[0].error == "ZeroDivisionError"


def test_failures_can_be_left_out(vendor: str) -> None:
    with auditing(failures=False) as audit:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            supplier("a")
            1 / 0  # noqa: B018
        Stock.objects.create(code="x", shelf=1)
        with pytest.raises(IntegrityError):
            Stock.objects.create(code="x", shelf=2)
        assert [record.outcome for record in audit] == ["success"]


def test_a_savepoint_rolled_back_fails_only_what_came_after_it(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        with pytest.raises(KeyError), transaction.atomic():
            supplier("b")
            with transaction.atomic():
                supplier("c")
            raise KeyError
        supplier("d")
    assert check(audit) == {"a": "success", "b": "failure", "c": "failure", "d": "success"}
    assert {record.error for record in audit if record.outcome == "failure"} == {"KeyError"}


def test_an_error_without_savepoint_fails_the_enclosing_one(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        try:
            with transaction.atomic():
                supplier("b")
                with transaction.atomic(savepoint=False):
                    supplier("c")
                    raise KeyError
        except KeyError:
            pass
    assert check(audit) == {"a": "success", "b": "failure", "c": "failure"}


def test_set_rollback_is_a_failure(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        transaction.set_rollback(True)
    assert check(audit) == {"a": "failure"}


def test_manual_savepoints_can_be_rolled_back_to_twice(audit: CapturedAudit) -> None:
    with transaction.atomic():
        sid = transaction.savepoint()
        supplier("a")
        transaction.savepoint_rollback(sid)
        supplier("b")
        transaction.savepoint_rollback(sid)
        supplier("c")
        transaction.savepoint_commit(sid)
    assert check(audit) == {"a": "failure", "b": "failure", "c": "success"}


def test_autocommit_off_commits_and_rolls_back_by_hand(audit: CapturedAudit) -> None:
    transaction.set_autocommit(False)
    try:
        supplier("a")
        transaction.commit()
        supplier("b")
        transaction.rollback()
        with transaction.atomic():
            supplier("c")
        assert "c" not in outcomes(audit) or connection.vendor == "sqlite"
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert check(audit) == {"a": "success", "b": "failure", "c": "success"}


def test_sqlite_commits_with_the_outermost_savepoint(sqlite: str) -> None:
    """With autocommit off and nothing begun, RELEASE is the commit: a later rollback undoes nothing."""
    with auditing() as audit:
        transaction.set_autocommit(False)
        try:
            with transaction.atomic():
                supplier("a")
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert check(audit) == dict.fromkeys(stored(), "success") | {
            "a": "success" if "a" in stored() else "failure"
        }


def test_turning_autocommit_on_commits_where_the_driver_does(audit: CapturedAudit) -> None:
    transaction.set_autocommit(False)
    supplier("a")
    if connection.vendor == "postgresql":
        with pytest.raises(DatabaseError):
            transaction.set_autocommit(True)
        assert outcomes(audit) == {}
        transaction.rollback()
    transaction.set_autocommit(True)
    check(audit)


def test_closing_the_connection_rolls_back(audit: CapturedAudit) -> None:
    transaction.set_autocommit(False)
    supplier("a")
    connection.close()
    assert check(audit) == {"a": "failure"}
    with transaction.atomic():
        supplier("b")
        connection.close()
    assert check(audit) == {"a": "failure", "b": "failure"}


def test_a_refused_statement_is_a_failure_and_the_rest_of_its_transaction_is_not(
    audit: CapturedAudit,
) -> None:
    with transaction.atomic():
        Stock.objects.create(code="x", shelf=1)
        with pytest.raises(IntegrityError), transaction.atomic():
            Stock.objects.create(code="x", shelf=2)
        Stock.objects.create(code="y", shelf=3)
    created = {str(record.target) + record.outcome: record.error for record in audit}
    assert created == {
        "warehouse.Stock/xsuccess": "",
        "warehouse.Stock/xfailure": "IntegrityError",
        "warehouse.Stock/ysuccess": "",
    }


def test_a_value_django_refuses_is_no_record(audit: CapturedAudit) -> None:
    item = Item.objects.create(name="a")
    audit.clear()
    item.quantity = "many"
    with pytest.raises(ValueError, match="many"):
        item.save()
    with pytest.raises(ValueError, match="many"):
        Item.objects.update(quantity="many")
    with pytest.raises(ValueError, match="many"), transaction.atomic():
        Item.objects.create(name="b", quantity="many")
    assert len(audit) == 0


def test_an_error_swallowed_in_atomic_rolls_everything_back(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        try:
            Stock.objects.create(code="x", shelf=1)
            Stock.objects.create(code="x", shelf=1)
        except IntegrityError:
            pass
    assert check(audit) == {"a": "failure"}
    assert not audit.find(outcome="success")


def test_postgresql_rolls_back_at_commit_what_a_swallowed_raw_error_has_doomed(postgres: str) -> None:
    """The server answers COMMIT with ROLLBACK, without an error."""
    with auditing() as audit:
        with transaction.atomic():
            supplier("a")
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT * FROM no_such_table")
            except DatabaseError:
                pass
        assert check(audit) == {"a": "failure"}


def test_hooks_of_a_commit_write_in_transactions_of_their_own(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        transaction.on_commit(lambda: supplier("b"))
        transaction.on_commit(lambda: 1 / 0, robust=True)
    assert check(audit) == {"a": "success", "b": "success"}
    assert len({record.database.transaction for record in audit}) == 2


def test_a_deferred_constraint_that_fails_at_commit_is_a_failure(postgres: str) -> None:
    with auditing() as audit:
        with pytest.raises(IntegrityError), transaction.atomic():
            supplier("a")
            Item.objects.create(name="i", supplier_id=999)
        assert check(audit) == {"a": "failure"}
        assert {(record.outcome, record.error) for record in audit} == {("failure", "IntegrityError")}


def test_sqlite_keeps_a_transaction_whose_commit_it_refuses(sqlite: str) -> None:
    """A deferred foreign key: COMMIT raises, the transaction stays open and is rolled back by atomic()."""
    with auditing() as audit:
        with pytest.raises(IntegrityError), transaction.atomic():
            supplier("a")
            Item.objects.create(name="i", supplier_id=999)
        assert check(audit) == {"a": "failure"}
        assert not audit.find(outcome="success")


@pytest.mark.psycopg3
@pytest.mark.parametrize("ending", ["COMMIT", "commit;", "ROLLBACK", "  rollback"])
def test_transactions_ended_by_sql_text(audit: CapturedAudit, ending: str) -> None:
    transaction.set_autocommit(False)
    try:
        supplier("a")
        with connection.cursor() as cursor:
            cursor.execute(ending)
        supplier("b")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    seen = check(audit)
    assert seen == {"a": "success" if "ommit" in ending.lower() else "failure", "b": "success"}


def test_transactions_begun_and_savepoints_set_by_sql_text(audit: CapturedAudit) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        supplier("a")
        assert outcomes(audit) == {}
        cursor.execute("SAVEPOINT one")
        supplier("b")
        cursor.execute("ROLLBACK TO SAVEPOINT one")
        supplier("c")
        cursor.execute("RELEASE SAVEPOINT one")
        cursor.execute("COMMIT")
    assert check(audit) == {"a": "success", "b": "failure", "c": "success"}


def test_a_schema_change_commits_on_mariadb(mariadb_warehouse: dict[str, Any]) -> None:
    from tests.instrumentation.django.warehouse.databases import default_database, empty_tables

    with default_database(mariadb_warehouse):
        empty_tables()
        with auditing() as audit:
            transaction.set_autocommit(False)
            try:
                supplier("a")
                with connection.cursor() as cursor:
                    cursor.execute("CREATE TABLE made_in_between (id int)")
                transaction.rollback()
                with connection.cursor() as cursor:
                    cursor.execute("DROP TABLE made_in_between")
            finally:
                transaction.set_autocommit(True)
            assert check(audit) == {"a": "success"}


def test_misuse_inside_atomic_changes_nothing(audit: CapturedAudit) -> None:
    with transaction.atomic():
        supplier("a")
        with pytest.raises(TransactionManagementError):
            transaction.commit()
        with pytest.raises(TransactionManagementError):
            transaction.rollback()
        assert outcomes(audit) == {}
    assert check(audit) == {"a": "success"}


@pytest.mark.psycopg3
def test_a_commit_whose_answer_was_lost_is_unknown(postgres: str) -> None:
    """The server commits and the connection breaks before it can say so."""
    with auditing() as audit:
        with pytest.raises(DatabaseError), transaction.atomic():
            supplier("a")
            driver = connection.connection
            commit = driver.commit

            def commit_and_break() -> None:
                import psycopg

                commit()
                driver.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")

            driver.commit = commit_and_break
        assert stored() == {"a"}
        assert outcomes(audit) == {"a": "unknown"}


def test_a_connection_killed_in_a_transaction_is_a_failure(postgres: str, postgresql_server: Any) -> None:
    with auditing() as audit:
        with pytest.raises(DatabaseError), transaction.atomic():
            supplier("a")
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                (pid,) = cursor.fetchone()
            postgresql_server.execute(f"SELECT pg_terminate_backend({pid})")
            supplier("b")
        assert not audit.find(outcome="success")
        assert outcomes(audit)["a"] == "failure"
        assert stored() == set()


def test_databases_end_their_transactions_independently(
    sqlite: str, postgresql_warehouse: dict[str, Any]
) -> None:
    from django.db import connections

    connections.settings["other"] = connections.configure_settings({"default": postgresql_warehouse})[
        "default"
    ]
    try:
        with auditing() as audit:
            with pytest.raises(KeyError), transaction.atomic(using="other"):
                with transaction.atomic():
                    supplier("here")
                Supplier.objects.using("other").create(name="there")
                raise KeyError
            assert outcomes(audit) == {"here": "success", "there": "failure"}
            systems = {record.database.system for record in audit}
            assert systems == {"sqlite", "postgresql"}
    finally:
        connections["other"].close()
        del connections["other"]
        del connections.settings["other"]


def test_a_forked_child_drops_what_its_parent_began(sqlite: str) -> None:
    """The parent's commit settles the write; the child writes records of its own only."""
    with auditing() as audit:
        with transaction.atomic():
            supplier("a")
            child = os.fork()
            if child == 0:
                # The inherited connection is the parent's: the child must not use it, only let it go.
                code = 1
                try:
                    from otel_audit.instrumentation.django import DjangoAuditInstrumentor

                    active = DjangoAuditInstrumentor()._active
                    assert active is not None
                    writes: Any = active.parts[0]
                    code = writes.transactions.state(connection).pending
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        assert check(audit) == {"a": "success"}


class TestInsideTestCase:
    """What Django's ``TestCase`` does: everything in transactions that are rolled back in the end."""

    @pytest.fixture(autouse=True)
    def _case(self, vendor: str) -> Any:
        from django.test import TestCase

        class Case(TestCase):
            databases = {"default"}

            def runTest(self) -> None: ...  # noqa: N802

        Case.setUpClass()
        case = Case()
        case._pre_setup()  # type: ignore[attr-defined]
        yield
        case._post_teardown()  # type: ignore[attr-defined]
        Case.tearDownClass()

    def test_what_the_application_would_have_committed_is_success(self) -> None:
        with auditing() as audit:
            supplier("direct")
            with transaction.atomic():
                supplier("atomic")
                with pytest.raises(KeyError), transaction.atomic():
                    supplier("undone")
                    raise KeyError
            kiosk = Kiosk.objects.create(name="k")
            kiosk.delete()
            pallet = Pallet.objects.create(label="p")
            pallet.delete()
            assert check(audit) == {"direct": "success", "atomic": "success", "undone": "failure"}
            kinds = [record.event_name for record in audit if record.outcome == "success"]
            assert kinds.count("warehouse.kiosk.delete") == 1
            assert kinds.count("warehouse.pallet.delete") == 1


def test_an_autocommit_statement_whose_answer_was_lost_is_unknown(postgres: str) -> None:
    """The row is there; nobody could tell the application."""

    def executed_and_lost(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        execute(sql, params, many, context)
        connection.connection.close()
        raise OperationalError("server closed the connection unexpectedly")

    with auditing() as audit:
        supplier("before")
        with pytest.raises(OperationalError), connection.execute_wrapper(executed_and_lost):
            supplier("lost")
        connection.close()
        assert stored() == {"before", "lost"}
        assert outcomes(audit) == {"before": "success", "lost": "unknown"}


def test_an_exception_after_the_statement_does_not_hide_it(audit: CapturedAudit) -> None:
    """Whatever raises behind the database's back, a converter for example, the row was written."""

    def executed_and_raised(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        execute(sql, params, many, context)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), connection.execute_wrapper(executed_and_raised):
        supplier("autocommit")
    wrapped = connection.execute_wrapper(executed_and_raised)
    with pytest.raises(ZeroDivisionError), transaction.atomic(), wrapped:
        supplier("atomic")
    assert stored() == {"autocommit"}
    assert outcomes(audit) == {"autocommit": "unknown", "atomic": "failure"}


def test_the_async_orm_is_recorded_like_the_other(audit: CapturedAudit) -> None:
    async def work() -> None:
        await asyncio.gather(*(Supplier.objects.acreate(name=str(number)) for number in range(20)))
        one = await Supplier.objects.aget(name="7")
        one.name = "changed"
        await one.asave()
        await Supplier.objects.filter(name="8").aupdate(name="changed as well")
        await Supplier.objects.filter(name="9").adelete()

    async_to_sync(work)()
    assert len(audit.find(action="CREATE", outcome="success")) == 20
    assert len(audit.find(action="UPDATE", outcome="success")) == 2
    assert len(audit.find(action="DELETE", outcome="success")) == 1


@pytest.mark.parametrize("block", [False, True], ids=["autocommit", "transaction"])
def test_a_task_cancelled_while_its_statement_runs_leaves_what_was_committed_on_record(
    audit: CapturedAudit, block: bool
) -> None:
    """The statement goes on in its thread, and whoever asked for it is told CancelledError."""
    running, cancelled = threading.Event(), threading.Event()

    def held(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT") and not running.is_set():
            running.set()
            assert cancelled.wait(20)
        return execute(sql, *rest)

    def create() -> None:
        with transaction.atomic() if block else nullcontext():
            supplier("cancelled")

    async def work() -> None:
        with otel_audit.context(reason="import"):
            task = asyncio.create_task(sync_to_async(create)())
        assert await asyncio.to_thread(running.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Supplier.objects.acreate(name="after")

    with connection.execute_wrapper(held):
        async_to_sync(work)()
    assert check(audit) == {"cancelled": "success", "after": "success"}
    assert {record.reason for record in audit.find(event_name="warehouse.supplier.create")} == {"import", ""}


def test_no_row_is_recorded_inside_migrate(tmp_path: Path) -> None:
    """Permissions and content types are made by migrate, by nobody."""
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "fresh.sqlite3")}
    with default_database(settings), auditing(models=["*"]) as audit:
        create_tables()
        from django.contrib.auth.models import Permission

        assert Permission.objects.exists()
        assert {record.action for record in audit} <= {"MIGRATE"}  # what a migration of Django's does
        assert not [record for record in audit if str(record.target) == "auth.Permission"]
        Permission.objects.all().delete()
        assert audit.find(event_name="auth.permission.delete")


def test_an_instrumentor_applied_anew_does_not_go_on_with_the_configuration_before(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of Django's is the same, and remembers."""

    def broken(*args: Any) -> str:
        raise RuntimeError("broken")

    with auditing(config=AuditConfig(on_error="fail_closed")):
        supplier("a")
    with auditing() as audit:
        monkeypatch.setattr("otel_audit.capture.writes.key_text", broken)
        supplier("b")
        assert [record.event_name for record in audit] == ["warehouse.supplier.create"]


SAVEPOINTS: dict[str, tuple[list[str], bool]] = {
    "released": (["SAVEPOINT a", "", "RELEASE a"], True),
    "rolled back to": (["SAVEPOINT a", "", "ROLLBACK TO a", "RELEASE a"], False),
    "rolled back": (["SAVEPOINT a", "", "ROLLBACK"], False),
    "committed": (["SAVEPOINT a", "", "COMMIT"], True),
    "inner of two": (["SAVEPOINT a", "SAVEPOINT a", "", "RELEASE a", "ROLLBACK"], False),
    "both of two": (["SAVEPOINT a", "SAVEPOINT b", "", "RELEASE a"], True),
}


@pytest.mark.parametrize("name", SAVEPOINTS)
def test_a_savepoint_as_text_that_begins_the_transaction_of_sqlite_ends_it(sqlite: str, name: str) -> None:
    texts, commits = SAVEPOINTS[name]
    with auditing() as captured, connection.cursor() as cursor:
        for text in texts:
            if text:
                cursor.execute(text)
            else:
                supplier("one")
        supplier("after")
    kept = sorted(Supplier.objects.values_list("name", flat=True))
    assert kept == (["after", "one"] if commits else ["after"])
    assert check(captured) == {"one": "success" if commits else "failure", "after": "success"}
