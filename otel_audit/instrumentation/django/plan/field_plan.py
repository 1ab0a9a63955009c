"""One field of a model: what its values are compared and recorded as."""

from __future__ import annotations

import datetime
import decimal
import logging
import uuid
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from otel_audit.capture.databases.dbapi import dialect
from otel_audit.capture.databases.jsonb import as_numeric, unlike_numeric
from otel_audit.capture.plan import FieldPlan
from otel_audit.instrumentation.django.plan import stored, unrepeatable
from otel_audit.interruptions import faults
from otel_audit.large_values import PLAIN_CONTAINERS, Cut
from otel_audit.values import ATOMS, FROZEN, Encoded, Opaque, freeze, freeze_known, freeze_structures
from otel_audit.values.scalars import zone_of

if TYPE_CHECKING:
    from django.db.models import Field

_logger = logging.getLogger(__name__)
_IMMUTABLE_FIELDS: Final = frozenset(
    {
        "AutoField",
        "BigAutoField",
        "BigIntegerField",
        "BooleanField",
        "CharField",
        "DateField",
        "DateTimeField",
        "DecimalField",
        "DurationField",
        "EmailField",
        "FileField",
        "FilePathField",
        "FloatField",
        "ForeignKey",
        "GenericIPAddressField",
        "ImageField",
        "IPAddressField",
        "IntegerField",
        "NullBooleanField",
        "OneToOneField",
        "PositiveBigIntegerField",
        "PositiveIntegerField",
        "PositiveSmallIntegerField",
        "SlugField",
        "SmallAutoField",
        "SmallIntegerField",
        "TextField",
        "TimeField",
        "URLField",
        "UUIDField",
    }
)
_CANONICAL: Final[dict[str, type]] = {
    "AutoField": int,
    "BigAutoField": int,
    "BigIntegerField": int,
    "BooleanField": bool,
    "CharField": str,
    "DateField": datetime.date,
    "EmailField": str,
    "FloatField": float,
    "IntegerField": int,
    "PositiveBigIntegerField": int,
    "PositiveIntegerField": int,
    "PositiveSmallIntegerField": int,
    "SlugField": str,
    "SmallIntegerField": int,
    "TextField": str,
    "TimeField": datetime.time,
    "URLField": str,
    "UUIDField": uuid.UUID,
}
"""The class whose instances a field stores as they are."""
_NOTHING: Final = frozenset({type(None)})
_NUMBERS: Final = frozenset({int, float})
_AS_IT_IS: Final = frozenset({Encoded, Cut, Opaque})

_LONGEST_SMALL: Final = 4096
"""Characters: of a field that allows no more, 1000 rows are within the default of ``max_bulk_bytes``."""
_SMALL_FIELDS: Final = frozenset(
    {
        "AutoField",
        "BigAutoField",
        "BigIntegerField",
        "BooleanField",
        "DateField",
        "DateTimeField",
        "DecimalField",
        "DurationField",
        "FloatField",
        "GenericIPAddressField",
        "IntegerField",
        "PositiveBigIntegerField",
        "PositiveIntegerField",
        "PositiveSmallIntegerField",
        "SmallAutoField",
        "SmallIntegerField",
        "TimeField",
        "UUIDField",
    }
)


class ModelFieldPlan(FieldPlan):
    """How one concrete field is read, compared and named in records.

    ``hidden``: it encrypts, as its class or its code says, so its values are masked unless the configuration
    says otherwise. ``unrepeatable``: it prepares the same value differently each time, so values are compared
    as the instance holds them. ``strategies`` are those of its table.
    """

    __slots__ = (
        "_convert",
        "_convert_many",
        "_preparations",
        "_shape",
        "_stored",
        "canonical",
        "chooses_converters",
        "column",
        "custom",
        "document",
        "field",
        "mutable",
        "noted",
        "numeric",
        "strategies",
        "unrepeatable",
        "vendor",
    )

    def __init__(self, field: Field[Any, Any], vendor: str = "", *, encrypted: bool = False) -> None:
        hidden = encrypted or unrepeatable.says_so(field) or unrepeatable.randomises(field)
        automatic = bool(getattr(field, "auto_now", False))
        super().__init__(field.name, field.attname, automatic=automatic, hidden=hidden)
        self.field = field
        self.strategies: dict[str, str] = {}
        self.vendor = vendor
        self.column: str = field.column  # type: ignore[assignment]
        holder = _value_field(field)
        kind: str = holder.get_internal_type()
        self.custom = stored.translates(field) or stored.translates(holder)
        self.noted = self.custom or stored.makes_on_save(field)
        self.chooses_converters = stored.chooses_converters(field)
        self.mutable = self.custom or kind not in _IMMUTABLE_FIELDS
        self.document = kind == "JSONField" and not self.custom
        self.numeric = self.document and vendor == "postgresql"
        self.large = _is_large(field)
        self._convert = _conversion(holder, vendor)
        self._convert_many = _conversion_of_many(holder, vendor, self._convert)
        if kind == "GenericIPAddressField" and vendor != "postgresql":
            self._convert = holder.get_prep_value  # to_python() strips spaces, which a column of text keeps
        self._shape = stored.shape(holder, lambda element: _conversion(element, vendor))
        self.canonical = _CANONICAL.get(kind)
        self._stored: tuple[Any, list[Any]] | None = None
        self.unrepeatable = hidden and (self.custom or encrypted)
        self._preparations = unrepeatable.Preparations()
        self.plain = not (self.custom or self.unrepeatable) and self._shape is None

    def frozen(self, value: Any) -> Any:
        """Freeze a value as the application reads it.

        One of an unknown class is taken as its field prepares it: that can be compared, and read.
        """
        kind = type(value)
        if kind in FROZEN:
            return value
        if self.unrepeatable:
            return unrepeatable.in_memory(value)
        if not self.custom:
            if self._shape is not None:
                return self._shaped(value)
            if self.canonical is str:
                return self._text_of(value)
            return self._number_of(value) if self.canonical in _NUMBERS else freeze(value)
        known = freeze_known(value)
        if known is not UNSET:
            return known
        try:
            connection = stored.any_connection(self.vendor)
            return freeze(stored.plain(self.field.get_db_prep_value(value, connection, prepared=False)))
        except faults():  # what the field cannot prepare
            return freeze(value)

    def _text_of(self, value: Any) -> Any:
        """Return what a column of text holds of an object: the text that Django or the driver makes of it."""
        if self.field.remote_field is not None and hasattr(value, "_meta"):
            return freeze(value)  # an object stands for its key
        try:
            # Drivers of MySQL write an instance of a subclass as its `__str__` says, others its characters.
            as_it_is = isinstance(value, str) and self.vendor != "mysql"
            return str.__str__(value if as_it_is else str(value))
        except faults():  # the statement will say so
            return freeze(value)

    def _number_of(self, value: Any) -> Any:
        """Return the number that Django makes of an object: a subclass may say that it is another one."""
        if self.field.remote_field is not None and hasattr(value, "_meta"):
            return freeze(value)
        try:
            assert self.canonical is not None
            return self.canonical(value)
        except faults():  # the statement will say so, or the field looks into it first
            return freeze(value)

    def normal(self, value: Any) -> Any:
        """Return a frozen value as the database will hold it; as it is where that cannot be told."""
        kind = type(value)
        if value is None or kind is self.canonical or self.custom:
            return value
        if kind in _AS_IT_IS and not self.numeric:
            return value
        try:
            made = as_numeric(value) if self.numeric else self._convert(value)
            return made if type(made) in FROZEN else freeze(made)
        except faults():  # to_python of an unusual value raises what it likes
            return value

    def frozen_all(self, values: list[Any]) -> list[Any]:
        """Do :meth:`frozen` for many values."""
        return values if FROZEN.issuperset(map(type, values)) else list(map(self.frozen, values))

    def normal_all(self, values: list[Any]) -> list[Any]:
        """Do :meth:`normal` for many values."""
        return self._normal_values({*map(type, values)} - _NOTHING, values)

    def known_values(self, values: list[Any]) -> list[Any] | None:
        """Do :meth:`frozen` and :meth:`normal` for many values; ``None`` where each must be looked at."""
        kinds = {*map(type, values)} - _NOTHING
        if kinds <= ATOMS:
            return self._normal_values(kinds, values)
        made = freeze_structures(values) if self.document and kinds <= PLAIN_CONTAINERS else None
        if made is not None and self.numeric and unlike_numeric(b"".join(filter(None, made))):
            return list(map(self.normal, made))
        return made

    def _normal_values(self, kinds: set[type], values: list[Any]) -> list[Any]:
        if self.custom or not kinds or kinds == {self.canonical}:
            return values
        convert = self._convert_many.get(kinds.pop()) if len(kinds) == 1 else None
        made = convert(values) if convert is not None else None
        return list(map(self.normal, values)) if made is None else made

    def key_part(self, value: Any) -> Any:
        """Return a value of the key as the database holds it."""
        if not self.custom or self.unrepeatable:
            return self.normal(self.frozen(value))
        connection = stored.any_connection(self.vendor)
        try:
            prepared = self.field.get_db_prep_value(value, connection, prepared=False)
        except faults():  # the statement will say so
            return freeze(value)
        return self.read_back(prepared, connection, value)

    def prepare(self, value: Any, connection: Any, instance: Any = None) -> stored.Prepared:
        """Let the field prepare a value of an UPDATE, of ``instance`` perhaps.

        What it raises is the application's.
        """
        if hasattr(value, "prepare_database_save") and self.field.remote_field:
            value = value.prepare_database_save(self.field)
        prepared = self.field.get_db_prep_save(value, connection=connection)
        return stored.Prepared(self.field, prepared, self.prepared(prepared, connection, value, instance))

    def prepared(self, prepared: Any, connection: Any, value: Any, instance: Any = None) -> Any:
        """Return what counts as the value where the field has made ``prepared`` of it, frozen.

        That is what will be read, or where preparing is not repeatable, what the instance holds; ``UNSET``
        for an expression.
        """
        if stored.is_expression(prepared):
            return UNSET
        if not self.unrepeatable and self.custom and self._differ(value, prepared):
            self.unrepeatable = self.hidden = True
            if self.strategies.setdefault(self.name, "mask") == "mask":
                _logger.warning(
                    "%s prepares the same value differently each time, as encryption does: its values are "
                    'masked from now on; write "keep" or "mask" in django.model.<pattern>.fields',
                    self.field,
                )
        if self.unrepeatable:
            return self.frozen(unrepeatable.held(instance, self.attname, value))
        return self.read_back(prepared, connection, value)

    def _differ(self, value: Any, prepared: Any) -> bool:
        try:
            return self._preparations.differ(value, stored.plain(prepared))
        except faults():  # a value of an unusual class
            return False

    def read_back(self, prepared: Any, connection: Any, value: Any) -> Any:
        """Return what will be read where ``prepared`` is stored, frozen; ``UNSET`` for an expression.

        ``value`` is what the application set: told where it cannot be read back.
        """
        if stored.is_expression(prepared):
            return UNSET
        try:
            plain = stored.plain(prepared)
            held = self._held(plain)
            if self._stored is None:
                self._stored = stored.converters(self.field, connection)
            column, converters = self._stored
            for convert in converters:
                # One that takes only what the driver would have made of it need not convert this.
                try:
                    held = convert(held, column, connection)
                except faults():
                    continue
            known = self.frozen(held)
            if type(known) is Opaque:
                known = freeze(plain)
            return known if type(known) is not Opaque else self.frozen(value)
        except faults():  # an adapter of another driver
            return self.frozen(value)

    def _held(self, plain: Any) -> Any:
        """Return a prepared value as the driver would give it back."""
        if self._shape is not None:
            return plain if plain is None else self._shape(plain)
        if isinstance(plain, decimal.Decimal):
            return self._convert(plain)
        canonical = self.canonical
        if canonical in (str, int, float) and type(plain) in ATOMS and plain is not None:
            return canonical(plain) if type(plain) is not canonical else plain
        return plain

    def _shaped(self, value: Any) -> Any:
        assert self._shape is not None
        try:
            return freeze(self._shape(value))
        except faults():  # the database, or the field, will refuse it
            return freeze(value)


def _is_large(field: Any) -> bool:
    """Say whether nothing bounds the size of a field's values."""
    kind = field.get_internal_type()
    if field.remote_field is not None or kind in _SMALL_FIELDS:
        return False
    longest = getattr(field, "max_length", None)
    return longest is None or longest > _LONGEST_SMALL or kind == "TextField"


def _value_field(field: Any) -> Any:
    """Follow foreign keys to the field whose values they hold."""
    seen = 0
    while field.remote_field is not None and seen < 16:
        try:
            field = field.target_field
        except faults():  # a relation to a model that is not there (yet), or with several columns
            break
        seen += 1
    return field


def _conversion(field: Any, vendor: str) -> Callable[[Any], Any]:
    from django.db import models

    if isinstance(field, models.DecimalField):
        return _quantised(field, vendor)
    if isinstance(field, models.DateTimeField):
        return _instant(field)
    if isinstance(field, models.BinaryField):
        return bytes
    return field.to_python  # type: ignore[no-any-return]


_OfMany = Callable[[list[Any]], list[Any] | None]
"""What does a field's conversion for many values of one class and None; returns None where it cannot."""


def _conversion_of_many(field: Any, vendor: str, convert: Callable[[Any], Any]) -> dict[type, _OfMany]:
    """Return by class what does ``convert`` for many values."""
    from django.db import models

    if isinstance(field, models.DateTimeField):
        return {datetime.datetime: _aware}
    if (
        isinstance(field, models.DecimalField)
        and type(field).to_python is models.DecimalField.to_python
        and None not in (field.max_digits, field.decimal_places)
    ):
        return {decimal.Decimal: _quantised_at_once(field, vendor, convert)}
    return {}


def _quantised_at_once(field: Any, vendor: str, convert: Callable[[Any], Any]) -> _OfMany:
    exponent, context = _precision(field, vendor)

    def quantised(numbers: list[Any]) -> list[Any] | None:
        some = [number for number in numbers if number is not None]
        if all(some) and all(map(decimal.Decimal.same_quantum, some, repeat(exponent))):
            return numbers  # most often; one of more digits than the column has stays as well
        if not all(map(decimal.Decimal.is_finite, some)):
            return None
        try:  # of a zero the sign has to be looked at
            return [
                number if number is None else number.quantize(exponent, context=context) or convert(number)
                for number in numbers
            ]
        except faults():  # more digits than the column has
            return None

    return quantised


def _aware(moments: list[Any]) -> list[Any] | None:
    """Return moments, or None if one of them has no time zone."""
    return None if type(None) in map(type, map(zone_of, filter(None, moments))) else moments


def _precision(field: Any, vendor: str) -> tuple[decimal.Decimal, decimal.Context]:
    context = decimal.Context(prec=field.max_digits or 28, rounding=dialect(vendor).rounding)
    return decimal.Decimal(1).scaleb(-(field.decimal_places or 0)), context


def _quantised(field: Any, vendor: str) -> Callable[[Any], Any]:
    exponent, context = _precision(field, vendor)

    def convert(value: Any) -> Any:
        number = field.to_python(value)
        if field.max_digits is None or field.decimal_places is None:
            return number
        made = number.quantize(exponent, context=context)
        # No database has a negative zero in a decimal; of SQLite Django rounds the number as it reads it.
        return made.copy_abs() if not made and (not number or vendor != "sqlite") else made

    return convert


def _instant(field: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is datetime.datetime and value.tzinfo is not None:
            return value
        from django.conf import settings
        from django.utils import timezone

        instant = field.to_python(value)
        if settings.USE_TZ and timezone.is_naive(instant):
            return timezone.make_aware(instant, timezone.get_default_timezone())
        return instant

    return convert
