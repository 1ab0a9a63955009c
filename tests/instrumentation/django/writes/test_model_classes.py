"""Model classes made at run time: what capture knows of one goes with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import F
from django.db.models.signals import class_prepared
from django.test.utils import isolate_apps

from tests.instrumentation.django.warehouse.databases import auditing

_COLUMNS = "id integer PRIMARY KEY, name varchar(20) NOT NULL, n integer NOT NULL"
TABLES = (
    f"CREATE TABLE made ({_COLUMNS})",
    f"CREATE TABLE made_pointing ({_COLUMNS}, other_id integer NULL)",
    "CREATE TABLE made_child (made_ptr_id integer PRIMARY KEY, more integer NOT NULL)",
)


def made(**members: Any) -> Any:
    with isolate_apps("tests.instrumentation.django.warehouse"):
        meta = type("Meta", (), {"app_label": "warehouse", "db_table": "made"})
        fields = {
            "id": models.IntegerField(primary_key=True),
            "name": models.CharField(max_length=20),
            "n": models.IntegerField(default=0),
        }
        return type("Made", (models.Model,), {"__module__": __name__, "Meta": meta, **fields, **members})


def with_a_hook_of_its_own() -> Any:
    def from_db(cls: Any, *row: Any, **options: Any) -> Any:
        inherited: Any = super(holder[0], cls)
        return inherited.from_db(*row, **options)

    holder: list[Any] = []
    model = made(from_db=classmethod(from_db))
    holder.append(model)
    return model


def proxied() -> Any:
    model = made()
    with isolate_apps("tests.instrumentation.django.warehouse"):
        meta = type("Meta", (), {"app_label": "warehouse", "proxy": True})
        return type("Proxied", (model,), {"__module__": __name__, "Meta": meta})


def family() -> Any:
    """A child, whose rows lie in the table of its parent, too."""
    with isolate_apps("tests.instrumentation.django.warehouse"):
        parent = made()
        meta = type("Meta", (), {"app_label": "warehouse", "db_table": "made_child"})
        members = {"__module__": __name__, "Meta": meta, "more": models.IntegerField(default=0)}
        return type("Child", (parent,), members)


def pointing() -> Any:
    """A row that points to another of a class made with it."""
    with isolate_apps("tests.instrumentation.django.warehouse"):
        other = made()
        meta = type("Meta", (), {"app_label": "warehouse", "db_table": "made_pointing"})
        members = {
            "__module__": __name__,
            "Meta": meta,
            "id": models.IntegerField(primary_key=True),
            "name": models.CharField(max_length=20),
            "n": models.IntegerField(default=0),
            "other": models.ForeignKey(other, models.CASCADE, null=True, related_name="+"),
        }
        return type("Pointing", (models.Model,), members)


def use(model: Any, number: int) -> None:
    one = model.objects.create(id=number, name="a")
    one.n = 1
    one.save()
    model.objects.get(pk=number).save()
    rows = [model(id=number, name="b"), model(id=50 + number, name="c")]
    if model._meta.parents:
        rows[1].save()
    else:
        model.objects.bulk_create(rows, ignore_conflicts=True)
    model.objects.filter(id__lt=99).update(n=F("n") + 1)
    one.refresh_from_db()
    assert len(model.objects.all()) == len(list(model.objects.iterator())) == 2
    assert list(model.objects.raw(f"SELECT * FROM {model._meta.db_table}"))
    assert model.objects.count()
    assert model.objects.exists()
    assert model.objects.aggregate(models.Max("n"))
    assert model.objects.only("name")[0].n
    relations = [field.name for field in model._meta.fields if field.remote_field]
    assert list(model.objects.select_related(*relations)) if relations else True
    assert list(model.objects.values_list("name"))
    model.objects.bulk_update(model.objects.all(), ["name"])
    model.objects.all().delete()


MODELS = [made, with_a_hook_of_its_own, proxied, family, pointing]


@pytest.mark.parametrize("make", MODELS)
def test_a_class_made_at_run_time_is_freed(vendor: str, make: Callable[[], Any]) -> None:
    kept: list[weakref.ref[Any]] = []
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(table)
    try:
        with auditing(reads=["warehouse.*"]) as audit:
            for number in range(3):
                model = make()
                use(model, number)
                related = [field.related_model for field in model._meta.fields if field.related_model]
                kept.extend(weakref.ref(found) for found in (model, model._meta.concrete_model, *related))
                each = len(kept) // (number + 1)
                del model, related
            assert len(audit.find(action="CREATE")) >= 6
            assert audit.find(action="READ")
            gc.collect()
            # The last one is held by Django itself, also without capture.
            assert {found() for found in kept[:-each]} == {None}
    finally:
        with connection.cursor() as cursor:
            for name in ("made_child", "made_pointing", "made"):
                cursor.execute(f"DROP TABLE {name}")


def test_overrides_of_from_db_are_called_however_often_capture_starts_and_ends() -> None:
    called = []

    def from_db(cls: Any, *row: Any, **options: Any) -> Any:
        called.append(cls)
        return models.Model.from_db.__func__(cls, *row, **options)  # type: ignore[attr-defined]

    model = made(from_db=classmethod(from_db))
    override = vars(model)["from_db"]
    with auditing():
        second = made(from_db=classmethod(from_db))
        over = second.from_db
        second.from_db = classmethod(lambda cls, *row, **options: over(*row, **options))
        between = vars(second)["from_db"]
    for _ in range(2):
        with auditing():
            class_prepared.send(model)
            class_prepared.send(second)
            for made_model in (model, second):
                assert made_model.from_db("default", ["id", "name", "n"], (1, "a", 2)).n == 2
        assert vars(model)["from_db"] is override
        assert vars(second)["from_db"] is between
    assert called == [model, second] * 2


def test_a_hook_put_over_ours_is_left_alone_when_capture_ends() -> None:
    with auditing():
        model = made()
        ours = vars(model)["from_db"]
        model.from_db = classmethod(lambda cls, *row: ours.__get__(None, cls)(*row))
        theirs = vars(model)["from_db"]
    assert vars(model)["from_db"] is theirs
