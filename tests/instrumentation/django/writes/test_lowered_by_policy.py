"""Rules of ``[[policy]]`` about changes lower what ``[django] models`` says, and never raise it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction

from otel_audit.config.model import AuditConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Item, Pallet, Place, Supplier

VALUES = ("Vbefore", "Vafter")


@contextmanager
def lowered(*rules: dict[str, Any], **django: Any) -> Iterator[CapturedAudit]:
    with auditing(config=msgspec.convert({"policy": list(rules)}, AuditConfig), **django) as audit:
        yield audit


def test_none_makes_no_record_of_any_way_of_writing(vendor: str) -> None:
    with lowered({"kind": "change", "model": "*.Supplier", "level": "none"}) as audit:
        supplier = Supplier.objects.create(name="a")
        supplier.name = "b"
        supplier.save()
        Supplier.objects.bulk_create([Supplier(name="c")])
        Supplier.objects.update(name="d")
        supplier.delete()
        Place.objects.create(name="counts")
        assert [record.target.type for record in audit if record.target] == ["warehouse.Place"]


@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
def test_metadata_says_which_fields_and_no_value(vendor: str, old_values: str) -> None:
    rules = {"model": "warehouse.Item", "level": "metadata"}
    with lowered(rules, old_values=old_values) as audit:
        item = Item.objects.create(name="Vbefore", quantity=4711, facts={"x": "Vbefore"})
        item = Item.objects.get(pk=item.pk)
        pk = str(item.pk)
        item.name = "Vafter"
        item.save()
        Item.objects.filter(pk=item.pk).update(name="Vbefore")
        Item.objects.bulk_create([Item(name="Vafter", quantity=4711), Item(name="Vafter")])
        Item.objects.update(name="Vbefore", quantity=1)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE warehouse_item SET name = %s WHERE id = %s", ["Vafter", item.pk])
        item.delete()
        Item.objects.all().delete()
        created, saved, updated, *_ = audit.records
        assert created.target is not None
        assert created.target.id == pk
        assert "name" in created.changed_fields
        assert saved.changed_fields == ["name", "modified"]
        assert updated.changed_fields == ["name"]
        assert len(audit) >= 7
        for record in audit:
            assert record.image == {}
            assert all(
                change.old is msgspec.UNSET and change.new is msgspec.UNSET for change in record.changes
            )
            for column in record.bulk.columns if record.bulk else []:
                assert column.old is msgspec.UNSET
                assert column.new is msgspec.UNSET
        audit.assert_no_secrets(*VALUES)


def test_a_change_of_nothing_still_makes_no_record(vendor: str) -> None:
    with lowered({"model": "warehouse.*", "level": "metadata"}) as audit:
        place = Place.objects.create(name="a")
        audit.clear()
        place.save()
        assert list(audit) == []


def test_what_is_rolled_back_has_no_value_either(vendor: str) -> None:
    with lowered({"model": "warehouse.Place", "level": "metadata"}) as audit:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Place.objects.create(name="Vbefore")
            raise ZeroDivisionError
        assert audit.one().outcome == "failure"
        audit.assert_no_secrets(*VALUES)


def test_the_first_rule_about_a_model_decides(vendor: str) -> None:
    rules = (
        {"model": "warehouse.Place", "level": "metadata"},
        {"model": ["warehouse.*", "!warehouse.Supplier"], "level": "none"},
    )
    with lowered(*rules) as audit:
        Place.objects.create(name="Vbefore")
        Item.objects.create(name="Vbefore")
        Supplier.objects.create(name="kept")
        assert [record.target.type for record in audit if record.target] == [
            "warehouse.Place",
            "warehouse.Supplier",
        ]
        assert "kept" in [change.new for change in audit.records[1].changes]
        audit.assert_no_secrets(*VALUES)


def test_the_table_of_a_relation_follows_the_model_that_declares_it(vendor: str) -> None:
    with lowered({"model": "warehouse.Pallet", "level": "none"}) as audit:
        pallet = Pallet.objects.create(label="a")
        item = Item.objects.create(name="b")
        audit.clear()
        pallet.items.add(item)
        pallet.items.clear()
        assert list(audit) == []


def test_a_rule_raises_nothing(vendor: str) -> None:
    with lowered({"model": "warehouse.Place", "level": "metadata"}, models=["warehouse.Item"]) as audit:
        Place.objects.create(name="a")
        assert list(audit) == []


def test_rules_about_requests_leave_changes_alone(vendor: str) -> None:
    with lowered({"level": "none"}, {"path": "/*", "level": "none"}) as audit:
        Place.objects.create(name="a")
        assert "a" in [change.new for change in audit.one().changes]


def test_a_write_that_a_rule_leaves_out_is_reported_as_not_recorded(vendor: str) -> None:
    with lowered({"model": "warehouse.Place", "level": "none"}) as audit:
        Place.objects.create(name="a")
        assert [each.partition(":")[0] for each in audit.unrecorded_writes()] == ["warehouse.Place"]
