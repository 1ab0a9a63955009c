"""Models by field: what a field's value is compared and recorded as, planned once per model."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.dbapi import dialect
from otel_audit.capture.plan import FieldPlan, TablePlan
from otel_audit.capture.policy import Policy, TableSettings
from otel_audit.interruptions import faults
from otel_audit.values import Encoded, freeze

if TYPE_CHECKING:
    from django.db.models import Field, Model

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


class ModelFieldPlan(FieldPlan):
    """How one concrete field is read, compared and named in records.

    ``hidden``: its class says that it encrypts, so its values are masked unless the configuration says
    otherwise.
    """

    __slots__ = ("_canonical", "_convert", "column", "field", "mutable")

    def __init__(self, field: Field[Any, Any], rounding: str = decimal.ROUND_HALF_EVEN) -> None:
        hidden = any(
            word in f"{kind.__module__}.{kind.__qualname__}".lower()
            for kind in type(field).__mro__
            for word in _HIDING_WORDS
        )
        automatic = bool(getattr(field, "auto_now", False))
        super().__init__(field.name, field.attname, automatic=automatic, hidden=hidden)
        self.field = field
        self.column: str = field.column  # type: ignore[assignment]
        self.mutable = _value_field(field).get_internal_type() not in _IMMUTABLE_FIELDS
        self._convert = _conversion(_value_field(field), rounding)
        self._canonical = _CANONICAL.get(_value_field(field).get_internal_type())

    def normal(self, value: Any) -> Any:
        """Give a frozen value as the database will hold it; as it is where that cannot be told."""
        if value is None or type(value) is self._canonical or type(value) is Encoded:
            return value
        try:
            return freeze(self._convert(value))
        except faults():  # to_python of an unusual value raises what it likes
            return value


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


class ModelPlan(TablePlan):
    """What capture needs to know of one concrete model on one kind of database, looked up once.

    ``fields`` are the columns of the model's own table, ``row`` the names an instance of it is loaded with
    (parents' included).
    """

    __slots__ = ("by_attname", "model", "mutable", "row")

    def __init__(self, model: type[Model], settings: TableSettings, vendor: str = "") -> None:
        meta: Any = model._meta
        rounding = dialect(vendor).rounding
        fields = [ModelFieldPlan(field, rounding) for field in meta.local_concrete_fields]
        self.by_attname = {plan.attname: plan for plan in fields}
        keys = [self.by_attname[field.attname] for field in meta.pk_fields]
        super().__init__(meta.label, meta.db_table, fields, keys, settings)
        self.model = model
        self.row: list[str] = [field.attname for field in meta.concrete_fields]
        self.mutable = {
            field.attname: position
            for position, field in enumerate(meta.concrete_fields)
            if ModelFieldPlan(field).mutable
        }


class ModelPolicy(Policy):
    """The settings of every model; a proxy has those of its concrete model."""

    def of(self, model: type[Model]) -> TableSettings:
        """Return the settings of ``model``.

        The table behind a many-to-many field follows the model that declares the field unless a pattern
        names it.
        """
        meta: Any = model._meta.concrete_model._meta  # type: ignore[union-attr]
        label: str = meta.label
        found = self.known(label)
        if found is None:
            found = self.settings(label, meta.auto_created._meta.label if meta.auto_created else None)
        return found


NOT_AUDITED: Final = ModelPlan.__new__(ModelPlan)
"""Stands for a model no plan could be made of."""
NOT_AUDITED.audited = False
