"""G7: the application behaves as without us, also when everything of ours fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import F, Model
from django.db.models.sql import compiler
from django.db.transaction import Atomic
from django.test.utils import CaptureQueriesContext

from otel_audit.capture import bulk, freshness
from otel_audit.capture import writes as captured_writes
from otel_audit.capture.transactions.transaction_buffer import TransactionBuffer
from otel_audit.config.model import AuditConfig
from otel_audit.errors import AuditError, SpoolError
from otel_audit.instrumentation.django import loaded
from otel_audit.instrumentation.django.plan import field_plan, model_plan, model_policy
from otel_audit.instrumentation.django.requests.middleware import RequestCapture
from otel_audit.instrumentation.django.writes import (
    delete,
    delete_fast_path,
    insert,
    insert_fast_path,
    known,
    save,
    save_fast_path,
    sql,
    state,
    update,
    update_statement,
)
from otel_audit.instrumentation.django.writes.wrappers import WriteCapture
from otel_audit.testing import CapturedAudit
from otel_audit.values import conversion, freezing, frozen, recorded, scalars
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    auditing,
    default_database,
    empty_tables,
    mariadb_warehouse,
    postgresql_warehouse,
    sqlite_warehouse,
    vendor,
)
from tests.instrumentation.django.warehouse.models import Ignored, Item, Kiosk, Pallet, Stock, Supplier


def behaviour() -> list[Any]:
    """Use the ORM in every way; give all it answers."""
    said: list[Any] = []

    def tell(what: Callable[[], Any]) -> None:
        try:
            said.append(what())
        except Exception as error:  # noqa: BLE001 - exceptions are part of the behaviour
            said.append(type(error))

    def transactional() -> Any:
        with transaction.atomic():
            item = Item.objects.create(name="t", quantity=1)
            item.quantity = F("quantity") + 1
            item.save()
            with pytest.raises(KeyError), transaction.atomic():
                item.delete()
                raise KeyError
            return Item.objects.filter(name="t").update(name="u")

    supplier = Supplier.objects.create(name="s")
    item = Item.objects.create(name="a", supplier=supplier)
    item.quantity = "3"
    tell(item.save)
    tell(item.save)
    tell(lambda: item.save(update_fields=["name"]))
    tell(lambda: Item(pk=-5).save(force_update=True))
    item.quantity = "many"
    tell(item.save)
    tell(transactional)
    tell(lambda: len(Item.objects.bulk_create([Item(name=str(n)) for n in range(3)])))
    tell(lambda: Item.objects.filter(supplier__name="s").update(quantity=F("quantity") + 1))
    tell(lambda: Item.objects.none().update(quantity=1))
    tell(lambda: Item.objects.update(quantity="many"))
    tell(lambda: Item.objects.bulk_update(list(Item.objects.order_by("pk")), ["name"]))
    tell(lambda: Stock.objects.create(code="x").code)
    tell(lambda: Stock.objects.create(code="x").code)
    tell(
        lambda: len(
            Stock.objects.bulk_create([Stock(code="x"), Stock(code="y", shelf=1)], ignore_conflicts=True)
        )
    )
    kiosk = Kiosk.objects.create(name="k", hours=1)
    tell(lambda: Kiosk.objects.update(hours=2, rating=3))
    pallet = Pallet.objects.create(label="p")
    tell(lambda: pallet.items.add(*Item.objects.all()))
    tell(pallet.items.count)
    tell(lambda: dict(pallet.delete()[1]))
    tell(lambda: kiosk.delete()[0])
    tell(lambda: supplier.delete()[0])
    tell(lambda: Item.objects.filter(name__in=["0", "1"]).delete()[0])
    said.append(sorted(Item.objects.values_list("name", "quantity", "supplier")))
    said.append(sorted(Stock.objects.values_list("code", flat=True)))
    return said


@pytest.fixture
def expected(vendor: str) -> list[Any]:  # noqa: F811
    """What the ORM answers without us."""
    said = behaviour()
    empty_tables()
    return said


def test_same_answers_and_same_exceptions(expected: list[Any]) -> None:
    with auditing():
        assert behaviour() == expected


PARTS = (
    bulk,
    captured_writes,
    delete,
    delete_fast_path,
    freshness,
    insert,
    insert_fast_path,
    known,
    loaded,
    field_plan,
    model_plan,
    model_policy,
    save,
    save_fast_path,
    sql,
    state,
    update,
    update_statement,
    conversion,
    freezing,
    frozen,
    recorded,
    scalars,
)
OURS = [
    (module, name)
    for module in PARTS
    for name, member in vars(module).items()
    if inspect.isfunction(member)
    and member.__module__ == module.__name__
    # These carry the application's own statement, or run when nothing of ours is left to fail.
    and name
    not in {
        "guarded",
        "_guarded",
        "in_transaction",
        "in_own_transaction",
        "_delete_counting",
        "execute",
        "save",
        "update_rows",
        "insert",
        "delete",
        "_related",
        "_forbidden",
        "_returning_all",
        "columns_of",
        "update_returning",
        "delete_returning",
        "_delete_measured",
        "_delete_by_keys",
        "_within_budget",
        "fetch",
        "_upsert",
        "_update_joined",
        "_update_selecting",
        "_update_counting",
        "_save_joined",
        "_save_asking",
        "_select_first",
        "returning_rows",
        "reraise_database_error",
        "save_quickly",
        "delete_quickly",
        "insert_quickly",
        "run_known",
        "_run_in_transaction",
        "converted",
        "_converters",
        "_matched",
    }
]


@pytest.mark.parametrize(
    ("module", "name"), OURS, ids=[f"{m.__name__.rpartition('.')[2]}.{n}" for m, n in OURS]
)
def test_a_failure_of_ours_changes_nothing_for_the_application(
    sqlite_expected: list[Any], monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Each function of capture raises, one after the other: same answers, same exceptions."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{name} is broken")

    for other in PARTS:
        if vars(other).get(name) is vars(module)[name]:
            monkeypatch.setattr(other, name, broken)
    with auditing():
        assert behaviour() == sqlite_expected


@pytest.fixture
def sqlite_expected(sqlite_warehouse: dict[str, Any]) -> Iterator[list[Any]]:  # noqa: F811
    with default_database(sqlite_warehouse):
        empty_tables()
        said = behaviour()
        empty_tables()
        yield said


@pytest.mark.parametrize(
    "method",
    [
        "add",
        "before_commit",
        "committed",
        "rolled_back",
        "savepoint",
        "rollback_to",
        "intend_now",
        "settle_now",
    ],
)
def test_a_failure_of_the_buffer_changes_nothing_either(
    sqlite_expected: list[Any], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{method} is broken")

    monkeypatch.setattr(TransactionBuffer, method, broken)
    with auditing():
        assert behaviour() == sqlite_expected


def test_fail_closed_refuses_the_write_instead(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def full(*args: Any, **kwargs: Any) -> Any:
        raise SpoolError("the disk is full")

    with auditing(config=AuditConfig(on_error="fail_closed")):
        monkeypatch.setattr(TransactionBuffer, "before_commit", full)
        monkeypatch.setattr(TransactionBuffer, "intend_now", full)
        with pytest.raises(SpoolError):
            Supplier.objects.create(name="autocommit")
        with pytest.raises(SpoolError), transaction.atomic():
            Supplier.objects.create(name="atomic")
        assert connection.get_autocommit()
        assert not connection.in_atomic_block
        monkeypatch.undo()
        assert not Supplier.objects.exists()
        with transaction.atomic():
            Supplier.objects.create(name="after")
    assert Supplier.objects.get().name == "after"


def test_fail_closed_raises_what_capture_itself_could_not_do(
    vendor: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    with auditing(config=AuditConfig(on_error="fail_closed")):
        for module in (insert, insert_fast_path):
            monkeypatch.setattr(module, "values_of", broken)
        with pytest.raises(AuditError, match="fail_closed"), transaction.atomic():
            Supplier.objects.create(name="a")
    assert not Supplier.objects.exists()


PATCHED = [
    compiler.SQLInsertCompiler,
    compiler.SQLUpdateCompiler,
    compiler.SQLDeleteCompiler,
    compiler.SQLCompiler,
    BaseDatabaseWrapper,
    CursorWrapper,
    Atomic,
    Model,
    Item,
    Kiosk,
]


def test_uninstrumenting_leaves_no_trace(vendor: str) -> None:  # noqa: F811
    before = [dict(vars(owner)) for owner in PATCHED]
    for _ in range(2):
        with auditing():
            assert "from_db" in vars(Item)
            assert any(dict(vars(owner)) != old for owner, old in zip(PATCHED, before, strict=True))
            Item.objects.create(name="a")
        for owner, old in zip(PATCHED, before, strict=True):
            assert dict(vars(owner)) == old
    item = Item.objects.get(name="a") if Item.objects.count() == 1 else Item.objects.first()
    assert item is not None
    assert "_otel_audit" not in vars(item._state)


@pytest.mark.parametrize("part", [WriteCapture, RequestCapture])
def test_a_start_that_fails_leaves_no_trace(
    sqlite_warehouse: dict[str, Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    part: type[Any],
) -> None:
    def broken(self: Any) -> None:
        raise RuntimeError("broken")

    before = [dict(vars(owner)) for owner in PATCHED]
    monkeypatch.setattr(part, "start", broken)
    with pytest.raises(RuntimeError, match="broken"), auditing():
        pass
    for owner, old in zip(PATCHED, before, strict=True):
        assert dict(vars(owner)) == old
    monkeypatch.undo()
    with default_database(sqlite_warehouse), auditing() as audit:
        Item.objects.create(name="a")
        assert len(audit) == 1


def test_models_not_audited_run_the_same_statements(vendor: str) -> None:  # noqa: F811
    def work() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            one = Ignored.objects.create(name="a")
            one.save()
            Ignored.objects.update(name=F("name"))
            Ignored.objects.filter(pk=one.pk).delete()
        return [query["sql"].replace(str(one.pk), "?") for query in queries]

    plain = work()
    with auditing():
        assert work() == plain


def test_an_execute_wrapper_that_forbids_queries_is_obeyed(vendor: str) -> None:  # noqa: F811
    class Forbidden(Exception):
        pass

    def forbid(*args: Any) -> Any:
        raise Forbidden

    item = Item.objects.create(name="a")
    with auditing() as audit:
        with connection.execute_wrapper(forbid):
            with pytest.raises(Forbidden):
                Item.objects.update(name="b")
            with pytest.raises(Forbidden):
                item.save()
            with pytest.raises(Forbidden):
                item.delete()
        assert not audit.find(outcome="success")
    assert Item.objects.get().name == "a"


def test_records_never_appear_inside_the_applications_own_exception(vendor: str) -> None:  # noqa: F811
    """What the database refused reaches the application unchanged, its cause included."""
    Stock.objects.create(code="x")
    with pytest.raises(IntegrityError) as plain:
        Stock.objects.create(code="x")
    with auditing(), pytest.raises(IntegrityError) as audited:
        Stock.objects.create(code="x")
    assert str(audited.value) == str(plain.value)
    assert type(audited.value.__cause__) is type(plain.value.__cause__)


def test_a_broken_logger_configuration_does_not_matter(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from otel_audit.pipeline import provider

    with auditing() as audit:
        monkeypatch.setattr(provider, "current_logger", lambda: None)
        with transaction.atomic():
            Item.objects.create(name="a")
        Item.objects.create(name="b")
        monkeypatch.undo()
        Item.objects.create(name="c")
        assert isinstance(audit, CapturedAudit)
        assert len(audit) == 1
    assert Item.objects.count() == 3
