"""Django 6.1's fetch modes pass through the hook that notes what an instance was loaded with."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import django
import pytest

from tests.instrumentation.django.clinic.models import Visit
from tests.instrumentation.django.project import Instrumented


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes came with Django 6.1")
def test_the_fetch_mode_of_a_query_reaches_its_objects(instrumented: Instrumented) -> None:
    from django.db.models.fetch_modes import FETCH_RAISE  # type: ignore[import-not-found,unused-ignore]

    Visit.objects.create(note="a")
    with instrumented(models=["clinic.*"]), warnings.catch_warnings():
        warnings.simplefilter("error")
        queryset: Any = Visit.objects.fetch_mode(FETCH_RAISE)  # type: ignore[attr-defined,unused-ignore]
        visit = queryset.only("id").get()
        assert visit._state.fetch_mode is FETCH_RAISE
        with pytest.raises(Exception, match="blocked"):
            _ = visit.note


def test_a_list_is_read_to_its_end_while_capture_ends_and_begins_again(instrumented: Instrumented) -> None:
    Visit.objects.bulk_create(Visit(note=f"{number}") for number in range(4))
    with instrumented(models=["clinic.*"]):
        rows = iter(Visit.objects.order_by("id").iterator(chunk_size=1))
        assert next(rows).note == "0"
    assert next(rows).note == "1"
    with instrumented(models=["clinic.*"]) as audit:
        gc.collect()
        visit = next(rows)
        visit.note = "changed"
        visit.save()
        assert [row.note for row in rows] == ["3"]
    [record] = audit.find(action="UPDATE")
    [change] = record.changes
    assert (change.old, change.new) == ("2", "changed")


def test_a_from_db_without_options_is_called_without(instrumented: Instrumented) -> None:
    def own(cls: Any, db: Any, field_names: Any, values: Any) -> Any:
        instance = models_from_db(cls, db, field_names, values)
        instance.loaded_by_own = True
        return instance

    from django.db.models import Model

    models_from_db: Any = Model.from_db.__func__  # type: ignore[attr-defined]
    Visit.objects.create(note="a")
    Visit.from_db = classmethod(own)  # type: ignore[method-assign,assignment]
    try:
        with instrumented(models=["clinic.*"]):
            assert Visit.objects.get().loaded_by_own  # type: ignore[attr-defined]
        assert vars(Visit)["from_db"].__func__ is own
    finally:
        del Visit.from_db
