"""Numbers that a database has as floats are written by the column: as SQLAlchemy's decimals would be."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import Any
from unittest import mock

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit.audit_record import AuditRecord
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.writes.stored.numbers import can_wait, texts_of
from otel_audit.testing import CapturedAudit


class Doubled(sa.types.TypeDecorator[decimal.Decimal]):
    """The application's own type over numbers."""

    impl = sa.Numeric(10, 2)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value * 2


class Odd(sa.Numeric[decimal.Decimal]):
    """The application's own numbers."""

    cache_ok = True

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        return lambda value: None if value is None else decimal.Decimal(int(value))


TYPES: dict[str, Any] = {
    "two": sa.Numeric(10, 2),
    "none_behind": sa.Numeric(10, 0),
    "six": sa.DECIMAL(12, 6),
    "seven": sa.NUMERIC(12, 7),
    "no_scale": sa.Numeric(),
    "read_otherwise": sa.Numeric(10, 2, decimal_return_scale=4),
    "as_float": sa.Numeric(10, 2, asdecimal=False),
    "a_float": sa.Float(asdecimal=True),
    "many_digits": sa.Numeric(40, 2),
    "doubled": Doubled(),
    "odd": Odd(10, 2),
}
numbers = sa.Table(
    "numbers_of_columns",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    *(sa.Column(name, kind) for name, kind in TYPES.items()),
)
WRITTEN = {"two", "none_behind", "six", "many_digits"}
"""Those whose numbers are written by the column, on SQLite."""
HOSTILE: list[list[Any]] = [
    [1.5, 2.25],
    [0, 0.0, -0.0, None],
    [0.005, 0.015, 2.675, -0.004, 1e-7, -1e-9],
    [1e30, 12.0, -1e25],
    [2**62, -(2**63), 1],
    [9999999.995, 123456789.125, 99999999999.99],
    [None, None],
    [None, 3],
    [float("inf"), 1.5],
    [float("-inf"), None],
    [7.125],
]


@pytest.fixture
def driver() -> str:
    """Only SQLite's values may be of any kind, and only its driver knows no decimals."""
    return "sqlite"


def _deleted(engine: sa.Engine, audit: CapturedAudit, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what is recorded of rows that have these numbers in each column, and are deleted at once."""
    names = ", ".join(TYPES)
    marks = ", ".join("?" * len(TYPES))
    with engine.begin() as connection:
        for value in values:
            connection.exec_driver_sql(
                f"INSERT INTO numbers_of_columns ({names}) VALUES ({marks})",
                (value,) * len(TYPES),
            )
    audit.clear()
    with engine.begin() as connection:
        connection.execute(sa.delete(numbers))
    return [_as_kept(record) for record in audit]


def _as_kept(record: AuditRecord) -> dict[str, Any]:
    """Return all a record says but for what differs each time."""
    plain = msgspec.to_builtins(msgspec.structs.replace(record, id="", timestamp=0, observed_timestamp=0))
    plain["database"]["transaction"] = ""
    if plain.get("bulk"):
        plain["bulk"]["id"] = ""
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize("values", [*HOSTILE, [1.5, "text"], [b"1", 2.5]], ids=str)
def test_numbers_of_many_rows_are_recorded_as_sqlalchemys_decimals(
    engine: sa.Engine, audit: CapturedAudit, values: list[Any]
) -> None:
    numbers.create(engine)
    quick = _deleted(engine, audit, values)
    with mock.patch.object(ColumnPlan, "number_format", return_value=""):
        general = _deleted(engine, audit, values)
    assert quick == general
    assert quick


def test_only_sqlalchemys_own_numbers_are_written_by_the_column(engine: sa.Engine) -> None:
    plans = {name: ColumnPlan(numbers.c[name], name, automatic=False, encrypted=False) for name in TYPES}
    assert {name for name, plan in plans.items() if plan.number_format(engine.dialect)} == WRITTEN


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.none()
        | st.floats(allow_nan=True)
        | st.floats(-1e6, 1e6)
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.text(max_size=2),
        max_size=6,
    ),
    st.sampled_from([0, 1, 2, 6]),
)
def test_a_number_has_the_text_of_its_decimal(values: list[Any], scale: int) -> None:
    column: sa.Column[Any] = sa.Column("number", sa.Numeric(38, scale))
    plan = ColumnPlan(column, "number", automatic=False, encrypted=False)
    dialect = sa.create_engine("sqlite://").dialect
    if not can_wait(values):
        return
    process: Any = column.type.dialect_impl(dialect).result_processor(dialect, None)
    read = plan.frozen_all(list(map(process, values)))
    expected = [None if value is None else str(value) for value in read]
    assert texts_of(values, plan.number_format(dialect)) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.none() | st.decimals() | st.decimals(places=2), min_size=2, max_size=5))
def test_decimals_of_many_rows_are_rounded_as_each(values: list[decimal.Decimal | None]) -> None:
    plan = ColumnPlan(sa.Column("number", sa.Numeric(10, 2)), "number", automatic=False, encrypted=False)
    assert list(map(repr, plan.frozen_all(values))) == [repr(plan.frozen(value)) for value in values]


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), parts, max_size=3)
        | st.tuples(parts)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(documents, min_size=2, max_size=4), st.sampled_from(["JSON", "JSONB"]))
def test_documents_of_many_rows_are_frozen_as_each(values: list[Any], kind: str) -> None:
    from sqlalchemy.dialects import postgresql

    column: sa.Column[Any] = sa.Column("document", getattr(postgresql, kind)())
    plan = ColumnPlan(column, "document", automatic=False, encrypted=False)
    each = [plan.frozen(value) for value in values]
    together = plan.frozen_all(values)
    assert list(map(repr, together)) == list(map(repr, each))
    assert list(map(type, together)) == list(map(type, each))
