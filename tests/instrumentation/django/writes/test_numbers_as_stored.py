"""Numbers and addresses in unusual clothes are recorded as the database holds them, and change once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.db.models import F
from django.test.utils import isolate_apps

from otel_audit.testing import CapturedAudit
from otel_audit.values import freeze, portable, record_value

WAREHOUSE = "tests.instrumentation.django.warehouse"


class Other(int):
    """Django stores what ``int()`` makes of it."""

    def __int__(self) -> int:
        return 99

    def __str__(self) -> str:
        return "77"


class OtherFloat(float):
    def __float__(self) -> float:
        return 2.5


class Index:
    """No number, but one can be made of it."""

    def __int__(self) -> int:
        return 12


@pytest.fixture
def measure(vendor: str) -> Iterator[Any]:
    with isolate_apps(WAREHOUSE):

        class Measure(models.Model):
            number = models.IntegerField(null=True)
            ratio = models.FloatField(null=True)
            price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
            address = models.GenericIPAddressField(null=True)
            facts = models.JSONField(null=True)
            other = models.IntegerField(default=0)

            class Meta:
                app_label = "warehouse"
                db_table = "measure"

        with connection.schema_editor() as editor:
            editor.create_model(Measure)
        yield Measure
        with connection.schema_editor() as editor:
            editor.delete_model(Measure)


VALUES = [
    ("number", Other(5)),
    ("number", Index()),
    ("number", "007"),
    ("ratio", OtherFloat(1.5)),
    ("ratio", 3),
    ("ratio", "1e5"),
    ("price", Decimal("-0.00")),
    ("price", -0.001),
    ("address", "::FFFF:1.2.3.4"),
    ("facts", {"far": [1e22, -1e16, 1e23], "near": 1e15, "text": "1e22", "small": 1e-7}),
    ("facts", 1e300),
    ("facts", [12345678901234567890.0, -0.0]),
]


def _created(model: Any, field: str, value: Any) -> Any:
    return model.objects.create(**{field: value})


def _created_in_transaction(model: Any, field: str, value: Any) -> Any:
    with transaction.atomic():
        return _created(model, field, value)


def _saved(model: Any, field: str, value: Any) -> Any:
    found = model.objects.get(pk=model.objects.create().pk)
    setattr(found, field, value)
    found.save()
    return found


def _updated(model: Any, field: str, value: Any) -> Any:
    found = model.objects.create()
    model.objects.filter(pk=found.pk).update(**{field: value})
    return found


def _upserted(model: Any, field: str, value: Any) -> Any:
    found = model.objects.create()
    options = {"unique_fields": ["id"]} if connection.vendor != "mysql" else {}
    model.objects.bulk_create(
        [model(id=found.pk, **{field: value})], update_conflicts=True, update_fields=[field], **options
    )
    return found


@pytest.mark.parametrize("write", [_created, _created_in_transaction, _saved, _updated, _upserted])
@pytest.mark.parametrize(("field", "value"), VALUES, ids=[f"{f} {type(v).__name__}" for f, v in VALUES])
def test_it_is_recorded_as_it_is_stored_and_changes_once(
    audit: CapturedAudit, measure: Any, field: str, value: Any, write: Callable[..., Any]
) -> None:
    written = measure.objects.get(pk=write(measure, field, value).pk)
    record = audit.records[-1]
    said = [change.new for change in record.changes if change.field == field]
    for column in record.bulk.columns if record.bulk else ():
        if column.field == field:
            assert isinstance(column.new, list)
            said = column.new
    expected = portable(record_value(freeze(getattr(written, field)))[0])  # integers beyond 64 bits are text
    assert [repr(new) for new in said] == [repr(expected)]
    audit.clear()
    setattr(written, field, value)  # the same once more
    written.save()
    assert [change for record in audit for change in record.changes] == []


@pytest.mark.parametrize("rows", [1, 2])
def test_a_float_that_an_expression_makes_stays_a_float(
    audit: CapturedAudit, measure: Any, rows: int
) -> None:
    """SQLite's RETURNING gives an integer for one without a fraction."""
    for _ in range(rows):
        measure.objects.create(ratio=1.5)
    audit.clear()
    measure.objects.update(ratio=F("ratio") + 1.5)
    record = audit.records[-1]
    said = [(change.old, change.new) for change in record.changes]
    for column in record.bulk.columns if record.bulk else ():
        assert isinstance(column.old, list)
        assert isinstance(column.new, list)
        said = list(zip(column.old, column.new, strict=True))
    assert [repr(pair) for pair in said] == ["(1.5, 3.0)"] * rows


@pytest.mark.parametrize("vendor", ["sqlite", "mariadb"], indirect=True)
def test_spaces_around_an_address_stay_where_it_is_a_text(
    vendor: str, audit: CapturedAudit, measure: Any
) -> None:
    written = measure.objects.get(pk=_created(measure, "address", " 1.2.3.4").pk)
    [said] = [change.new for change in audit.records[-1].changes if change.field == "address"]
    assert said == written.address == " 1.2.3.4"
