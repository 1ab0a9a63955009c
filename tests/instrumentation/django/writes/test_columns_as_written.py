"""Values of a column made ready for a record all at once are those made of each of them."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from django.db import connection, models, transaction
from django.db.models import Value
from django.db.models.functions import Lower, Now
from django.utils.safestring import mark_safe
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from otel_audit.capture.bulk import differing
from otel_audit.instrumentation.django.plan import ModelFieldPlan
from otel_audit.instrumentation.django.writes import insert
from otel_audit.testing import CapturedAudit
from tests.hostile_values import LyingMapping, Markup, Number, Plain, anything, recursive_list
from tests.instrumentation.django.warehouse.models import Item, Stock, Ticket

TOKYO = ZoneInfo("Asia/Tokyo")
MOMENT = datetime.datetime(2026, 11, 1, 12, 30, tzinfo=datetime.UTC)
IN_TOKYO = MOMENT.astimezone(TOKYO)


class OtherDecimal(Decimal):
    """As applications have them for money."""


class OtherMoment(datetime.datetime):
    """As of pendulum."""


class Rounding(models.DecimalField):  # type: ignore[type-arg]
    """Reads a number in its own way."""

    def to_python(self, value: Any) -> Any:
        return value and super().to_python(value) + 1


def _of(field: models.Field[Any, Any], vendor: str) -> ModelFieldPlan:
    field.set_attributes_from_name("field")
    return ModelFieldPlan(field, vendor)


FIELDS: list[Callable[[], models.Field[Any, Any]]] = [
    models.IntegerField,
    models.FloatField,
    models.BooleanField,
    models.TextField,
    models.DateField,
    models.DateTimeField,
    models.DurationField,
    models.UUIDField,
    models.JSONField,
    models.BinaryField,
    models.GenericIPAddressField,
    lambda: models.DecimalField(max_digits=8, decimal_places=2),
    lambda: models.DecimalField(max_digits=3, decimal_places=0),
    models.DecimalField,
    lambda: Rounding(max_digits=8, decimal_places=2),
]

json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.sampled_from([1e16, 1e22, -0.0, 1e-7, "1e5", "-0.0", "ä\ud800", Markup("m"), Number(3)]),
        st.text(),
        st.decimals(min_value=-1000, max_value=1000),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)
    ),
)
LONG = {"c": "d" * 9000}
DEEP: list[Any] = []
for _ in range(63):
    DEEP = [DEEP]  # as deep as may be
cells: list[st.SearchStrategy[Any]] = [
    st.integers(),
    st.one_of(st.integers(), st.booleans(), st.just(Number(5))),
    st.floats(),
    st.one_of(st.floats(), st.integers(), st.text()),
    st.text(),
    st.one_of(st.text(), st.just("\ud800"), st.just(Markup("m"))),
    st.decimals(min_value=-(10**12), max_value=10**12),
    st.decimals(min_value=-1000, max_value=1000),
    st.sampled_from([Decimal(1), Decimal("NaN"), Decimal("Infinity"), Decimal("1E+30")]),
    st.sampled_from([Decimal(0), Decimal("-0.00"), Decimal("0.001"), Decimal("-0.001"), Decimal("1.005")]),
    st.sampled_from([Decimal("1.5"), Decimal("NaN123456789"), Decimal("-sNaN7"), OtherDecimal("1.005"), 1.5]),
    st.datetimes(timezones=st.sampled_from([datetime.UTC, TOKYO])),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC, TOKYO])),
    st.one_of(st.datetimes(), st.dates(), st.just(OtherMoment(2026, 1, 1))),
    st.sampled_from([datetime.datetime.min, datetime.datetime.max, datetime.datetime(1, 1, 1, tzinfo=TOKYO)]),
    st.timedeltas(),
    st.uuids(),
    st.binary(),
    st.one_of(st.lists(json), st.dictionaries(st.text(), json)),
    json,
    st.sampled_from([{"a": "b" * 200_000}, {"a": "b" * 40_000}, [0] * 16_000, {"é" * 10_000: 1}]),
    st.sampled_from([DEEP, [DEEP], [[]] * 65, {"[": "{" * 200}, recursive_list(), (1, (2,)), {1, 2}]),
    st.sampled_from([{None: 1}, {1.5: 2}, {"a": Plain}, {"a": LyingMapping(b=1)}, LyingMapping(b=1)]),
    st.sampled_from([{"a": b"b"}, {"a": uuid.UUID(int=7)}, {"a": datetime.date(2026, 1, 1)}, {"a": {3}}]),
    st.sampled_from([UNSET, Lower(Value("A")), {"a": 1}, Now()]),
    anything.filter(lambda value: type(value) is not Decimal),  # int() of 1E+999999 takes its time
]


def _each(plan: ModelFieldPlan, values: list[Any]) -> list[Any]:
    return [plan.normal(plan.frozen(value)) for value in values]


def _said(values: list[Any]) -> list[tuple[type, str]]:
    return [(type(value), repr(value)) for value in values]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FIELDS),
    st.sampled_from(["sqlite", "postgresql", "mysql"]),
    st.one_of(*(st.lists(st.one_of(st.none(), cell), min_size=1, max_size=6) for cell in cells)),
)
@example(models.JSONField, "postgresql", [{"a": 1e22}, None, {"a": 1}, (2,)])
@example(lambda: models.DecimalField(max_digits=5, decimal_places=2), "sqlite", [Decimal(12345), Decimal(1)])
@example(lambda: models.DecimalField(max_digits=5, decimal_places=2), "mysql", [Decimal("-0.001"), None])
@example(models.DateTimeField, "sqlite", [datetime.datetime.max, None])
def test_many_values_are_known_as_each_of_them_is(
    field: Callable[[], models.Field[Any, Any]], vendor: str, values: list[Any]
) -> None:
    plan = _of(field(), vendor)
    known = plan.known_values(values)
    assert known is None or _said(known) == _said(_each(plan, values))
    frozen = [plan.frozen(value) for value in values]
    assert _said(plan.normal_all(frozen)) == _said([plan.normal(value) for value in frozen])


def _pairs(cell: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    """Return old and new values of some rows, of which several are the same."""
    some = st.lists(st.one_of(st.none(), cell), min_size=1, max_size=3)
    return some.flatmap(
        lambda values: st.lists(
            st.tuples(st.sampled_from(values), st.sampled_from(values)), min_size=1, max_size=6
        )
    )


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FIELDS),
    st.sampled_from(["sqlite", "postgresql", "mysql"]),
    st.one_of(*(_pairs(cell) for cell in cells)),
)
@example(
    lambda: models.DecimalField(max_digits=5, decimal_places=2),
    "sqlite",
    [(Decimal("1.50"), Decimal("1.5")), (Decimal("0.00"), Decimal("-0.001")), (None, Decimal(1))],
)
@example(models.FloatField, "postgresql", [(math.nan, math.nan), (0.0, -0.0)])
@example(models.DateTimeField, "sqlite", [(MOMENT, IN_TOKYO), (MOMENT, MOMENT.replace(tzinfo=None))])
def test_many_values_differ_as_each_of_them_does(
    field: Callable[[], models.Field[Any, Any]], vendor: str, rows: list[tuple[Any, Any]]
) -> None:
    plan = _of(field(), vendor)
    old = [plan.normal(plan.frozen(old)) for old, _ in rows]
    new = [new for _, new in rows]
    each = [
        not plan.equal(plan.frozen(before), plan.frozen(after))
        for before, after in zip(old, new, strict=True)
    ]
    assert differing(plan, old, new) == each


def _unused(*args: Any) -> Any:
    raise AssertionError("asked of one value")


def test_the_usual_columns_are_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    price = models.DecimalField(max_digits=8, decimal_places=2)
    usual: list[tuple[Any, list[Any], list[Any]]] = [
        (models.JSONField(), [{"a": [1, None]}, None, []], [b'{"a":[1,null]}', None, b"[]"]),
        (models.JSONField(), [DEEP, LONG], [msgspec.json.encode(DEEP), msgspec.json.encode(LONG)]),
        (models.DateTimeField(), [MOMENT, None], [MOMENT, None]),
        (price, [Decimal("1.5"), None], [Decimal("1.50"), None]),
    ]
    monkeypatch.setattr(ModelFieldPlan, "normal", _unused)
    monkeypatch.setattr(ModelFieldPlan, "frozen", _unused)
    for field, values, expected in usual:
        assert repr(_of(field, "postgresql").known_values(values)) == repr(expected)


def _items(first: int | None) -> list[Item]:
    """Make items of which some have values that must be looked at one by one; all have a key, or none."""
    deep = DEEP if connection.vendor != "mysql" else [[]]
    rows: list[dict[str, Any]] = [
        {"name": "plain", "facts": {"a": [1, {"b": "c"}]}, "price": Decimal("1.5"), "due": MOMENT},
        {"name": mark_safe("safe"), "facts": None, "price": "2.5", "weight": 3},
        {"name": Lower(Value("ABC")), "facts": [2**70, 1e22, -0.0], "price": Decimal(0), "weight": 1},
        {"name": "\u00e9", "facts": ("t", 1), "price": 2, "due": IN_TOKYO, "blob": b"\x00\xff"},
        {"name": "large", "facts": {"a": "b" * 140_000}, "price": Decimal("-0.00"), "quantity": Number(7)},
        {"name": "deep", "facts": deep, "price": OtherDecimal("1.005"), "active": Value(False)},
        {"name": "text", "facts": "1e22", "due": Value(MOMENT)},
        {"name": "value", "facts": Value({"x": 1}, models.JSONField()), "blob": bytearray(b"b")},
    ]
    serial = uuid.UUID(int=1)
    keys = [{} if first is None else {"pk": first + number} for number in range(len(rows))]
    return [Item(**{"serial": serial} | key | row) for key, row in zip(keys, rows, strict=True)]


def _stock(first: int | None) -> list[Stock]:
    """Make rows with keys of their own, one of which the database gives a moment that differs."""
    seen = {} if first is None else {"seen": MOMENT}
    return [Stock(code=mark_safe("a"), shelf=1, **seen), Stock(code="b", shelf=2, level=True, seen=MOMENT)]


def _tickets(first: int | None) -> list[Ticket]:
    return [Ticket(code="ABC", note=Lower(Value("N"))), Ticket(code=mark_safe("DEF"), note="n")]


def _told(audit: CapturedAudit, make: Callable[[int | None], list[Any]], first: int | None) -> list[Any]:
    audit.clear()
    objects = make(first)
    model: Any = type(objects[0])
    model.objects.all().delete()
    audit.clear()
    with transaction.atomic():
        model.objects.bulk_create(objects)
        for made in objects:
            if isinstance(getattr(made, "facts", None), dict):
                made.facts["a"] = "changed afterwards"
    records = audit.records
    if connection.vendor != "mysql" or first is not None:
        keys = [key for record in records for key in record.bulk.keys]  # type: ignore[union-attr]
        assert len(keys) == len(objects)
    return [
        (record.event_name, record.completeness, record.truncated, record.fields, repr(column))
        for record in records
        for column in (record.bulk.columns if record.bulk else [])
        if column.field not in ("modified", "seen")
    ]


@pytest.mark.parametrize("first", [None, 1_000_000])
@pytest.mark.parametrize("make", [_items, _stock, _tickets])
def test_rows_with_unusual_values_are_recorded_as_they_were_one_by_one(
    audit: CapturedAudit,
    make: Callable[[int | None], list[Any]],
    first: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = _told(audit, make, first)
    with monkeypatch.context() as patch:
        patch.setattr(ModelFieldPlan, "known_values", lambda *_: None)
        patch.setattr(
            ModelFieldPlan, "normal_all", lambda plan, values: [plan.normal(value) for value in values]
        )
        patch.setattr(insert, "PLAIN", frozenset())
        one_by_one = _told(audit, make, first)
    assert told == one_by_one
    assert told or (connection.vendor == "mysql" and first is None)
