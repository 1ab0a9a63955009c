"""Tables by column, and which of them are audited: looked up once per table."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.schema import Table

from otel_audit.audit_record import Target
from otel_audit.capture.opt_in import code_rules
from otel_audit.capture.plan import TablePlan
from otel_audit.capture.table_policy import KeyStrategies, Subject, TablePolicy, TableSettings
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.mappings import Mappings, usual_label
from otel_audit.instrumentation.sqlalchemy.secret_keys import key_strategies
from otel_audit.instrumentation.sqlalchemy.tables import (
    attributes_of,
    is_version_table,
    keys_of,
    naming_columns,
)
from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.names import NameRules
from otel_audit.values import key_text

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper

    from otel_audit.config.model import AuditConfig

_logger = logging.getLogger(__name__)
_MAX_SAID: Final = 100


class MappedPlan(TablePlan):
    """What capture needs to know of one table, looked up once.

    Attributes:
        by_column: its plans by column.
        mappers: of the classes whose rows it has.
        sql_table: SQLAlchemy's object for it.
        naming: the columns that other rows may refer to its rows by.
    """

    __slots__ = (
        "__weakref__",
        "by_column",
        "by_key",
        "mappers",
        "naming",
        "properties",
        "schema",
        "sql_table",
    )

    def __init__(
        self,
        table: Table,
        subject: Subject,
        settings: TableSettings,
        mappers: list[Mapper[Any]],
        secret: KeyStrategies,
        ends: dict[str, str],
    ) -> None:
        attributes = attributes_of(table, mappers)
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
        plans = [self.by_column[column] for column in keys_of(table, mappers)]
        # Exact texts: SQLAlchemy's names are of a class of its own, which no encoder knows.
        super().__init__(str(subject.label), str(table.name), fields, plans, settings, secret, ends)
        self.mappers = [weakref.ref(mapper) for mapper in mappers]
        if ends:  # what it relates is all there is to say
            self.others = fields
        self.schema = table.schema
        self.sql_table = table
        self.naming = naming_columns(table)
        self.properties: weakref.WeakKeyDictionary[Any, tuple[dict[ColumnPlan, str], list[int] | None]] = (
            weakref.WeakKeyDictionary()
        )

    def fields_of(self, columns: Sequence[Any]) -> list[ColumnPlan]:
        """Return the plans of columns of the table."""
        return [self.by_column[column] for column in columns]


class _Decided(NamedTuple):
    """What is said about a table, and the ends of one that relates others."""

    subject: Subject
    settings: TableSettings
    ends: dict[str, str]


class Plans:
    """The plans of all tables met so far; those of tables that are not audited are ``None``."""

    def __init__(self, config: AuditConfig, policy: TablePolicy) -> None:
        self._policy = policy
        self._names = NameRules.of(config.redaction)
        self._plans: weakref.WeakKeyDictionary[Any, MappedPlan | None] = weakref.WeakKeyDictionary()
        self._audited: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._mappings: Mappings | None = None
        self._keyless: weakref.WeakSet[Any] = weakref.WeakSet()
        self._namesakes: set[str] = set()
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

    def audits(self, table: Table) -> bool:
        """Say whether a table is audited, which is known of many without planning them."""
        known = self._audited.get(table)
        if known is None:
            generation = self.generation
            known = self._decide(table).settings.audited
            if generation == self.generation:
                self._audited[table] = known
        return known

    def unaudited(self, table: Table) -> MappedPlan:
        """Return a plan of a table that is not audited, to follow what its rows lead to."""
        mappings = self._now()
        settings = TableSettings(False, False, "as_loaded", {})
        mappers = mappings.mappers_of(table)
        plan = MappedPlan(table, mappings.subject(table), settings, mappers, KeyStrategies(), {})
        plan.others = []  # nobody wants to know what else the rows held
        return plan

    def target_of(self, value: Any) -> Target | None:
        """Return what records call an object of a mapped class; None of others, and of one without a key."""
        state: Any = getattr(value, "_sa_instance_state", None)
        if state is None or not isinstance(table := state.mapper.local_table, Table):
            return None
        key = state.key[1] if state.key is not None else _pending_key(state)
        if not key:
            return None
        return Target(self._now().subject(table).label, key_text(key[0] if len(key) == 1 else key))

    def forget(self) -> None:
        """Decide anew: code has said something, or classes were mapped."""
        self.generation += 1
        self._policy.forget()
        self._mappings = None
        self._audited.clear()
        self._plans.clear()

    def _now(self) -> Mappings:
        found = self._mappings
        if found is None:
            generation, found = self.generation, Mappings()
            if generation == self.generation:
                self._mappings = found
        return found

    def _decide(self, table: Table) -> _Decided:
        mappings = self._now()
        known = mappings.subject(table)
        settings = self._policy.decide(known).settings
        ends: dict[str, str] = {}
        if not mappings.mappers_of(table):
            owners = list(mappings.owners_of(table))
            for owner in owners:
                decided = self._policy.decide(known, owner).settings
                if decided.audited:
                    settings = decided
                    break
            if owners:
                ends = mappings.ends_of(table)
        if is_version_table(table) and not self._names_it(table):
            settings = settings._replace(audited=False, reads=False)
        return _Decided(known, settings, ends)

    def _make(self, table: Table) -> MappedPlan | None:
        known, settings, ends = self._decide(table)
        if not (settings.audited or settings.reads):
            return None
        mappings = self._now()
        mappers = mappings.mappers_of(table)
        self._say_if_renamed(known)
        secret = key_strategies(table, mappings, self._names, self._strategies)
        plan = MappedPlan(table, known, settings, mappers, secret, ends)
        if not plan.keys and plan.fields and table not in self._keyless:  # without columns: not reflected yet
            self._keyless.add(table)
            from otel_audit.instrumentation.sqlalchemy.mistakes import say_that_it_has_no_key

            say_that_it_has_no_key(table, self._policy.config, self._policy.decide(known).rules)
        return plan

    def _say_if_renamed(self, subject: Subject) -> None:
        """Warn of a class that is not called by its usual label, as another one would have the same."""
        label = subject.label
        if label != subject.path or label in self._namesakes or len(self._namesakes) >= _MAX_SAID:
            return
        usual = usual_label(subject.classes[0])
        if label == usual:  # of a module that is no package, path and label are the same
            return
        self._namesakes.add(label)
        _logger.warning(
            "%s: another class of this name is mapped in the package, so records call it by its path, and "
            "called it %r before the other was mapped; rename one, or import both before the first write",
            label,
            usual,
        )

    def _names_it(self, table: Table) -> bool:
        """Say whether a table is asked for by its name, not only by a pattern that matches all."""
        section = self._policy.config
        patterns = [*section.models, *section.reads, *section.model, *(rule.pattern for rule in code_rules())]
        return table.name in patterns or table.fullname in patterns

    def _strategies(self, table: Table) -> Mapping[str, str]:
        return self._policy.decide(self._now().subject(table)).settings.strategies


def _pending_key(state: Any) -> tuple[Any, ...]:
    """Return the key that an object was given before it was saved; empty if a part is not known."""
    values = [
        state.dict.get(state.mapper.get_property_by_column(column).key) for column in state.mapper.primary_key
    ]
    return () if None in values else tuple(values)
