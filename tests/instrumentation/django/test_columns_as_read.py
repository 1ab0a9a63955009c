"""Values of a column converted all at once are those Django's converter makes of each of them."""

from __future__ import annotations

import datetime
import decimal
import json
import zoneinfo
from typing import Any

import pytest
from django.db import connection, connections, models
from django.db.models import JSONField
from django.db.models.expressions import Col

from otel_audit.instrumentation.django.plan.stored import read_at_once

NAIVE = datetime.datetime(2026, 11, 1, 1, 30, 0, 5)


class Decoded(JSONField):
    """Reads values in its own way."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value and f"read {value}"


@pytest.mark.parametrize(
    ("texts", "at_once"),
    [
        (['{"a": [1, {"b": null}], "ä": "\\u00e9"}', None, "[]", '"text"', "7", "-0", "1.50", "1e5"], True),
        (["123456789012345678901234567890", "-0.0", '{"a": 1, "b": 2, "a": 3}', '{"": {"": []}}'], True),
        (["NaN"], False),
        (["1e400", "1"], False),
        (['"\\ud800"', "1"], False),
        (["not JSON", "1"], False),
        ([1.5, "1"], False),
    ],
)
def test_json_is_read_as_django_reads_it(texts: list[Any], at_once: bool) -> None:
    convert: Any = JSONField().from_db_value
    found = read_at_once(convert, texts, None, connection)
    assert (found is not None) is at_once
    if found is not None:
        assert repr(found) == repr([convert(text, None, connection) for text in texts])


def test_json_with_a_decoder_or_a_reader_of_its_own_is_left_to_it() -> None:
    class Decoder(json.JSONDecoder):
        pass

    assert read_at_once(JSONField(decoder=Decoder).from_db_value, ["1"], None, connection) is None
    assert read_at_once(Decoded().from_db_value, ["1"], None, connection) is None


def test_moments_are_read_as_django_reads_them() -> None:
    operations: Any = connection.ops
    convert = operations.convert_datetimefield_value
    known: list[list[Any]] = [
        [NAIVE, None],
        [None, NAIVE, None, NAIVE.replace(microsecond=0)],
        [NAIVE.replace(fold=1)],
        [datetime.datetime.min, datetime.datetime.max, NAIVE.replace(microsecond=100000)],
    ]
    for values in known:
        found = read_at_once(convert, values, None, connection)
        assert found == [convert(value, None, connection) for value in values]
        assert found is not None
        assert [value and value.tzinfo for value in found] == [value and datetime.UTC for value in values]
    others: list[list[Any]] = [
        [NAIVE.replace(tzinfo=datetime.UTC)],
        [NAIVE, NAIVE.replace(tzinfo=datetime.UTC)],
        [NAIVE, None, NAIVE.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2)))],
        ["2026-11-01 01:30:00"],
        [None],
    ]
    for values in others:
        assert read_at_once(convert, values, None, connection) is None


@pytest.mark.parametrize("zone", [zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")], ids=str)
def test_moments_in_the_time_zone_of_a_database_are_read_as_django_reads_them(
    zone: datetime.tzinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(connections["default"]), "timezone", zone)
    operations: Any = connection.ops
    convert = operations.convert_datetimefield_value
    values = [NAIVE, None, NAIVE.replace(month=10, day=25, hour=2, minute=30)]
    found = read_at_once(convert, values, None, connection)
    assert repr(found) == repr([convert(value, None, connection) for value in values])


@pytest.mark.parametrize(
    "values",
    [
        [9.99, 0.1 + 0.2, 1e9, -1.005, 123456.785],
        [None, 2.675, None],
        [-0.0, 0.0, 1e-12, -1e-12],
        [2.675, 9.99, None, 2.675, 9.99, 2.675, None],
        [-0.0, 0.0, 0.0, -0.0, 1.5, 1.5, 1.5],
        [float("nan"), 1.0],
        [1e300, 1.0],
        [float("inf")],
        [1, 2.5],
        ["1.5"],
        [None],
    ],
    ids=str,
)
@pytest.mark.parametrize(("digits", "places"), [(10, 2), (30, 12), (6, 0)])
def test_decimals_of_sqlite_are_read_as_django_reads_them(
    values: list[Any], digits: int, places: int
) -> None:
    operations: Any = connection.ops
    field = models.DecimalField(max_digits=digits, decimal_places=places)
    column = Col("shop", field)
    convert = operations.get_decimalfield_converter(column)
    found = read_at_once(convert, values, column, connection)
    try:
        expected = [convert(value, column, connection) for value in values]
    except (decimal.InvalidOperation, TypeError):
        expected = None
    if {*map(type, values)} - {type(None)} == {float}:
        assert repr(found) == repr(expected)
    else:
        assert found is None


def test_decimals_of_an_expression_are_read_by_django() -> None:
    operations: Any = connection.ops
    convert = operations.get_decimalfield_converter(models.Value(1.5))
    assert read_at_once(convert, [1.5], models.Value(1.5), connection) is None


def test_what_a_driver_has_converted_is_taken_as_it_is() -> None:
    operations: Any = connection.ops
    dates = [datetime.date(2026, 11, 30), None]
    assert read_at_once(operations.convert_datefield_value, dates, None, connection) is dates
    assert read_at_once(operations.convert_datefield_value, ["2026-11-30"], None, connection) is None
    assert read_at_once(operations.convert_datefield_value, [NAIVE], None, connection) is None
    facts = [True, False, None]
    assert read_at_once(operations.convert_booleanfield_value, facts, None, connection) is facts


def test_other_converters_are_asked_for_each_value() -> None:
    operations: Any = connection.ops
    assert read_at_once(operations.convert_booleanfield_value, [1, 0], None, connection) is None
    assert read_at_once(lambda value, *_: value, ["1"], None, connection) is None
