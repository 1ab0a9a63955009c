"""Fields that do not count: alone they make no record, beside a change that counts they are listed."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import F

from otel_audit.config.model import DjangoConfig, ModelConfig
from otel_audit.instrumentation.django.plan import ModelPolicy
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Place, Stock, Supplier


def changes(audit: CapturedAudit) -> list[list[tuple[str, Any, Any]]]:
    found = [[(change.field, change.old, change.new) for change in record.changes] for record in audit]
    audit.clear()
    return found


@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
def test_a_save_that_changes_only_ignored_fields_makes_no_record(vendor: str, old_values: str) -> None:
    with auditing(ignore=["RATING"], old_values=old_values) as audit:
        place = Place.objects.create(name="a", rating=1)
        assert [field for field, _, _ in changes(audit)[0]] == ["name", "rating"]
        place.rating = 2
        place.save()
        place.rating = F("rating") + 1
        place.save(update_fields=["rating"])
        Place(pk=place.pk, name="a", rating=7).save()
        assert changes(audit) == []
        place = Place.objects.get()
        place.name, place.rating = "b", 8
        place.save()
        assert changes(audit) == [[("name", "a", "b"), ("rating", 7, 8)]]


def test_a_save_that_sets_only_ignored_fields_makes_no_record_where_nothing_is_asked(vendor: str) -> None:
    with auditing(ignore=["rating"], old_values="off") as audit:
        pk = Place.objects.create(name="a", rating=1).pk
        audit.clear()
        Place(pk=pk, rating=2).save(update_fields=["rating"])
        Place.objects.update(rating=3)
        Place.objects.update(rating=F("rating") + 1)
        assert changes(audit) == []


def test_a_bulk_update_leaves_out_rows_in_which_only_ignored_fields_changed(vendor: str) -> None:
    with auditing(ignore=["rating"]) as audit:
        Place.objects.bulk_create([Place(name="a"), Place(name="b"), Place(name="c")])
        audit.clear()
        Place.objects.update(rating=1)
        Place.objects.update(rating=F("rating") + 1)
        assert changes(audit) == []
        Place.objects.update(rating=5, name="a")
        bulk = audit.one().bulk
        assert bulk is not None
        assert {column.field: (column.old, column.new) for column in bulk.columns} in (
            {"name": (["b", "c"], ["a", "a"]), "rating": ([2, 2], [5, 5])},
            {"name": (["c", "b"], ["a", "a"]), "rating": ([2, 2], [5, 5])},
        )
        audit.clear()
        for place in (places := list(Place.objects.all())):
            place.rating = 9
        Place.objects.bulk_update(places, ["rating"])
        assert changes(audit) == []


@pytest.mark.parametrize("limits", [{"max_bulk_rows": 0}, {"max_bulk_rows": 0, "max_bulk_ids": 0}])
def test_a_bulk_update_of_ignored_fields_alone_is_not_counted_either(
    vendor: str, limits: dict[str, Any]
) -> None:
    with auditing(ignore=["rating"], **limits) as audit:
        Place.objects.bulk_create([Place(name="a"), Place(name="b")])
        audit.clear()
        Place.objects.update(rating=1)
        assert changes(audit) == []
        Place.objects.update(rating=2, name="z")
        assert audit.one().bulk is not None


def test_models_add_fields_that_do_not_count_and_take_some_back() -> None:
    config = DjangoConfig(
        models=["warehouse.*"],
        ignore=["note", "name"],
        model={
            "warehouse.stock": ModelConfig(ignore=["le*", "!note"]),
            "warehouse.supplier": ModelConfig(reads=True),
        },
    )
    policy = ModelPolicy(config)
    stock, supplier = policy.of(Stock), policy.of(Supplier)
    assert [stock.ignores(name) for name in ("level", "note", "name", "shelf")] == [True, False, True, False]
    assert [supplier.ignores(name) for name in ("level", "name")] == [False, True]
