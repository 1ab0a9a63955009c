"""Rows that the database deletes or changes by itself (Django 6.1's ``DB_CASCADE``): as those Django deletes.

Before Django 6.1 the models have Django's own rules, and the same is on record.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import models, transaction

from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Hook, Label, Shelf, Sticker
from tests.instrumentation.sqlalchemy.told import told

BY_DATABASE = hasattr(models, "DB_CASCADE")
WAYS: dict[str, Callable[[Shelf], Any]] = {
    "written": lambda shelf: shelf.delete(),
    "loaded": lambda shelf: Shelf.objects.get(pk=shelf.pk).delete(),
    "query set": lambda shelf: Shelf.objects.filter(name="s").delete(),
    "by key": lambda shelf: Shelf.objects.filter(pk=shelf.pk).delete(),
}


def filled() -> Shelf:
    shelf, other = Shelf.objects.create(name="s"), Shelf.objects.create(name="t")
    a = Label.objects.create(shelf=shelf, text="a")
    Label.objects.create(shelf=shelf, text="b")
    kept = Label.objects.create(shelf=other, text="c")
    Sticker.objects.create(label=a, color="red")
    Sticker.objects.create(label=kept, color="blue")
    Hook.objects.create(shelf=shelf, metal="iron")
    Hook.objects.create(shelf=other, metal="tin")
    return shelf


@pytest.mark.parametrize("way", WAYS)
def test_they_are_on_record_with_keys_and_values(audit: CapturedAudit, way: str) -> None:
    shelf = filled()
    key = shelf.pk
    labels = list(Label.objects.filter(shelf=shelf).order_by("pk"))
    [sticker], [hook] = Sticker.objects.filter(label__in=labels), Hook.objects.filter(shelf=shelf)
    audit.clear()
    WAYS[way](shelf)
    assert list(Sticker.objects.values_list("color", flat=True)) == ["blue"]
    assert list(Hook.objects.filter(shelf=None).values_list("metal", flat=True)) == ["iron"]
    assert {(record.completeness, record.outcome) for record in audit} == {("full", "success")}
    assert len({record.database.transaction for record in audit}) == 1
    rows = sorted(told(audit), key=lambda row: row[1])
    if not BY_DATABASE:  # Django sets references of its own to NULL first, on a database that checks at once
        rows = [row for row in rows if row[:2] != ("UPDATE", f"warehouse.Label/{labels[0].pk}")]
        rows = [row for row in rows if row[:2] != ("UPDATE", f"warehouse.Label/{labels[1].pk}")]
        for row in rows:
            row[3].update({"shelf": (key, None)} if "text" in row[3] else {})
    assert rows == [
        ("UPDATE", f"warehouse.Hook/{hook.pk}", "success", {"shelf": (key, None)}),
        *[
            (
                "DELETE",
                f"warehouse.Label/{label.pk}",
                "success",
                {"shelf": (key, None), "text": (label.text, None)},
            )
            for label in labels
        ],
        ("DELETE", f"warehouse.Shelf/{key}", "success", {"name": ("s", None)}),
        (
            "DELETE",
            f"warehouse.Sticker/{sticker.pk}",
            "success",
            {"label": (labels[0].pk, None), "color": ("red", None)},
        ),
    ]


def test_they_share_the_outcome(audit: CapturedAudit) -> None:
    shelf = filled()
    audit.clear()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        shelf.delete()
        raise ZeroDivisionError
    assert Label.objects.count() == 3
    assert {record.event_name.split(".")[1] for record in audit} == {"shelf", "label", "sticker", "hook"}
    assert {record.outcome for record in audit} == {"failure"}


def test_a_shelf_with_nothing_on_it_tells_of_itself_only(audit: CapturedAudit) -> None:
    shelf = Shelf.objects.create(name="s")
    audit.clear()
    shelf.delete()
    assert [record.event_name for record in audit] == ["warehouse.shelf.delete"]


def test_more_than_the_limit_is_said(vendor: str) -> None:
    with auditing(max_bulk_rows=1, max_bulk_ids=1) as audit:
        shelf = filled()
        audit.clear()
        Shelf.objects.filter(pk=shelf.pk).delete()
        found = {record.event_name: record.completeness for record in audit}
    assert found["warehouse.shelf.delete"] == "full"
    assert found["warehouse.label.delete"] == ("statement" if BY_DATABASE else "count")


@pytest.mark.parametrize("model", ["warehouse.Label", "warehouse.Shelf"])
def test_what_is_not_audited_leads_to_what_is(vendor: str, model: str) -> None:
    """The label is not audited, its sticker is; a shelf that is not audited takes its labels with it."""
    with auditing(models=["warehouse.*", f"!{model}"]) as audit:
        shelf = filled()
        audit.clear()
        shelf.delete()
        kinds = {record.event_name.split(".")[1] for record in audit}
        levels = {record.completeness for record in audit}
    assert kinds == {"shelf", "label", "sticker", "hook"} - {model.rpartition(".")[2].lower()}
    assert levels == {"full"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inside", [True, False])
def test_an_unaudited_parent_is_on_no_record_itself(vendor: str, way: str, inside: bool) -> None:
    """What the database takes with it is: keys, values and the outcome of the transaction."""
    with auditing(models=["warehouse.*", "!warehouse.Shelf"]) as audit:
        shelf = filled()
        labels = list(Label.objects.filter(shelf=shelf).order_by("pk"))
        audit.clear()
        with transaction.atomic() if inside else nullcontext():
            WAYS[way](shelf)
        rows = told(audit)
    assert not Shelf.objects.filter(pk=shelf.pk).exists()
    assert {row[:3] for row in rows if "Label" in row[1] and row[0] == "DELETE"} == {
        ("DELETE", f"warehouse.Label/{label.pk}", "success") for label in labels
    }
    assert not [row for row in rows if "Shelf" in row[1]]


def test_the_rows_of_an_unaudited_parent_share_its_rollback(vendor: str) -> None:
    with auditing(models=["warehouse.*", "!warehouse.Shelf"]) as audit:
        shelf = filled()
        audit.clear()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            shelf.delete()
            raise ZeroDivisionError
        assert {record.outcome for record in audit} == {"failure"}
    assert Label.objects.count() == 3


def test_an_unaudited_parent_without_children_tells_of_nothing(vendor: str) -> None:
    with auditing(models=["warehouse.*", "!warehouse.Shelf"]) as audit:
        shelf = Shelf.objects.create(name="s")
        audit.clear()
        shelf.delete()
        assert list(audit) == []


def test_more_rows_than_the_limit_that_go_with_an_unaudited_one_are_said(vendor: str) -> None:
    with auditing(models=["warehouse.*", "!warehouse.Shelf"], max_bulk_rows=1, max_bulk_ids=1) as audit:
        filled()
        audit.clear()
        Shelf.objects.all().delete()
        found = {record.event_name: record.completeness for record in audit}
    assert found["warehouse.label.delete"] == ("statement" if BY_DATABASE else "count")
    assert not [name for name in found if "shelf" in name]


def test_a_fault_of_ours_leaves_the_delete_of_an_unaudited_row_alone(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may have gone with it is said, without a number that nobody knows."""
    with auditing(models=["warehouse.*", "!warehouse.Shelf"]) as audit:
        shelf = filled()
        audit.clear()
        if BY_DATABASE:
            module = "otel_audit.instrumentation.django.writes.unrecorded_delete"
            monkeypatch.setattr(f"{module}.select_matching", broken)
            monkeypatch.setattr(f"{module}.left_to_the_database", broken)
        shelf.delete()
        kinds = {record.event_name: record.completeness for record in audit}
    assert Shelf.objects.count() == 1
    assert kinds["warehouse.label.delete"] == ("statement" if BY_DATABASE else "full")


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("ours")


def test_values_are_not_kept_where_they_are_off(vendor: str) -> None:
    with auditing(old_values="off") as audit:
        shelf = filled()
        audit.clear()
        shelf.delete()
        kinds = {record.event_name.split(".")[1] for record in audit}
    assert kinds == {"shelf", "label", "sticker", "hook"}
