"""Models by field: what a field's value is compared and recorded as, planned once per model."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from otel_audit.values import Encoded, freeze

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from otel_audit.capture.policy import ModelSettings

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

_HIDING_WORDS: Final = ("crypt", "fernet", "secret")


class FieldPlan:
    """How one concrete field is read, compared and named in records.

    ``hidden``: its class says that it encrypts, so its values are masked unless the configuration says
    otherwise.
    """

    __slots__ = (
        "_canonical",
        "_convert",
        "attname",
        "automatic",
        "column",
        "field",
        "hidden",
        "mutable",
        "name",
    )

    def __init__(self, field: Field[Any, Any], rounding: str = decimal.ROUND_HALF_EVEN) -> None:
        self.field = field
        self.name = field.name
        self.attname = field.attname
        self.column: str = field.column  # type: ignore[assignment]
        self.mutable = _value_field(field).get_internal_type() not in _IMMUTABLE_FIELDS
        self.hidden = any(
            word in f"{kind.__module__}.{kind.__qualname__}".lower()
            for kind in type(field).__mro__
            for word in _HIDING_WORDS
        )
        self.automatic = bool(getattr(field, "auto_now", False))
        self._convert = _conversion(_value_field(field), rounding)
        self._canonical = _CANONICAL.get(_value_field(field).get_internal_type())

    def normal(self, value: Any) -> Any:
        """Give a frozen value as the database will hold it; as it is where that cannot be told."""
        if value is None or type(value) is self._canonical or type(value) is Encoded:
            return value
        try:
            return freeze(self._convert(value))
        except Exception:  # to_python of an unusual value raises what it likes
            return value


def _value_field(field: Any) -> Any:
    """Follow foreign keys to the field whose values they hold."""
    seen = 0
    while field.remote_field is not None and seen < 16:
        try:
            field = field.target_field
        except Exception:  # a relation to a model that is not there (yet), or with several columns
            break
        seen += 1
    return field


def _conversion(field: Any, rounding: str) -> Callable[[Any], Any]:
    from django.db import models

    if isinstance(field, models.DecimalField):
        return _quantised(field, rounding)
    if isinstance(field, models.DateTimeField):
        return _instant(field)
    if isinstance(field, models.BinaryField):
        return bytes
    return field.to_python  # type: ignore[no-any-return]


def _quantised(field: Any, rounding: str) -> Callable[[Any], Any]:
    context = decimal.Context(prec=field.max_digits or 28, rounding=rounding)
    exponent = decimal.Decimal(1).scaleb(-(field.decimal_places or 0))

    def convert(value: Any) -> Any:
        number = field.to_python(value)
        if field.max_digits is None or field.decimal_places is None:
            return number
        return number.quantize(exponent, context=context)

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


class ModelPlan:
    """What capture needs to know of one concrete model on one kind of database, looked up once.

    ``fields`` are the columns of the model's own table, ``row`` the names an instance of it is loaded with
    (parents' included).
    """

    __slots__ = (
        "audited",
        "by_attname",
        "event",
        "fields",
        "keys",
        "label",
        "model",
        "mutable",
        "old_values",
        "row",
        "strategies",
        "table",
    )

    def __init__(self, model: type[Model], settings: ModelSettings, vendor: str = "") -> None:
        meta: Any = model._meta
        # Databases round decimals half away from zero; SQLite keeps them, and Django rounds what it reads.
        rounding = decimal.ROUND_HALF_EVEN if vendor == "sqlite" else decimal.ROUND_HALF_UP
        self.model = model
        self.label: str = meta.label
        self.event: str = meta.label_lower
        self.table: str = meta.db_table
        self.audited = settings.audited
        self.old_values = settings.old_values
        self.fields = [FieldPlan(field, rounding) for field in meta.local_concrete_fields]
        self.by_attname = {plan.attname: plan for plan in self.fields}
        self.keys = [self.by_attname[field.attname] for field in meta.pk_fields]
        self.row: list[str] = [field.attname for field in meta.concrete_fields]
        self.mutable = {
            field.attname: position
            for position, field in enumerate(meta.concrete_fields)
            if FieldPlan(field).mutable
        }
        hidden = {plan.name: "mask" for plan in self.fields if plan.hidden}
        self.strategies = hidden | dict(settings.strategies)

    def key_of(self, values: dict[str, Any]) -> Any:
        """Take the key out of values by attname: the value, a tuple of a composite key, or UNSET."""
        if len(self.keys) == 1:
            return values.get(self.keys[0].attname, UNSET)
        key = tuple(values.get(plan.attname, UNSET) for plan in self.keys)
        return UNSET if UNSET in key else key

    def normal_key(self, key: Any) -> Any:
        """Return a key as the database will hold it: of one row there is one, however it was written."""
        if len(self.keys) == 1:
            return self.keys[0].normal(freeze(key))
        return tuple(plan.normal(freeze(part)) for plan, part in zip(self.keys, key, strict=True))


NOT_AUDITED: Final = ModelPlan.__new__(ModelPlan)
"""Stands for a model no plan could be made of."""
NOT_AUDITED.audited = False
