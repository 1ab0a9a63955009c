"""The rows of a many-to-many relation name what stands at both ends, so that each end's history has them."""

from __future__ import annotations

import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.capture.table_policy import KeyStrategies, TableSettings
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.models import Box, Crew, Item, Pallet, Shift, Supplier


def ends(record: AuditRecord) -> list[str]:
    return sorted(map(str, record.related))


def items(count: int) -> list[Item]:
    return [Item.objects.create(name=f"i{number}") for number in range(count)]


def both(pallet: Pallet, *some: Item) -> list[str]:
    return sorted([f"warehouse.Item/{item.pk}" for item in some] + [f"warehouse.Pallet/{pallet.pk}"])


def test_add_remove_set_and_clear_name_both_ends_from_either_side(audit: CapturedAudit) -> None:
    pallet = Pallet.objects.create(label="p")
    one, two, three = items(3)
    audit.clear()
    pallet.items.add(one)
    assert ends(audit.one()) == both(pallet, one)
    audit.clear()
    pallet.items.add(one, two, three)
    assert ends(audit.one(action="CREATE")) == both(pallet, two, three)
    audit.clear()
    pallet.items.remove(two)
    assert ends(audit.one(action="DELETE")) == both(pallet, two)
    audit.clear()
    pallet.items.set([two])
    assert ends(audit.one(action="DELETE")) == both(pallet, one, three)
    assert ends(audit.one(action="CREATE")) == both(pallet, two)
    audit.clear()
    pallet.items.clear()
    assert ends(audit.one(action="DELETE")) == both(pallet, two)
    audit.clear()
    three.pallet_set.add(pallet)  # type: ignore[attr-defined]
    assert ends(audit.one()) == both(pallet, three)
    audit.clear()
    expected = both(pallet, three)
    three.delete()
    assert ends(audit.one(event_name="warehouse.pallet_items.delete")) == expected


def test_every_part_of_many_rows_names_the_ends_of_its_own(audit: CapturedAudit) -> None:
    pallet = Pallet.objects.create(label="p")
    some = Item.objects.bulk_create([Item(name=f"i{number}") for number in range(1500)])
    some = list(Item.objects.order_by("pk"))
    audit.clear()
    pallet.items.add(*some)
    parts = audit.find(event_name="warehouse.pallet_items.create")
    assert len(parts) > 1
    assert all(f"warehouse.Pallet/{pallet.pk}" in ends(part) for part in parts)
    assert {end for part in parts for end in ends(part)} == set(both(pallet, *some))
    assert all(part.bulk is not None and len(part.related) == part.bulk.count + 1 for part in parts)


def test_a_model_of_its_own_between_two_others_names_them_too(audit: CapturedAudit) -> None:
    crew = Crew.objects.create()
    supplier, other = Supplier.objects.create(name="s"), Supplier.objects.create(name="o")
    audit.clear()
    shift = Shift.objects.create(crew=crew, supplier=supplier)
    expected = [f"warehouse.Crew/{crew.pk}", f"warehouse.Supplier/{supplier.pk}"]
    assert ends(audit.one()) == expected
    audit.clear()
    shift.hours = 8
    shift.save()
    assert ends(audit.one()) == expected
    audit.clear()
    shift.supplier = other
    shift.save()
    assert ends(audit.one()) == sorted([*expected, f"warehouse.Supplier/{other.pk}"])  # "100" before "99"


def test_a_foreign_key_alone_makes_no_relation_of_a_model(audit: CapturedAudit) -> None:
    pallet = Pallet.objects.create(label="p")
    audit.clear()
    Box.objects.create(pallet=pallet, number=1)
    assert audit.one().related == []


@pytest.mark.parametrize(("strategies", "found"), [({}, ["item", "pallet"]), ({"item": "mask"}, ["pallet"])])
def test_an_end_that_is_redacted_is_not_named(strategies: dict[str, str], found: list[str]) -> None:
    settings = TableSettings(True, False, "as_loaded", strategies)
    assert sorted(ModelPlan(Pallet.items.through, settings, KeyStrategies()).ends) == found
