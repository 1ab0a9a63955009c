"""Writes of many rows, of relations, and the values they carry."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction
from django.db.models import F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Lower
from django.test.utils import CaptureQueriesContext
from msgspec import UNSET, UnsetType

from otel_audit.audit_record import AuditRecord, Bulk, Column
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import (
    Box,
    Color,
    CountingField,
    Ignored,
    Item,
    ItemOnSale,
    Kiosk,
    Pallet,
    Sealed,
    Stock,
    Supplier,
    Vault,
)


def bulk(record: AuditRecord) -> Bulk:
    assert record.bulk is not None
    return record.bulk


def column(record: AuditRecord, name: str) -> Column:
    return next(column for column in bulk(record).columns if column.field == name)


def known(values: list[Any] | UnsetType) -> list[Any]:
    assert not isinstance(values, UnsetType)
    return values


def items(count: int) -> list[Item]:
    return Item.objects.bulk_create([Item(name=f"i{n}", quantity=n) for n in range(count)])


def test_bulk_create_is_one_record_with_a_column_a_field(audit: CapturedAudit) -> None:
    created = items(3)
    record = audit.one()
    assert (record.event_name, record.action, str(record.target)) == (
        "warehouse.item.create",
        "CREATE",
        "warehouse.Item",
    )
    assert record.completeness == "full"
    assert bulk(record).count == 3
    assert bulk(record).keys == [str(item.pk) for item in created]
    assert column(record, "quantity").new == [0, 1, 2]
    assert column(record, "quantity").old is UNSET
    assert column(record, "price").type == "decimal"


def test_update_tells_old_and_new_of_each_row_and_leaves_out_those_it_did_not_change(
    audit: CapturedAudit,
) -> None:
    items(3)
    audit.clear()
    assert Item.objects.update(quantity=1, color=Color.RED) == 3
    record = audit.one(event_name="warehouse.item.update")
    assert [c.field for c in bulk(record).columns] == ["quantity"]
    assert column(record, "quantity").old == [0, 2]
    assert column(record, "quantity").new == [1, 1]
    assert record.old_values == "exact"


def test_update_by_expression_tells_what_it_became(audit: CapturedAudit) -> None:
    items(3)
    audit.clear()
    Item.objects.update(quantity=F("quantity") * 10 + 1, name=Lower(Value("X")))
    record = audit.one()
    assert column(record, "quantity").new == [1, 11, 21]
    assert column(record, "name").old == ["i0", "i1", "i2"]
    assert column(record, "name").new == ["x", "x", "x"]


def test_update_over_joins_subqueries_and_annotations(audit: CapturedAudit) -> None:
    supplier = Supplier.objects.create(name="s")
    one, two, _ = items(3)
    Item.objects.filter(pk__in=[one.pk, two.pk]).update(supplier=supplier)
    assert column(audit.records[-1], "supplier").new == [supplier.pk, supplier.pk]
    audit.clear()
    Item.objects.filter(supplier__name="s").update(quantity=9)
    assert column(audit.one(), "quantity").old == [0, 1]
    audit.clear()
    Item.objects.annotate(double=F("quantity") * 2).filter(double=18).order_by("double").update(weight=1.5)
    assert column(audit.one(), "weight").new == [1.5, 1.5]
    audit.clear()
    newest = Supplier.objects.filter(pk=OuterRef("supplier")).values("name")[:1]
    Item.objects.filter(supplier=supplier).update(name=Subquery(newest))
    assert column(audit.one(), "name").new == ["s", "s"]


def test_bulk_update(audit: CapturedAudit) -> None:
    some = items(3)
    for item in some:
        item.quantity += 1
        item.facts = {"n": item.quantity}
    audit.clear()
    Item.objects.bulk_update(some, ["quantity", "facts"])
    record = audit.one()
    assert column(record, "quantity").old == [0, 1, 2]
    assert column(record, "quantity").new == [1, 2, 3]
    assert column(record, "facts").new == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_one_row_is_told_like_one_instance(audit: CapturedAudit) -> None:
    (item,) = items(1)
    Item.objects.filter(pk=item.pk).update(quantity=5)
    Item.objects.filter(pk=item.pk).delete()
    assert [str(record.target) for record in audit] == [f"warehouse.Item/{item.pk}"] * 3
    update = audit.one(action="UPDATE")
    assert [(c.field, c.old, c.new) for c in update.changes] == [("quantity", 0, 5)]


def test_nothing_matched_is_no_record(audit: CapturedAudit) -> None:
    assert Item.objects.filter(pk=-1).update(quantity=1) == 0
    assert Item.objects.none().update(quantity=1) == 0
    assert Item.objects.filter(pk__in=[]).delete()[0] == 0
    assert Item.objects.filter(Q(pk=-1)).delete()[0] == 0
    assert len(audit) == 0


def test_delete_tells_whole_rows_without_a_query_more(audit: CapturedAudit) -> None:
    Sealed.objects.bulk_create([Sealed(base=n) for n in range(3)])
    audit.clear()
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        assert Sealed.objects.all().delete()[0] == 3
    assert len(queries) == 1
    record = audit.one()
    assert sorted(known(column(record, "base").old)) == [0, 1, 2]
    assert sorted(known(column(record, "double").old)) == [0, 2, 4]
    assert all(uuid.UUID(key) for key in bulk(record).keys)


def test_cascades_are_recorded_row_by_row(audit: CapturedAudit) -> None:
    supplier = Supplier.objects.create(name="s")
    pallet = Pallet.objects.create(label="p")
    for number in range(2):
        Box.objects.create(pallet=pallet, number=number)
    pallet.items.add(*items(2))
    Item.objects.update(supplier=supplier)
    audit.clear()
    pallet.delete()
    supplier.delete()
    told = {record.event_name: record for record in audit}
    assert set(told) == {
        "warehouse.pallet_items.delete",
        "warehouse.box.delete",
        "warehouse.pallet.delete",
        "warehouse.item.update",
        "warehouse.supplier.delete",
    }
    assert column(told["warehouse.box.delete"], "number").old == [0, 1]
    assert column(told["warehouse.item.update"], "supplier").new == [None, None]
    assert len({record.database.transaction for record in audit}) == 2


def test_many_to_many_rows_say_only_what_was_really_added(audit: CapturedAudit) -> None:
    pallet = Pallet.objects.create(label="p")
    one, two, three = items(3)
    pallet.items.add(one)
    audit.clear()
    pallet.items.add(one, two, three)
    added = audit.one()
    assert added.event_name == "warehouse.pallet_items.create"
    assert sorted(known(column(added, "item").new)) == [two.pk, three.pk]
    audit.clear()
    pallet.items.add(one, two)
    assert len(audit) == 0
    pallet.items.set([one])
    assert sorted(column(audit.one(), "item").old) == [two.pk, three.pk]  # type: ignore[arg-type]


def test_upserts_are_told_apart(audit: CapturedAudit) -> None:
    Stock.objects.create(code="a", shelf=1, note="old")
    audit.clear()
    named: dict[str, Any] = {} if connection.vendor == "mysql" else {"unique_fields": ["code"]}
    given = Stock.objects.bulk_create(
        [Stock(code="a", shelf=1, note="new"), Stock(code="b", shelf=2, note="n")],
        update_conflicts=True,
        update_fields=["note"],
        **named,
    )
    assert [stock.code for stock in given] == ["a", "b"]
    create, update = audit.one(action="CREATE"), audit.one(action="UPDATE")
    assert str(create.target) == "warehouse.Stock/b"
    assert str(update.target) == "warehouse.Stock/a"
    assert [(c.field, c.old, c.new) for c in update.changes] == [("note", "old", "new")]


def test_upserts_over_two_columns_give_keys_to_their_objects(audit: CapturedAudit) -> None:
    if connection.vendor == "mysql":
        pytest.skip("MariaDB has no unique_fields")
    Stock.objects.create(code="a", shelf=1, level=1)
    audit.clear()
    Stock.objects.bulk_create(
        [Stock(code="z", shelf=1, level=1, note="hit"), Stock(code="y", shelf=1, level=2)],
        update_conflicts=True,
        unique_fields=["shelf", "level"],
        update_fields=["note"],
    )
    assert str(audit.one(action="UPDATE").target) == "warehouse.Stock/a"
    assert str(audit.one(action="CREATE").target) == "warehouse.Stock/y"


def test_get_or_create_and_update_or_create(audit: CapturedAudit) -> None:
    Supplier.objects.get_or_create(name="a")
    Supplier.objects.get_or_create(name="a")
    Supplier.objects.update_or_create(name="a", defaults={"name": "b"})
    assert [record.action for record in audit] == ["CREATE", "UPDATE"]


def test_a_proxy_is_recorded_as_what_it_stands_for(audit: CapturedAudit) -> None:
    item = ItemOnSale.objects.create(name="a")
    ItemOnSale.objects.update(quantity=2)
    item = ItemOnSale.objects.get()
    item.name = "b"
    item.save()
    item.delete()
    assert {str(record.target) for record in audit} == {"warehouse.Item/" + audit.records[0].target.id}  # type: ignore[union-attr]
    assert [record.action for record in audit] == ["CREATE", "UPDATE", "UPDATE", "DELETE"]


def test_updates_of_parent_and_child_are_a_record_each(audit: CapturedAudit) -> None:
    for number in range(2):
        Kiosk.objects.create(name=f"k{number}", hours=number)
    audit.clear()
    assert Kiosk.objects.filter(name__startswith="k").update(hours=F("hours") + 5, rating=3) == 2
    assert {record.event_name for record in audit} == {"warehouse.kiosk.update", "warehouse.place.update"}
    assert column(audit.one(event_name="warehouse.kiosk.update"), "hours").new == [5, 6]


def test_values_by_field(audit: CapturedAudit) -> None:
    supplier = Supplier.objects.create(name="s")
    serial = uuid.uuid4()
    zone = datetime.timezone(datetime.timedelta(hours=2))
    audit.clear()
    Item.objects.create(
        name="a",
        price=1.005,
        color=Color.BLUE,
        facts={"list": [1, None, {"x": 1.5}]},
        due=datetime.datetime(2026, 5, 1, 12, tzinfo=zone),
        serial=str(serial),
        blob=b"\x00\x01",
        supplier=supplier,
    )
    told = {change.field: (change.new, change.type) for change in audit.one().changes}
    price = "1.00" if connection.vendor == "sqlite" else "1.01"
    assert told["price"] == (price, "decimal")
    assert Item.objects.get().price == Decimal(price)
    assert told["color"] == ("blue", "")
    assert told["facts"] == ({"list": [1, None, {"x": 1.5}]}, "")
    assert told["due"] == ("2026-05-01T10:00:00+00:00", "datetime")
    assert told["serial"] == (str(serial), "uuid")
    assert told["blob"] == ("AAE=", "bytes")
    assert told["supplier"] == (supplier.pk, "")


def test_database_defaults_and_generated_columns_are_read_back(audit: CapturedAudit) -> None:
    Stock.objects.create(code="a", shelf=1)
    seen = next(change for change in audit.one().changes if change.field == "seen")
    assert seen.type == "datetime"
    assert datetime.datetime.fromisoformat(seen.new) == Stock.objects.get().seen


def test_pre_save_is_called_as_often_as_without_us(vendor: str) -> None:
    def calls() -> int:
        CountingField.calls = 0
        vault = Vault.objects.create()
        vault.counter = 5
        vault.save()
        vault.save()
        Vault.objects.bulk_create([Vault(), Vault()])
        Vault.objects.bulk_create([Vault(pk=vault.pk)], ignore_conflicts=True)
        return CountingField.calls

    plain = calls()
    with auditing():
        assert calls() == plain


def test_fields_that_encrypt_are_masked(audit: CapturedAudit) -> None:
    vault = Vault.objects.create(combination="open sesame", password="hunter2")
    vault.combination = "other words"
    vault.save()
    Vault.objects.update(combination="third words", password="hunter3")
    vault.delete()
    text = b"".join(msgspec.json.encode(record) for record in audit)
    for secret in (b"sesame", b"other words", b"third", b"hunter", b"emases"):
        assert secret not in text
    assert len(audit) == 4


def test_models_not_named_are_left_alone(audit: CapturedAudit) -> None:
    Ignored.objects.create(name="a").delete()
    Ignored.objects.bulk_create([Ignored(name="b")])
    Ignored.objects.update(name="c")
    assert len(audit) == 0


def test_many_rows_come_in_parts_of_a_thousand(audit: CapturedAudit) -> None:
    Supplier.objects.bulk_create([Supplier(name=str(n)) for n in range(2500)])
    audit.clear()
    Supplier.objects.update(name="same")
    parts = [bulk(record) for record in audit]
    assert [(part.part, part.parts, part.count) for part in parts] == [
        (1, 3, 1000),
        (2, 3, 1000),
        (3, 3, 500),
    ]
    assert len({part.id for part in parts}) == 1
    assert len({key for part in parts for key in part.keys}) == 2500


def test_large_rows_come_in_parts_of_a_mebibyte(audit: CapturedAudit) -> None:
    Item.objects.bulk_create([Item(name=str(n), facts="x" * 300_000) for n in range(6)])
    assert len(audit) >= 2
    assert (
        sum(bulk(record).count for record in audit if record.bulk) + sum(not record.bulk for record in audit)
        == 6
    )
    assert all(len(json.dumps(msgspec.to_builtins(record))) < 1_400_000 for record in audit)


def test_rows_that_only_just_fit_a_mebibyte_keep_their_values_beside_the_rest_of_their_record(
    audit: CapturedAudit,
) -> None:
    """The rows and what is said around them are one record: where both are too much, there are more parts."""
    for size in range(523_700, 524_300, 50):
        audit.clear()
        Item.objects.bulk_create([Item(name=str(n), facts="x" * size) for n in range(2)])
        assert {record.completeness for record in audit} == {"full"}, size
        assert not any(record.truncated for record in audit), size
        parts = [bulk(record) for record in audit]
        assert [(part.part, part.parts) for part in parts] == [(n + 1, len(parts)) for n in range(len(parts))]
        assert sum(len(known(column(record, "facts").new)) for record in audit) == 2
        assert max(len(msgspec.msgpack.encode(record)) for record in audit) <= 1024 * 1024


@pytest.mark.parametrize(("rows", "completeness"), [(10, "full"), (20, "ids"), (40, "count")])
def test_more_rows_than_configured_are_recorded_by_less(vendor: str, rows: int, completeness: str) -> None:
    with auditing(max_bulk_rows=15, max_bulk_ids=30) as audit:
        Supplier.objects.bulk_create([Supplier(name=str(n)) for n in range(rows)])
        Supplier.objects.update(name=Lower("name") if rows == 10 else "x")
        Supplier.objects.all().delete()
        records = [record for record in audit if record.changed_fields != [] or record.bulk]
        for record in records:
            if record.action == "UPDATE" and rows == 10:
                continue  # lower case is what it was
            assert record.completeness == completeness, record
            assert bulk(record).count == rows
            assert len(bulk(record).keys) == (0 if completeness == "count" else rows)
            assert bool(bulk(record).columns) == (completeness == "full")
        assert {record.action for record in records} >= {"CREATE", "DELETE"}


def test_keys_are_written_as_the_application_knows_them(audit: CapturedAudit) -> None:
    Sealed.objects.bulk_create([Sealed(base=1), Sealed(base=2)])
    keys = {str(key) for key in Sealed.objects.values_list("pk", flat=True)}
    assert set(bulk(audit.one()).keys) == keys
