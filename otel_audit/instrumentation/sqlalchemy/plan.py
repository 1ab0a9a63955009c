"""Tables by column: what a column's value is compared and recorded as, planned once per table."""

from __future__ import annotations

import datetime
import decimal
import logging
import sys
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from sqlalchemy import types
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.schema import Table

from otel_audit.capture.opt_in import owner_of_attribute, said_by_class
from otel_audit.capture.plan import FieldPlan, TablePlan
from otel_audit.capture.policy import KeyStrategies, Policy, Subject, TableSettings
from otel_audit.interruptions import faults
from otel_audit.redaction.names import SECRETS, NameRules
from otel_audit.redaction.records import SECRET_KEY
from otel_audit.values import FROZEN, freeze, freeze_known

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper
    from sqlalchemy.schema import Column

    from otel_audit.config.model import AuditConfig

_logger = logging.getLogger(__name__)

_HIDING_WORDS: Final = ("crypt", "cipher", "fernet", "secret", "password")
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
_NO_PACKAGES: Final = frozenset({"src", "lib"})
"""Directories that some projects import their packages by."""
_DIALECT: Final = DefaultDialect()


class ColumnPlan(FieldPlan):
    """How one column is compared and named in records: by its attribute where a class is mapped.

    Attributes:
        column: the column itself.
        mutable: its values may change in place, unseen.
    """

    __slots__ = ("_convert", "canonical", "column", "mutable")

    def __init__(self, column: Column[Any], name: str, *, automatic: bool, encrypted: bool) -> None:
        kind = column.type
        super().__init__(name, automatic=automatic, hidden=encrypted or _hides(kind))
        self.column = column
        self._convert = _conversion(kind, hidden=self.hidden)
        self.plain = self._convert is None
        implementation = _implementation(kind)
        self.canonical = None if implementation is not kind else _canonical(kind)
        self.mutable = isinstance(kind, types.TypeDecorator) or not isinstance(implementation, _IMMUTABLE)
        self.large = _is_large(implementation)

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

    def normal(self, value: Any) -> Any:
        return value  # what the application set has been taken as it will be read by `frozen`


def _hides(kind: Any) -> bool:
    """Say whether the class of a type, or one it inherits from, is called after what it does."""
    return any(
        word in f"{each.__module__}.{each.__qualname__}".lower()
        for each in type(kind).__mro__
        for word in _HIDING_WORDS
    )


def _implementation(kind: Any) -> Any:
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
        return _document
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
    inner = _conversion(_implementation(kind), hidden=False)

    def convert(value: Any) -> Any:
        stored = kind.process_bind_param(value, _DIALECT)
        held = stored if inner is None or stored is None else inner(stored)
        known = freeze_known(kind.process_result_value(held, _DIALECT))
        # An object of a class of the application's is recorded as what is stored of it.
        return freeze(stored) if known is UNSET else known

    return convert


def _document(value: Any) -> Any:
    return None if value is types.JSON.NULL else freeze(value)


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, bool | float) and value == int(value) else value


def _uuid(value: Any) -> Any:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))


def _date(value: Any) -> Any:
    return value.date() if isinstance(value, datetime.datetime) else value


def _number(kind: Any) -> Callable[[Any], Any]:
    if not kind.asdecimal:
        return float
    scale = kind.scale if not isinstance(kind, types.Float) else None
    if scale is None:
        return lambda value: value if isinstance(value, decimal.Decimal) else decimal.Decimal(str(value))
    exponent = decimal.Decimal(1).scaleb(-scale)
    context = decimal.Context(prec=max(kind.precision or 28, 28), rounding=decimal.ROUND_HALF_UP)

    def convert(value: Any) -> Any:
        number = value if isinstance(value, decimal.Decimal) else decimal.Decimal(str(value))
        return number.quantize(exponent, context=context)

    return convert


class MappedPlan(TablePlan):
    """What capture needs to know of one table, looked up once.

    Attributes:
        by_column: its plans by column.
        mappers: of the classes whose rows it has.
    """

    __slots__ = ("__weakref__", "by_column", "by_key", "mappers", "properties", "schema")

    def __init__(
        self,
        table: Table,
        subject: Subject,
        settings: TableSettings,
        mappers: list[Mapper[Any]],
        names: NameRules,
        ends: dict[str, str],
    ) -> None:
        attributes = _attributes(table, mappers)
        versions = {mapper.version_id_col for mapper in mappers}
        fields = [
            ColumnPlan(
                column,
                attributes.get(column, column.key),
                automatic=column.onupdate is not None or column in versions,
                encrypted=settings.encrypts(attributes.get(column, column.key)),
            )
            for column in table.columns
        ]
        self.by_column: dict[Any, ColumnPlan] = {plan.column: plan for plan in fields}
        self.by_key: dict[str, ColumnPlan] = {plan.column.key: plan for plan in fields}
        # The rows of most tables that relate two others have no key but what they relate.
        keys: list[Any] = (
            list(table.primary_key)
            or [column for mapper in mappers[:1] for column in mapper.primary_key if column.table is table]
            or [column for column in table.columns if column.foreign_keys]
        )
        plans = [self.by_column[column] for column in keys]
        secret = _secret_keys(plans, table, settings, names)
        super().__init__(subject.label, table.name, fields, plans, settings, secret, ends)
        self.mappers = [weakref.ref(mapper) for mapper in mappers]
        if ends:  # what it relates is all there is to say
            self.others = fields
        self.schema = table.schema
        self.properties: weakref.WeakKeyDictionary[Any, tuple[dict[ColumnPlan, str], list[int] | None]] = (
            weakref.WeakKeyDictionary()
        )


def _attributes(table: Table, mappers: Iterable[Mapper[Any]]) -> dict[Any, str]:
    """Return the attributes that columns of a table are mapped to."""
    found: dict[Any, str] = {}
    for mapper in mappers:
        for column in table.columns:
            prop = mapper._columntoproperty.get(column)
            if prop is not None and column not in found:
                found[column] = prop.key
    return found


def _secret_keys(
    plans: list[ColumnPlan], table: Table, settings: TableSettings, names: NameRules
) -> KeyStrategies:
    """Decide which parts of the key are secrets: by their name, or that of their table for a key of text."""
    strategies: list[str] = []
    for plan in plans:
        strategy = settings.strategies.get(plan.name, "")
        own = names.own(plan.name)
        if not strategy and own is not None:
            strategy = SECRET_KEY if own == "secret" else "keep"
        numeric = isinstance(_implementation(plan.column.type), types.Integer | types.Uuid)
        decision = names.decide(plan.name)
        if not strategy and (
            decision in ("secret", "secret_text", "personal")
            or (not numeric and (decision == "ambiguous" or names.decide(table.name) in SECRETS))
        ):
            strategy = SECRET_KEY
        strategies.append(strategy)
    fields = {plan.name: strategy for plan, strategy in zip(plans, strategies, strict=True) if strategy}
    return KeyStrategies(tuple(strategies), fields)


class Plans:
    """The plans of all tables met so far; those of tables that are not audited are ``None``."""

    def __init__(self, config: AuditConfig, policy: Policy) -> None:
        self._policy = policy
        self._names = NameRules.of(config.redaction)
        self._plans: weakref.WeakKeyDictionary[Any, MappedPlan | None] = weakref.WeakKeyDictionary()
        self._keyless: weakref.WeakSet[Any] = weakref.WeakSet()
        self.generation = 0

    def of(self, table: Any) -> MappedPlan | None:
        """Return the plan of a table, None if it is neither audited nor read with care."""
        try:
            known = self._plans[table]
        except KeyError:
            pass
        else:
            if known is None or len(known.fields) == len(table.columns):
                return known  # else it was reflected, or has been given columns, since
        generation = self.generation
        made = self._make(table) if isinstance(table, Table) else None
        if generation == self.generation:  # else a class was mapped meanwhile
            self._plans[table] = made
        return made

    def forget(self) -> None:
        """Decide anew: code has said something, or classes were mapped."""
        self.generation += 1
        self._policy.forget()
        self._plans.clear()

    def _make(self, table: Table) -> MappedPlan | None:
        mappers = mappers_of(table)
        known = subject(table, mappers)
        ends: dict[str, str] = {}
        settings = self._policy.decide(known).settings
        if not mappers:
            owners = list(owners_of(table))
            for owner in owners:
                decided = self._policy.decide(known, owner).settings
                if decided.audited:
                    settings = decided
                    break
            if owners:
                ends = _ends(table)
        if not (settings.audited or settings.reads):
            return None
        plan = MappedPlan(table, known, settings, mappers, self._names, ends)
        if not plan.keys and plan.fields and table not in self._keyless:  # without columns: not reflected yet
            self._keyless.add(table)
            _logger.warning(
                "%s has neither a primary key nor foreign keys: its rows are recorded by their number only; "
                "declare a primary key, in the class by `primary_key` of __mapper_args__, or exclude it: %r",
                table.fullname,
                f"!{table.fullname}",
            )
        return plan


# --- what a table is known by ----------------------------------------------------------------------


def mappers_of(table: Any) -> list[Mapper[Any]]:
    """Return the mappers whose rows a table has, that of the most general class first."""
    found = [mapper for mapper in _all_mappers() if mapper.local_table is table or table in mapper.tables]
    own = [mapper for mapper in found if mapper.local_table is table]
    return sorted(own, key=_depth) + [mapper for mapper in found if mapper not in own]


def _depth(mapper: Mapper[Any]) -> int:
    return len(list(mapper.iterate_to_root()))


def _all_mappers() -> Iterator[Mapper[Any]]:
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        yield from registry.mappers


def all_tables() -> Iterator[Table]:
    """Yield the tables of mapped classes, then those that stand beside them."""
    for mapper in _all_mappers():
        if isinstance(mapper.local_table, Table):
            yield mapper.local_table
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        yield from registry.metadata.tables.values()


def subject(table: Table, mappers: list[Mapper[Any]]) -> Subject:
    """Return all that rules may know a table by: its class, what inherits from it, and its own name."""
    own = [mapper for mapper in mappers if mapper.local_table is table]
    names = tuple(dict.fromkeys((table.name, table.fullname)))
    if not own:
        return Subject(table.fullname, tables=names)
    cls = own[0].class_
    path = f"{cls.__module__}.{cls.__qualname__}"
    mapped = {mapper.class_ for mapper in _all_mappers()}
    bases = [base for base in cls.__mro__ if base is not cls and base is not object and base not in mapped]
    classes = [mapper.class_ for mapper in own]
    said = next((found for found in map(_said, classes) if found is not None), None)
    return Subject(label_of(cls, mapped), path, (*classes, *bases), said, names)


def _said(cls: type[Any]) -> Any:
    owner = owner_of_attribute(cls)
    return None if owner is None else said_by_class(cls)


def label_of(cls: type[Any], mapped: Iterable[type[Any]]) -> str:
    """Return what objects of a class are called: package and class; its whole path where two share that."""
    package = package_of(cls)
    same = [
        each
        for each in mapped
        if each is not cls and each.__name__ == cls.__name__ and package_of(each) == package
    ]
    return f"{cls.__module__}.{cls.__qualname__}" if same else f"{package}.{cls.__name__}"


def package_of(cls: type[Any]) -> str:
    """Return the package of a class: the first name of its module, but for directories of sources."""
    parts = cls.__module__.split(".")
    return next((part for part in parts if part not in _NO_PACKAGES), parts[0])


def owners_of(table: Any) -> Iterator[Subject]:
    """Return the classes whose relationships have their rows in a table."""
    for mapper in _all_mappers():
        for prop in mapper._init_properties.values() if mapper.configured else ():
            if getattr(prop, "secondary", None) is table and isinstance(mapper.local_table, Table):
                yield subject(mapper.local_table, mappers_of(mapper.local_table))


def _ends(table: Table) -> dict[str, str]:
    """Return the foreign keys of a table that relates others, and the labels of what they name."""
    ends: dict[str, str] = {}
    for column in table.columns:
        for key in column.foreign_keys:
            try:
                referred = key.column
            except faults():  # a table that is not there (yet)
                continue
            if list(referred.table.primary_key) == [referred] and isinstance(referred.table, Table):
                ends[column.key] = subject(referred.table, mappers_of(referred.table)).label
    return ends
