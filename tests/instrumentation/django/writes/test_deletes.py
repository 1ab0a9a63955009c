"""``delete()`` of one instance: what was loaded is what is recorded, while nothing speaks against it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import signals
from django.test.utils import CaptureQueriesContext
from msgspec import UNSET

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import ModelConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing, unseen
from tests.instrumentation.django.warehouse.models import (
    Box,
    Item,
    Kiosk,
    Ledger,
    Pallet,
    Place,
    Shop,
    Stock,
    Supplier,
    Vault,
)


def made() -> Item:
    """Make an item with a value of every kind, and load it."""
    supplier = Supplier.objects.create(name="s")
    item = Item.objects.create(
        name="a",
        quantity=3,
        price="1.50",
        facts={"k": [1, {"l": None}]},
        weight=1.25,
        due=datetime.datetime(2026, 11, 28, 12, 30, 0, 123456, tzinfo=datetime.UTC),
        blob=b"\x00\xff",
        supplier=supplier,
    )
    return Item.objects.get(pk=item.pk)


def said(record: AuditRecord) -> dict[str, Any]:
    return {change.field: (change.old, change.new, change.type) for change in record.changes}


def deletes(queries: CaptureQueriesContext) -> list[str]:
    """Return the DELETEs of models: the tables behind many-to-many fields have no instances."""
    found = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    return [sql for sql in found if "warehouse_pallet_items" not in sql]


def deleted(audit: CapturedAudit, model: Any = Item) -> AuditRecord:
    return audit.one(event_name=f"{model._meta.label_lower}.delete")


@pytest.mark.parametrize("block", [transaction.atomic, None], ids=["atomic", "autocommit"])
def test_nothing_is_asked_of_the_database_and_the_record_says_the_same(
    audit: CapturedAudit, block: Callable[[], Any] | None
) -> None:
    first, second = made(), made()
    second.serial = first.serial
    Item.objects.filter(pk=second.pk).update(serial=first.serial, modified=first.modified)
    Item.objects.filter(pk=first.pk).update(supplier=second.supplier)
    first = Item.objects.get(pk=first.pk)
    with CaptureQueriesContext(connection) as queries:
        if block is None:
            first.delete()
        else:
            with block():
                first.delete()
    assert len(deletes(queries)) == 1
    assert "RETURNING" not in deletes(queries)[0]
    loaded = deleted(audit)
    audit.clear()
    Item.objects.filter(pk=second.pk)._raw_delete("default")
    asked = deleted(audit)
    assert (loaded.old_values, asked.old_values) == ("as_loaded", "exact")
    assert said(loaded) == said(asked)
    assert list(said(loaded)) == list(said(asked))
    assert (loaded.completeness, loaded.image, loaded.related) == (asked.completeness, {}, asked.related)
    assert loaded.outcome == asked.outcome == "success"


def test_what_was_saved_here_is_what_is_deleted(audit: CapturedAudit) -> None:
    item = made()
    item.quantity = 9
    item.facts["k"].append(2)
    item.save()
    item.facts["k"].append("never saved")
    audit.clear()
    item.delete()
    told = said(deleted(audit))
    assert (told["quantity"][0], told["facts"][0]) == (9, {"k": [1, {"l": None}, 2]})


def test_json_changed_in_place_and_not_saved_is_not_what_is_deleted(audit: CapturedAudit) -> None:
    ledger = Ledger.objects.create(name="a", entries=[1])
    ledger = Ledger.objects.get(pk=ledger.pk)
    ledger.entries.append(2)
    audit.clear()
    ledger.delete()
    assert said(deleted(audit, Ledger))["entries"][0] == [1]


def test_what_was_just_created_is_what_is_deleted(audit: CapturedAudit) -> None:
    supplier = Supplier.objects.create(name="s")
    supplier.delete()
    record = deleted(audit, Supplier)
    assert (said(record), record.old_values) == ({"name": ("s", UNSET, "")}, "as_loaded")


def _updated(item: Item) -> None:
    Item.objects.filter(pk=item.pk).update(quantity=7)


def _saved_by_another(item: Item) -> None:
    other = Item.objects.get(pk=item.pk)
    other.quantity = 7
    other.save()


def _when_told(item: Item) -> None:
    def update(instance: Item, **kwargs: Any) -> None:
        _updated(instance)
        signals.pre_delete.disconnect(update, sender=Item)

    signals.pre_delete.connect(update, sender=Item, weak=False)


@pytest.mark.parametrize("write", [_updated, _saved_by_another, _when_told], ids=lambda write: write.__name__)
def test_an_instance_made_stale_here_is_doubted(audit: CapturedAudit, write: Callable[[Item], None]) -> None:
    item = made()
    write(item)
    item.delete()
    record = deleted(audit)
    assert (said(record)["quantity"][0], record.old_values) == (7, "exact")


def test_a_row_loaded_before_a_rollback_is_doubted(audit: CapturedAudit) -> None:
    item = made()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Item.objects.filter(pk=item.pk).update(quantity=7)
        item = Item.objects.get(pk=item.pk)
        raise ZeroDivisionError
    audit.clear()
    item.delete()
    assert (said(deleted(audit))["quantity"][0], deleted(audit).old_values) == (3, "exact")


def test_a_deferred_field_is_returned_by_the_delete(audit: CapturedAudit) -> None:
    item = Item.objects.defer("facts").get(pk=made().pk)
    item.delete()
    record = deleted(audit)
    assert (said(record)["facts"][0], record.old_values) == ({"k": [1, {"l": None}]}, "exact")


def test_an_instance_with_another_key_is_doubted(audit: CapturedAudit) -> None:
    item, other = made(), made()
    _updated(other)
    audit.clear()
    item.pk = other.pk
    item.delete()
    record = deleted(audit)
    assert record.target is not None
    assert (record.target.id, said(record)["quantity"][0]) == (str(other.pk), 7)


def test_an_instance_made_by_hand_is_doubted(audit: CapturedAudit) -> None:
    item = made()
    Item(pk=item.pk).delete()
    assert (said(deleted(audit))["name"][0], deleted(audit).old_values) == ("a", "exact")


def test_a_row_that_is_gone_is_no_record(audit: CapturedAudit) -> None:
    item = made()
    unseen(f"DELETE FROM warehouse_item WHERE id = {item.pk}")
    audit.clear()
    item.delete()
    assert audit.records == []


def test_every_table_of_an_inherited_model(audit: CapturedAudit) -> None:
    kiosk = Kiosk.objects.create(name="k", rating=4, staff=2, hours=1)
    kiosk = Kiosk.objects.get(pk=kiosk.pk)
    audit.clear()
    with CaptureQueriesContext(connection) as queries:
        kiosk.delete()
    assert len(deletes(queries)) == 3
    assert not any("RETURNING" in sql for sql in deletes(queries))
    assert said(deleted(audit, Place))["rating"][0] == 4
    assert said(deleted(audit, Shop))["staff"][0] == 2
    assert said(deleted(audit, Kiosk))["hours"][0] == 1


def test_a_parent_written_since_is_doubted_alone(audit: CapturedAudit) -> None:
    kiosk = Kiosk.objects.create(name="k", rating=4, staff=2, hours=1)
    kiosk = Kiosk.objects.get(pk=kiosk.pk)
    Place.objects.filter(pk=kiosk.pk).update(rating=5)
    audit.clear()
    kiosk.delete()
    assert said(deleted(audit, Place))["rating"][0] == 5
    assert [deleted(audit, model).old_values for model in (Place, Kiosk)] == ["exact", "as_loaded"]


def test_what_goes_with_it_is_returned_by_its_own_delete(audit: CapturedAudit) -> None:
    pallet = Pallet.objects.create(label="p")
    Box.objects.create(pallet=pallet, number=1)
    audit.clear()
    pallet.delete()
    assert said(deleted(audit, Box))["number"][0] == 1
    assert (deleted(audit, Box).old_values, deleted(audit, Pallet).old_values) == ("exact", "as_loaded")


@pytest.mark.parametrize("old_values", ["exact", "off"])
def test_other_settings_are_as_they_were(vendor: str, old_values: str) -> None:
    with auditing(model={"warehouse.*": ModelConfig(old_values=old_values)}) as audit:  # type: ignore[arg-type]
        item = made()
        unseen(f"UPDATE warehouse_item SET quantity = 7 WHERE id = {item.pk}")
        audit.clear()
        item.delete()
        record = deleted(audit)
    if old_values == "exact":
        assert (said(record)["quantity"][0], record.old_values) == (7, "exact")
    else:
        assert (record.changes, record.completeness) == ([], "count")


def test_a_field_that_encrypts_is_masked(audit: CapturedAudit) -> None:
    vault = Vault.objects.create(combination="l3-r7", password="secret")
    vault = Vault.objects.get(pk=vault.pk)
    audit.clear()
    vault.delete()
    assert "l3-r7" not in str(deleted(audit, Vault))
    assert "secret" not in str(deleted(audit, Vault))


def test_a_key_that_is_no_number(audit: CapturedAudit) -> None:
    Stock.objects.create(code="A-1", shelf=2)
    stock = Stock.objects.get(pk="A-1")
    audit.clear()
    stock.delete()
    record = deleted(audit, Stock)
    assert record.target is not None
    assert (record.target.id, said(record)["shelf"][0], record.old_values) == ("A-1", 2, "as_loaded")


def test_rolled_back_it_is_a_failure_and_the_row_is_deleted_again(audit: CapturedAudit) -> None:
    item = made()
    audit.clear()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        item.delete()
        raise ZeroDivisionError
    assert (deleted(audit).outcome, deleted(audit).error) == ("failure", "ZeroDivisionError")
    assert said(deleted(audit))["quantity"][0] == 3
    audit.clear()
    Item.objects.get(name="a").delete()
    assert (deleted(audit).outcome, deleted(audit).old_values) == ("success", "as_loaded")


def test_refused_by_the_database_it_names_its_row(postgres: str) -> None:
    with auditing() as audit:
        supplier = Supplier.objects.create(name="s")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE of_supplier (id int REFERENCES warehouse_supplier)")
            cursor.execute("INSERT INTO of_supplier VALUES (%s)", [supplier.pk])
        try:
            supplier = Supplier.objects.get(pk=supplier.pk)
            audit.clear()
            with pytest.raises(IntegrityError):
                supplier.delete()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE of_supplier")
        record = deleted(audit, Supplier)
    assert record.target is not None
    assert (record.outcome, record.target.id) == ("failure", str(supplier.pk))


def test_it_is_announced_before_it_runs_in_autocommit(audit: CapturedAudit) -> None:
    """Should the process die, the trail says which row it was and what was in it."""
    ledger = Ledger.objects.create(name="a", entries=[1])
    audit.clear()
    seen: list[Any] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE"):
            seen.append(_on_disk(audit))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        ledger.delete()
    assert len(seen) == 1
    assert b"warehouse.ledger.delete" in seen[0]
    assert deleted(audit, Ledger).outcome == "success"


def _on_disk(audit: CapturedAudit) -> bytes:
    directory = audit.pipeline.spool.directory
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())
