"""Models by field: what a field's value is compared and recorded as, planned once per model."""

from __future__ import annotations

import datetime
import decimal
import logging
import operator
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.apps import apps
from msgspec import UNSET

from otel_audit.capture.databases.dbapi import dialect
from otel_audit.capture.opt_in import CodeRule, OptIn, owner_of_attribute, said_by_class
from otel_audit.capture.plan import FieldPlan, TablePlan
from otel_audit.capture.policy import Decision, KeyStrategies, Policy, Subject, TableSettings, names_subject
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django import stored, unrepeatable
from otel_audit.instrumentation.django.secret_keys import key_strategies
from otel_audit.interruptions import faults
from otel_audit.large_values import Cut
from otel_audit.redaction.names import NameRules
from otel_audit.values import ATOMS, FROZEN, Encoded, Opaque, freeze, freeze_json, freeze_known

if TYPE_CHECKING:
    from django.db.models import Field, Model

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

HISTORICAL: Final = "__fake__"
"""The module of the model classes of a migration."""
_AS_IT_IS: Final = frozenset({Encoded, Cut})
_parts_of: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


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
        self.large = _is_large(field)
        rounding = dialect(vendor).rounding
        self._convert = _conversion(holder, rounding)
        self._shape = stored.shape(holder, lambda element: _conversion(element, rounding))
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
            return self._text_of(value) if self.canonical is str else freeze(value)
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

    def normal(self, value: Any) -> Any:
        """Return a frozen value as the database will hold it; as it is where that cannot be told."""
        kind = type(value)
        if value is None or kind is self.canonical or kind in _AS_IT_IS or self.custom:
            return value
        try:
            made = self._convert(value)
            return made if type(made) in FROZEN else freeze(made)
        except faults():  # to_python of an unusual value raises what it likes
            return value

    def normal_values(self, values: list[Any]) -> list[Any]:
        """Do :meth:`normal` for many values."""
        if self.custom or {*map(type, values)} <= {type(None), self.canonical}:
            return values
        return list(map(self.normal, values))

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


def _ends(model: type[Model]) -> dict[str, str]:
    """Return the foreign keys of a model behind many-to-many fields, and the labels of what they name.

    A key to another field than the primary one names no id.
    """
    through: Any = model._meta
    ends: dict[str, str] = {}
    try:
        keys = {field.name: field for field in through.local_concrete_fields if field.many_to_one}
        for related in [field.remote_field.model for field in keys.values()]:
            for field in related._meta.many_to_many:
                if field.remote_field.through is not model:
                    continue
                for name in (field.m2m_field_name(), field.m2m_reverse_field_name()):
                    if name in keys and keys[name].target_field.primary_key:
                        ends[name] = keys[name].remote_field.model._meta.concrete_model._meta.label
    except faults():  # a relation to a model that is not there (yet)
        return {}
    return ends


class ModelPlan(TablePlan):
    """What capture needs to know of one concrete model on one kind of database, looked up once.

    ``fields`` are the columns of the model's own table, ``others`` those not of its key, ``row`` the names an
    instance of it is loaded with (parents' included). ``documents`` takes the values that may change in place
    out of a whole row, where all of them are JSON; None if there are none, or others. ``custom`` are the
    names of fields whose class outside Django decides what is stored, ``noted`` those and the ones it makes
    while saving. ``found`` is what a thread has found out about its table.
    """

    __slots__ = (
        "__weakref__",
        "_documents",
        "by_attname",
        "custom",
        "documents",
        "found",
        "generated",
        "model",
        "mutable",
        "noted",
        "others",
        "row",
    )

    def __init__(
        self, model: type[Model], settings: TableSettings, secret: KeyStrategies, vendor: str = ""
    ) -> None:
        meta: Any = model._meta
        fields = [
            ModelFieldPlan(field, vendor, encrypted=settings.encrypts(field.name))
            for field in meta.local_concrete_fields
        ]
        self.by_attname = {plan.attname: plan for plan in fields}
        keys = [self.by_attname[field.attname] for field in meta.pk_fields]
        super().__init__(meta.label, meta.db_table, fields, keys, settings, secret, _ends(model))
        self.model = model
        self.row: list[str] = [field.attname for field in meta.concrete_fields]
        self.custom = frozenset(plan.attname for plan in fields if plan.custom)
        self.noted = frozenset(plan.attname for plan in fields if plan.noted)
        self.found = threading.local()
        self.others = [plan for plan in fields if plan not in keys]
        self.generated = [plan for plan in fields if plan.field.generated]
        columns = [
            self.by_attname.get(field.attname) or ModelFieldPlan(field, vendor)
            for field in meta.concrete_fields
        ]
        for plan in fields:
            plan.strategies = self.strategies
        self.mutable = {
            plan.attname: (position, plan) for position, plan in enumerate(columns) if plan.mutable
        }
        self._documents = [plan for _, plan in self.mutable.values()]
        self.documents: Callable[[Sequence[Any]], Any] | None = None
        if self._documents and all(plan.document for plan in self._documents):
            self.documents = operator.itemgetter(*[position for position, _ in self.mutable.values()])

    def read_documents(self, documents: bytes) -> Iterator[tuple[str, Any]]:
        """Return what :attr:`documents` took out of a row, written as JSON since: (attname, frozen)."""
        plans = self._documents
        for plan, document in zip(plans, _parts(documents) if len(plans) > 1 else [documents], strict=True):
            yield (
                plan.attname,
                freeze_json(document) if plan.plain else plan.frozen(msgspec.json.decode(document)),
            )

    def keys_in(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the keys of many rows, frozen: of one row there is one, and it can be remembered."""
        if len(self.keys) == 1:
            if not self.keys[0].mutable:
                return [row[0] for row in rows]
            return [self.keys[0].frozen(row[0]) for row in rows]
        return [
            tuple([plan.frozen(part) for plan, part in zip(self.keys, row, strict=False)]) for row in rows
        ]


def _parts(documents: bytes) -> list[bytes]:
    return [bytes(part) for part in _parts_of(documents)]


class ModelPolicy(Policy):
    """The settings of every model; a proxy has those of its concrete model.

    ``names`` are the rules by which a key is known for a secret.
    """

    def __init__(self, config: CaptureSection, names: NameRules | None = None) -> None:
        super().__init__(config)
        self._names = names or NameRules(enabled=True)
        self._keys: weakref.WeakKeyDictionary[type[Model], KeyStrategies] = weakref.WeakKeyDictionary()
        self._decided: weakref.WeakKeyDictionary[type[Model], TableSettings] = weakref.WeakKeyDictionary()

    def keys(self, model: type[Model]) -> KeyStrategies:
        """Return how the key of ``model`` is redacted, and its columns that hold one. Apps must be ready."""
        concrete: Any = model._meta.concrete_model
        found = self._keys.get(concrete)
        if found is None:
            try:
                found = key_strategies(concrete, self._names, lambda other: self.of(other).strategies)
            except faults():  # an unusual model: not known to be harmless, and its records must be made
                found = KeyStrategies(("mask",) * len(concrete._meta.pk_fields))
            self._keys[concrete] = found
        return found

    def of(self, model: type[Model]) -> TableSettings:
        """Return the settings of ``model``."""
        concrete: Any = model._meta.concrete_model
        found = self._decided.get(concrete)
        if found is None:
            try:
                found = self.decide_model(concrete).settings
            except faults():  # an unusual model must not be left out, nor harm who asks
                found = self.decide(Subject(concrete._meta.label, classes=(concrete,))).settings
                _logger.exception("%s: only the patterns decide what is recorded of it", concrete._meta.label)
            self._decided[concrete] = found
        return found

    def decide_model(self, model: type[Model]) -> Decision:
        """Decide about ``model``.

        The table behind a many-to-many field follows the model that declares the field unless a rule names
        it.
        """
        concrete: Any = model._meta.concrete_model
        owner = concrete._meta.auto_created
        return self.decide(subject(concrete), subject(owner) if owner else None)

    def forget(self) -> None:
        super().forget()
        self._keys.clear()
        self._decided.clear()


def subject(model: type[Model]) -> Subject:
    """Return all that rules may know a concrete model by.

    One of a migration is known as the application's of the same name. Abstract bases and proxies stand for
    it.
    """
    meta: Any = model._meta
    label: str = meta.label
    if model.__module__ == HISTORICAL:
        model = apps.all_models.get(meta.app_label, {}).get(meta.model_name, model)
    proxies = list(_proxies(model))
    bases = [base for base in model.__mro__ if base is not model and _is_abstract(base)]
    said = next((found for found in map(_said, (model, *proxies)) if found is not None), None)
    return Subject(label, f"{model.__module__}.{model.__qualname__}", (model, *bases, *proxies), said)


def may_name(rule: CodeRule, model: type[Model]) -> bool:
    """Say whether a rule of code may name a model, or the one whose relation its table is."""
    owner: Any = model._meta.auto_created
    models = (model, owner) if owner else (model,)
    if rule.model is None:
        return any(names_subject(rule, subject(each)) for each in models)
    named = rule.model()
    return named is not None and any(issubclass(each, concrete_of(named) or named) for each in models)


def concrete_of(cls: type[Any]) -> Any:
    """Return the concrete model of a class; None if it has none, or is no model at all."""
    return getattr(vars(cls).get("_meta"), "concrete_model", None)


def speaks_for(model: type[Model]) -> bool:
    """Say whether a proxy has something of its own to say about the audit of its concrete model."""
    concrete: Any = model._meta.concrete_model
    owner = owner_of_attribute(model)
    return concrete is not model and owner is not None and owner not in concrete.__mro__


def _said(model: type[Model]) -> OptIn | None:
    if model._meta.proxy and not speaks_for(model):
        return None
    return said_by_class(model)


def _is_abstract(base: Any) -> bool:
    meta = vars(base).get("_meta")
    return bool(getattr(meta, "abstract", False))


def _proxies(model: type[Model]) -> Iterator[type[Model]]:
    concrete = model._meta.concrete_model
    for child in type.__subclasses__(model):
        meta: Any = vars(child).get("_meta")
        if meta is not None and meta.proxy and meta.concrete_model is concrete:
            yield child
            yield from _proxies(child)


NOT_AUDITED: Final = ModelPlan.__new__(ModelPlan)
"""Stands for a model no plan could be made of."""
NOT_AUDITED.audited = False
