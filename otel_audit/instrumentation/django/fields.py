"""Values by field: what a field's value is compared and recorded as, planned once per model.

A *frozen* value is one nobody can change afterwards: a plain immutable one, or :class:`Encoded`, the JSON of
a mutable one at the moment it was seen. Frozen values are kept from the write to the end of the transaction;
:func:`thaw` makes them what a record carries.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.record import portable

if TYPE_CHECKING:
    from django.db.models import Field, Model

    from otel_audit.instrumentation.django.models import ModelSettings
    from otel_audit.instrumentation.django.secret_keys import KeyStrategies

ATOMS: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        decimal.Decimal,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
        uuid.UUID,
    }
)
"""Classes whose instances never change and need no conversion to be compared."""

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


class Encoded(bytes):
    """A mutable value as JSON, made when the value was seen."""

    __slots__ = ()


def _encode(value: Any) -> Encoded:
    try:
        return Encoded(msgspec.json.encode(value, enc_hook=portable))
    except Exception:  # keys that are no text, integers beyond 64 bits, lone surrogates
        return Encoded(msgspec.json.encode(portable(value)))


def freeze(value: Any) -> Any:
    """Make a value that nobody can change afterwards; never evaluates a model's ``__str__``."""
    kind = type(value)
    if kind in ATOMS or kind is Encoded:
        return value
    if kind is memoryview or kind is bytearray:
        return bytes(value)
    if kind is dict or kind is list or kind is tuple:
        return _encode(value)
    if hasattr(value, "_meta") and hasattr(value, "pk"):
        return freeze(value.pk)
    if hasattr(value, "storage") and hasattr(value, "name"):  # a FieldFile
        return freeze(value.name)
    plain = portable(value)
    return plain if type(plain) in ATOMS else _encode(plain)


def thaw(value: Any) -> Any:
    """Give what a record carries for a frozen value; aware datetimes become UTC."""
    kind = type(value)
    if kind is Encoded:
        return msgspec.json.decode(value)
    if kind is datetime.datetime and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    return value


def _instant_text(value: datetime.datetime) -> str:
    return (value if value.tzinfo is None else value.astimezone(datetime.UTC)).isoformat()


TOLD: Final[dict[type, tuple[Callable[[Any], Any], str]]] = {
    Encoded: (msgspec.json.decode, ""),
    decimal.Decimal: (str, "decimal"),
    datetime.datetime: (_instant_text, "datetime"),
    datetime.date: (datetime.date.isoformat, "date"),
    datetime.time: (datetime.time.isoformat, "time"),
    uuid.UUID: (str, "uuid"),
}
"""What a record carries for the frozen values most rows have, and the name of their type; others as they are.

What these make is portable already: nobody has to convert it once more.
"""


def same(old: Any, new: Any) -> bool:
    """Say whether two frozen values are equal; a comparison that raises means they are not."""
    if old is new:
        return True
    try:
        if old == new:
            return True
        if type(old) is Encoded and type(new) is Encoded:
            return bool(msgspec.json.decode(old) == msgspec.json.decode(new))
    except Exception:  # a signalling NaN, a foreign __eq__
        return False
    return False


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
    (parents' included). ``key_strategies`` are those of the key, part by part.
    """

    __slots__ = (
        "audited",
        "by_attname",
        "event",
        "fields",
        "key_strategies",
        "keys",
        "label",
        "model",
        "mutable",
        "old_values",
        "row",
        "strategies",
        "table",
    )

    def __init__(
        self, model: type[Model], settings: ModelSettings, secret: KeyStrategies, vendor: str = ""
    ) -> None:
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
        self.strategies = {**secret.fields, **hidden, **settings.strategies}
        self.key_strategies = tuple(
            hidden.get(plan.name, strategy) for plan, strategy in zip(self.keys, secret.key, strict=True)
        )

    def key_of(self, values: dict[str, Any]) -> Any:
        """Take the key out of values by attname: the value, a tuple of a composite key, or UNSET."""
        if len(self.keys) == 1:
            return values.get(self.keys[0].attname, UNSET)
        key = tuple(values.get(plan.attname, UNSET) for plan in self.keys)
        return UNSET if UNSET in key else key


NOT_AUDITED: Final = ModelPlan.__new__(ModelPlan)
"""Stands for a model no plan could be made of."""
NOT_AUDITED.audited = False


def key_text(key: Any) -> str:
    """Write a key as the id of a target: ``7``; a composite key as compact JSON, ``[7,"de"]``."""
    if key is UNSET or key is None:
        return ""
    if isinstance(key, tuple | list):
        return msgspec.json.encode([portable(freeze(part)) for part in key]).decode()
    if type(key) is int or type(key) is str:
        return str(key)
    return str(portable(freeze(key)))


def key_texts(keys: Sequence[Any]) -> list[str]:
    """Write many keys."""
    if all(type(key) is int for key in keys):
        return list(map(str, keys))
    return [key_text(key) for key in keys]
