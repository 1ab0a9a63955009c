"""One column: what its values are compared and recorded as, planned once."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from sqlalchemy import types
from sqlalchemy.engine.default import DefaultDialect

from otel_audit.capture.databases.jsonb import as_numeric, unlike_numeric
from otel_audit.capture.plan import HIDING_WORDS, FieldPlan, is_called
from otel_audit.interruptions import faults
from otel_audit.large_values import PLAIN_CONTAINERS
from otel_audit.values import FROZEN, freeze, freeze_known, freeze_structures

if TYPE_CHECKING:
    from sqlalchemy.schema import Column

_HIDING_WORDS: Final = (*HIDING_WORDS, "password")
_LONGEST_SMALL: Final = 4096
"""Characters: of a column that allows no more, 1000 rows are within the default of ``max_bulk_bytes``."""
_IMMUTABLE: Final = (
    types.Integer,
    types.String,
    types.Boolean,
    types.Date,
    types.DateTime,
    types.Time,
    types.Interval,
    types.Numeric,
    types.LargeBinary,
    types.Uuid,
)
_NUMERIC: Final = (types.Numeric, types.NUMERIC, types.DECIMAL)
_MOST_DIGITS: Final = 6
"""Behind the point: of more, Python writes small numbers with an exponent."""
_DIALECT: Final = DefaultDialect()


class ColumnPlan(FieldPlan):
    """How one column is compared and named in records: by its attribute where a class is mapped.

    Attributes:
        column: the column itself.
        mutable: its values may change in place, unseen.
    """

    __slots__ = ("_convert", "_decimals", "canonical", "column", "mutable")

    def __init__(self, column: Column[Any], name: str, *, automatic: bool, encrypted: bool) -> None:
        kind = column.type
        hidden = encrypted or is_called(type(kind), _HIDING_WORDS)
        super().__init__(str(name), automatic=automatic, hidden=hidden)
        self.column = column
        self._convert = _conversion(kind, hidden=self.hidden)
        self.plain = self._convert is None
        self._decimals = _scale(kind) if isinstance(kind, types.Numeric) and kind.asdecimal else None
        stored = implementation(kind)
        self.canonical = None if stored is not kind else _canonical(kind)
        self.mutable = isinstance(kind, types.TypeDecorator) or not isinstance(stored, _IMMUTABLE)
        self.large = _is_large(stored)

    def frozen(self, value: Any) -> Any:
        if value is None or type(value) is self.canonical:
            return value
        if self._convert is None:
            return freeze(value)
        try:
            made = self._convert(value)
            return made if type(made) in FROZEN else freeze(made)
        except faults():  # whatever the application's type makes of it: the statement will say so
            return freeze(value)

    def frozen_all(self, values: list[Any]) -> list[Any]:
        """Return the values of many rows, frozen."""
        if len(values) == 1:
            return [self.frozen(values[0])]
        kinds = set(map(type, values))
        kinds.discard(type(None))
        if not kinds or kinds == {self.canonical} or (self.plain and kinds <= FROZEN):
            return values
        if self._decimals is not None and kinds == {decimal.Decimal}:
            exponent, context = self._decimals
            some = [value for value in values if value is not None]
            if all(map(decimal.Decimal.same_quantum, some, repeat(exponent))):  # most often, of what was read
                return values
            try:
                return [
                    value if value is None else value.quantize(exponent, None, context) for value in values
                ]
            except ArithmeticError:  # one of more digits than there are
                pass
        if self._convert in (_document, _jsonb) and kinds <= PLAIN_CONTAINERS:
            made = freeze_structures(values)
            numeric = self._convert is _jsonb
            if made is not None and not (numeric and unlike_numeric(b"".join(filter(None, made)))):
                return made
        return list(map(self.frozen, values))

    def number_format(self, dialect: Any) -> str:
        """Return how SQLAlchemy itself writes a number of a driver's that knows no decimals, to read it.

        Empty where it does not, or where the number is recorded otherwise.
        """
        kind = self.column.type
        if self._decimals is None or type(kind) not in _NUMERIC or dialect.supports_native_decimal:
            return ""
        numeric: Any = kind.dialect_impl(dialect)
        scale = -self._decimals[0].as_tuple().exponent  # type: ignore[operator]
        own = type(numeric).result_processor is types.Numeric.result_processor
        if not own or numeric._effective_decimal_return_scale != scale or scale > _MOST_DIGITS:
            return ""
        return f"%.{scale}f"

    def normal(self, value: Any) -> Any:
        return value  # what the application set has been taken as it will be read by `frozen`

    def normal_all(self, values: list[Any]) -> list[Any]:
        return values


def implementation(kind: Any) -> Any:
    """Follow decorators to the type that the database has."""
    for _ in range(16):
        if not isinstance(kind, types.TypeDecorator):
            break
        kind = kind.impl_instance
    return kind


def _is_large(kind: Any) -> bool:
    """Say whether nothing bounds the size of values of a type."""
    if isinstance(kind, types.Enum):
        return False
    if isinstance(kind, types.String | types.LargeBinary):
        length = getattr(kind, "length", None)
        return length is None or length > _LONGEST_SMALL
    return not isinstance(kind, _IMMUTABLE)


def _conversion(kind: Any, *, hidden: bool) -> Callable[[Any], Any] | None:
    """Return what makes of a value of the application's what it will read back; None: nothing need be."""
    if isinstance(kind, types.TypeDecorator):
        return _hidden_value if hidden else _decorated(kind)
    if isinstance(kind, types.Enum):
        stored: Callable[[Any], Any] = kind._db_value_for_elem
        return stored
    if isinstance(kind, types.Boolean):
        return bool
    if isinstance(kind, types.Numeric):
        return _number(kind)
    if isinstance(kind, types.Integer):
        return _integer
    if isinstance(kind, types.Uuid):
        return _uuid if kind.as_uuid else str
    if isinstance(kind, types.Date):
        return _date
    if isinstance(kind, types.String):
        return str
    if isinstance(kind, types.JSON):
        return _jsonb if kind.__visit_name__ == "JSONB" else _document
    return None


def _canonical(kind: Any) -> type | None:
    """Return the class whose instances a type stores as they are."""
    if isinstance(kind, types.Enum):
        return None if kind.enum_class is not None else str
    for base, canonical in (
        (types.String, str),
        (types.Integer, int),
        (types.Boolean, bool),
        (types.DateTime, datetime.datetime),
        (types.Date, datetime.date),
        (types.LargeBinary, bytes),
    ):
        if isinstance(kind, base):
            return canonical
    if isinstance(kind, types.Uuid):
        return uuid.UUID if kind.as_uuid else str
    return None


def _hidden_value(value: Any) -> Any:
    known = freeze_known(value)
    return freeze(value) if known is UNSET else known


def _decorated(kind: Any) -> Callable[[Any], Any]:
    """Return the way of a value through an application's type to the database and back."""
    inner = _conversion(implementation(kind), hidden=False)

    def convert(value: Any) -> Any:
        stored = kind.process_bind_param(value, _DIALECT)
        held = stored if inner is None or stored is None else inner(stored)
        known = freeze_known(kind.process_result_value(held, _DIALECT))
        # An object of a class of the application's is recorded as what is stored of it.
        return freeze(stored) if known is UNSET else known

    return convert


def _document(value: Any) -> Any:
    return None if value is types.JSON.NULL else freeze(value)


def _jsonb(value: Any) -> Any:
    return as_numeric(_document(value))


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, bool | float) and value == int(value) else value


def _uuid(value: Any) -> Any:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))


def _date(value: Any) -> Any:
    return value.date() if isinstance(value, datetime.datetime) else value


def _scale(kind: Any) -> tuple[decimal.Decimal, decimal.Context] | None:
    """Return what numbers of a type are rounded to, and how; None where it has no scale."""
    if kind.scale is None or isinstance(kind, types.Float):
        return None
    context = decimal.Context(prec=max(kind.precision or 28, 28), rounding=decimal.ROUND_HALF_UP)
    return decimal.Decimal(1).scaleb(-kind.scale), context


def _number(kind: Any) -> Callable[[Any], Any]:
    if not kind.asdecimal:
        return float
    scale = _scale(kind)
    if scale is None:
        return lambda value: value if isinstance(value, decimal.Decimal) else decimal.Decimal(str(value))
    exponent, context = scale

    def convert(value: Any) -> Any:
        number = value if isinstance(value, decimal.Decimal) else decimal.Decimal(str(value))
        return number.quantize(exponent, context=context)

    return convert
