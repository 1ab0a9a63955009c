"""What a field stores: the value it prepares for the database, and that value as it is read back.

Django's own fields with plain values need none of this; it is for fields whose class stands outside Django,
for JSON with an encoder, arrays, ``hstore`` and ranges. A field prepares each value it writes once, as it
would without us: :class:`Prepared` stands for the field in the query and gives Django what was prepared.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable
from itertools import repeat
from typing import Any, Final

import msgspec

from otel_audit.interruptions import faults
from otel_audit.values import ATOMS, freeze
from otel_audit.values.recorded import with_gaps
from otel_audit.values.scalars import zone_of

_PREPARING: Final = (
    "get_prep_value",
    "get_db_prep_value",
    "get_db_prep_save",
    "get_db_converters",
    "from_db_value",
)
_STEPS: Final[dict[type, Any]] = {int: 1, datetime.date: datetime.timedelta(days=1)}
"""The classes of bounds that PostgreSQL counts: ranges of them it stores as ``[lower, upper)``."""


def translates(field: Any) -> bool:
    """Say whether a class outside Django decides what the field stores, or how that is read back."""
    base = getattr(field, "base_field", None)
    return (
        any(_foreign(field, name) for name in _PREPARING)
        or getattr(field, "encoder", None) is not None
        or getattr(field, "decoder", None) is not None
        or (base is not None and translates(base))
    )


def makes_on_save(field: Any) -> bool:
    """Say whether a class outside Django makes the value in ``pre_save``: the instance need not have it."""
    return _foreign(field, "pre_save")


def chooses_converters(field: Any) -> bool:
    """Say whether a class outside Django decides anew, for each statement, what converts its values."""
    return _foreign(field, "get_db_converters")


def _foreign(field: Any, name: str) -> bool:
    method = getattr(field, name, None)
    return method is not None and not str(getattr(method, "__module__", "")).startswith("django.")


class Prepared:
    """Stands for a field in the values of an UPDATE: its value was prepared already, and only once.

    ``frozen`` is that value as it will be read back, ``UNSET`` for an expression.
    """

    __slots__ = ("_field", "_prepared", "frozen")

    def __init__(self, field: Any, prepared: Any, frozen: Any) -> None:
        self._field = field
        self._prepared = prepared
        self.frozen = frozen

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return what was prepared."""
        return self._prepared

    def __getattr__(self, name: str) -> Any:
        if name == "_field" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._field, name)

    def __str__(self) -> str:
        return str(self._field)


def is_expression(value: Any) -> bool:
    """Say whether the database, not the application, will tell what the value is."""
    return hasattr(value, "resolve_expression") or hasattr(value, "as_sql")


# --- what was prepared, as plain values ---------------------------------------------------------


def plain(prepared: Any) -> Any:
    """Take a prepared value out of what drivers wrap it in."""
    kind = type(prepared)
    if kind in ATOMS:
        return prepared
    if kind.__module__.startswith("psycopg.types.json"):
        return _json_text(prepared, prepared.obj)
    if kind.__name__ == "Binary" and kind.__module__.startswith("psycopg"):
        return bytes(prepared.adapted if kind.__module__.startswith("psycopg2") else prepared.obj)
    if kind is list or kind is tuple:
        return [plain(item) for item in prepared]
    if kind is dict:
        return {key: plain(item) for key, item in prepared.items()}
    if any(base.__module__ == "psycopg2._json" for base in kind.__mro__):  # Django's is a subclass
        return _json_text(prepared, prepared.adapted)
    frozen = freeze(prepared) if isinstance(prepared, str | int | float | bytes | memoryview) else prepared
    return frozen if type(frozen) in ATOMS else prepared


def _json_text(wrapped: Any, value: Any) -> str:
    """Encode now what the driver would encode when it sends it; it will send this text."""
    text = (wrapped.dumps or json.dumps)(value)
    wrapped.dumps = lambda _: text
    return text if isinstance(text, str) else text.decode()


def converters(field: Any, connection: Any) -> tuple[Any, list[Callable[[Any, Any, Any], Any]]]:
    """Return the column of a field, and what turns the database's values into Python's."""
    column = field.get_col(field.model._meta.db_table)
    return column, [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]


def any_connection(vendor: str) -> Any:
    """Return a connection of a kind of database, for fields that ask what it can do; it is not used."""
    from django.db import DEFAULT_DB_ALIAS, connections

    if vendor:
        for connection in connections.all(initialized_only=True):
            if connection.vendor == vendor:
                return connection
    return connections[DEFAULT_DB_ALIAS]


def read_at_once(
    convert: Callable[..., Any], values: list[Any], expression: Any, connection: Any
) -> list[Any] | None:
    """Return what a converter of Django's makes of many values; ``None`` where only it knows.

    Of JSON, moments without their time zone, decimals of SQLite, and what a driver has converted already: it
    takes longer over these than over all else of a row.
    """
    from django.conf import settings
    from django.db.models import JSONField

    owner: Any
    owner, function = getattr(convert, "__self__", None), getattr(convert, "__func__", None)
    kinds = {*map(type, values)} - {type(None)}
    try:
        if function is JSONField.from_db_value and owner.decoder is None and kinds == {str}:
            return [None if value is None else _decode(value) for value in values]
        if owner is connection.ops:
            if function is _of_django(owner, "convert_datetimefield_value"):
                zone = connection.timezone if settings.USE_TZ else None
                return _in_zone(values, zone) if kinds == {datetime.datetime} else None
            if function is _of_django(owner, "convert_datefield_value"):
                return values if kinds == {datetime.date} else None
            if function is _of_django(owner, "convert_booleanfield_value"):
                return values if kinds == {bool} else None
        elif kinds == {float} and _is_decimal_converter(convert):
            return _decimals(values, expression.output_field)
    except faults():  # JSON that only Python reads, a number of too many digits
        return None
    return None


def _is_decimal_converter(convert: Any) -> bool:
    """Say whether a function is what Django makes for a column of decimals, of which SQLite has numbers."""
    return (
        getattr(convert, "__module__", None) == "django.db.backends.sqlite3.operations"
        and convert.__qualname__ == "DatabaseOperations.get_decimalfield_converter.<locals>.converter"
        and "quantize_value" in convert.__code__.co_freevars
    )


def _decimals(numbers: list[Any], field: Any) -> list[Any]:
    different = set(numbers)
    if len(different) * 2 < len(numbers) and 0.0 not in different:  # prices come again; 0.0 == -0.0
        read = dict(zip(different, _quantized(list(different), field), strict=True))
        return list(map(read.__getitem__, numbers))
    return _quantized(numbers, field)


def _quantized(numbers: list[Any], field: Any) -> list[Any]:
    exponent = decimal.Decimal(1).scaleb(-field.decimal_places)
    some = [number for number in numbers if number is not None]
    read = map(_fifteen_digits.create_decimal_from_float, some)
    made = map(decimal.Decimal.quantize, read, repeat(exponent), repeat(None), repeat(field.context))
    return list(made) if len(some) == len(numbers) else with_gaps(numbers, made)


_fifteen_digits: Final = decimal.Context(prec=15)
"""SQLite's numbers have no more."""


def _in_zone(values: list[Any], zone: datetime.tzinfo | None) -> list[Any] | None:
    """Give moments without a time zone one; ``None`` where one of them has one."""
    if any(map(zone_of, filter(None, values))):
        return None
    if zone is not datetime.UTC:
        return [value and value.replace(tzinfo=zone) for value in values]
    written = msgspec.json.encode(values).replace(b'",', b'Z",').replace(b'"]', b'Z"]')
    return _moments_of(written)


_moments_of: Final = msgspec.json.Decoder(list[datetime.datetime | None]).decode


def _of_django(operations: Any, name: str) -> Any:
    """Return a converter of Django's own, of a connection's operations; them where they have another."""
    kind = type(operations)
    return getattr(kind, name, None) if kind.__module__.startswith("django.db.backends.") else operations


_decode: Final = msgspec.json.Decoder().decode


# --- what PostgreSQL's fields store -------------------------------------------------------------


def shape(field: Any, element: Callable[[Any], Callable[[Any], Any]]) -> Callable[[Any], Any] | None:
    """Return what makes an application's value the one the database holds, for fields of several values.

    ``element`` returns the same for a field of one value. ``None`` for other fields.
    """
    from django.db import models

    if isinstance(field, models.FileField):
        return lambda file: freeze(file) or "" if hasattr(file, "name") else freeze(file)
    kind = {
        base.__name__ for base in type(field).__mro__ if base.__module__.startswith("django.contrib.postgres")
    }
    if "ArrayField" in kind:
        return _array(shape(field.base_field, element) or element(field.base_field))
    if "HStoreField" in kind:
        return field.get_prep_value  # type: ignore[no-any-return]
    if "RangeField" in kind:
        return _range(field)
    return None


def _array(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def array(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [None if item is None else _finite(convert(item)) for item in value]

    return array


def _finite(item: Any) -> Any:
    """Return an element as JSON can tell it from NULL."""
    return repr(item) if type(item) is float and not math.isfinite(item) else item


def _number(bound: Any) -> Any:
    """Return a bound without the zeros that PostgreSQL keeps of a number and does not compare by."""
    if type(bound) is not decimal.Decimal or not bound.is_finite():
        return bound
    return bound.quantize(decimal.Decimal(1)) if bound == bound.to_integral_value() else bound.normalize()


def _range(field: Any) -> Callable[[Any], Any]:
    def canonical(value: Any) -> Any:
        found = field.get_prep_value(value)
        if not isinstance(found, field.range_type) or found.isempty:
            return found
        to_python = field.base_field.to_python
        lower = None if found.lower is None else _number(to_python(found.lower))
        upper = None if found.upper is None else _number(to_python(found.upper))
        bounds = found.bounds if hasattr(found, "bounds") else found._bounds
        begin, end = bounds[0] if lower is not None else "(", bounds[1] if upper is not None else ")"
        step = _STEPS.get(type(lower if lower is not None else upper))
        if step is not None:
            if lower is not None and begin == "(":
                lower, begin = lower + step, "["
            if upper is not None and end == "]":
                upper, end = upper + step, ")"
        if lower is not None and upper is not None:
            if lower > upper:
                return found  # refused by the database
            if lower == upper and begin + end != "[]":
                return field.range_type(empty=True)
        return field.range_type(lower, upper, begin + end)

    return canonical
