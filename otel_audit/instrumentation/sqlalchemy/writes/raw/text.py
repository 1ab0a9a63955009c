"""SQL that no construct of SQLAlchemy's describes to us: ``text()``, ``exec_driver_sql()``, DML in a CTE.

Its text is read as Django's is, by the same rules and once for each statement; one that names no audited
table costs a look into a dictionary. Text that ends or marks a transaction is followed as well.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy.schema import Table
from sqlalchemy.sql.dml import UpdateBase

from otel_audit.capture.databases import dbapi
from otel_audit.capture.plan import TablePlan, Verb
from otel_audit.capture.sql.raw_sql import Planned, RawStatement, RawTables
from otel_audit.capture.sql.sql_text import SqlText, Write, folded
from otel_audit.capture.table_policy import Subject, TablePolicy
from otel_audit.capture.transactions.transaction_sql import ORDINARY, Effect, effect_of, is_ordinary
from otel_audit.instrumentation.sqlalchemy.connection import (
    SQLAlchemyConnection,
    Transactions,
    commits_by_itself,
)
from otel_audit.instrumentation.sqlalchemy.namesakes import Namesakes, by_name, in_schema
from otel_audit.instrumentation.sqlalchemy.plan import Plans
from otel_audit.instrumentation.sqlalchemy.tables import OURS, all_tables, snapshot, translated
from otel_audit.instrumentation.sqlalchemy.writes.shape import bare
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Reader
from otel_audit.interruptions import faults, interrupts

if TYPE_CHECKING:
    from otel_audit.config.model import SQLAlchemyConfig
    from otel_audit.pipeline.failures import Failures

_SCHEMA_CHANGES: Final = frozenset({"CREATE", "ALTER", "DROP", "REVOKE"})
_WILD: Final = frozenset("*?[!.")


class DatabaseRules(Protocol):
    """What the database does by itself with rows that refer to those a statement deletes."""

    def reached(
        self, plan: Any, verb: Verb, connection: Any, state: SQLAlchemyConnection, sets: Callable[[str], bool]
    ) -> Iterable[tuple[Any, Verb]]:
        """Return the tables that the rules for one lead to, where text deletes or changes its rows."""

    def plan(self, table: Table) -> TablePlan:
        """Return the plan of a table, audited or not."""

    def unaudited(self) -> Iterable[TablePlan]:
        """Return the tables that are not audited and lead to one that is."""


class _NamedTables(RawTables):
    """Tables that are planned only once a statement names them.

    Attributes:
        shared: names that several tables have, and those tables, audited or not.
        tables: all that were known, audited or not.
    """

    def __init__(self, plans: Plans) -> None:
        super().__init__()
        self._planned = plans.of
        self.shared: dict[str, list[Table]] = {}
        self.tables: weakref.WeakSet[Table] = weakref.WeakSet()

    def add_table(self, table: Table) -> None:
        """Look for a table from now on, unless another one is known by the same name."""
        if not self.has(folded(table.name)):
            self._put(table.name, table)

    def plan(self, name: str, schema: str = "") -> TablePlan:
        known = self._plans[name]
        plan: TablePlan | None = self._planned(known) if isinstance(known, Table) else known
        if plan is None:
            raise LookupError(f"{name} was audited a moment ago")
        return plan


class _Here:
    """The tables of one database, where others, or other schemas, have tables of the same names."""

    def __init__(self, tables: Tables, known: _NamedTables, database: str, dialect: Any) -> None:
        self._tables = tables
        self._known = known
        self._database = database
        self._dialect = dialect

    def plan(self, name: str, schema: str = "") -> TablePlan:
        """Return the plan of the table that a statement calls so."""
        known, tables = self._known.plan(name), self._tables
        found = tables.namesakes.of(self._database, self._known.shared.get(name, ()))
        found = in_schema(found, schema, self._dialect)
        if not found or tables.rules is None:
            return known
        audited = next((table for table in found if tables.plans.audits(table)), None)
        if audited is None and getattr(known, "sql_table", None) in found:
            return known
        return tables.rules.plan(audited if audited is not None else found[0])


class Tables:
    """The audited tables by the names that text calls them, whether classes are mapped to them or not.

    Attributes:
        rules: lead to others; those they come from are known as well.
        namesakes: which of several tables of one name a database has.

    Args:
        section: its patterns may name tables that nothing else does.
        policy: decides about those.
        plans: of the tables that are known.
    """

    def __init__(self, section: SQLAlchemyConfig, policy: TablePolicy, plans: Plans) -> None:
        self._section = section
        self._policy = policy
        self.plans = plans
        self.namesakes = Namesakes()
        self._made: weakref.WeakSet[Table] = weakref.WeakSet()
        self.rules: DatabaseRules | None = None
        self._count = 0
        self._stamp: tuple[int, int] | None = None
        self._known = _NamedTables(plans)

    def made(self, table: Any, *parent: Any) -> None:
        """Listen to ``Table.after_parent_attach``: a table was made, with or without columns."""
        if OURS not in table.info:
            self._made.add(table)
            self._count += 1

    def changed(self) -> None:
        """Look anew: the rules of a database lead to others than before."""
        self._count += 1

    def used(self, database: str, table: Any) -> bool:
        """Note which database a table is written in; say whether names may mean others since."""
        if isinstance(table, Table) and table not in self._now().tables:  # made before we listened
            self._made.add(table)
            self._count += 1
        return self.namesakes.used(database, table) and bool(self._now().shared)

    def known(self) -> RawTables:
        """Return them as they are now, those of all databases."""
        return self._now()

    def here(self, database: str, dialect: Any) -> Planned:
        """Return them as a database has them."""
        known = self._now()
        return _Here(self, known, database, dialect) if known.shared else known

    def _now(self) -> _NamedTables:
        stamp = self.stamp()
        if self._stamp != stamp:
            self._known = self._look()
            self._stamp = stamp  # if others came meanwhile, the next one looks again
        return self._known

    def stamp(self) -> tuple[int, int]:
        """Return what changes whenever there is another table, or another decision about one."""
        return self.plans.generation, self._count

    def all(self) -> Iterable[Table]:
        """Return all tables that are known, audited or not."""
        return dict.fromkeys([*all_tables(), *snapshot(self._made)])

    def _look(self) -> _NamedTables:
        found = _NamedTables(self.plans)
        tables = list(self.all())
        found.tables.update(tables)
        named = by_name(tables)
        for table in chain.from_iterable(named.values()):
            if self.plans.audits(table):
                found.add_table(table)
        for leading in () if self.rules is None else self.rules.unaudited():
            if leading.table:
                found.add(leading, instead=False)
        found.shared = {name: tables for name, tables in named.items() if len(tables) > 1 and found.has(name)}
        for name in self._section.models:
            if name and _WILD.isdisjoint(name):
                settings = self._policy.decide(Subject(name, tables=(name,))).settings
                if settings.audited:
                    found.add(TablePlan(name, name, (), (), settings), instead=False)
        return found


class TextRunning:
    """A statement of the application's text, from before its cursor runs until it is noted.

    Attributes:
        state: its connection.
        count: the driver's row count, of one call of its or of several.
        is_counted: the driver knows how many rows it wrote as soon as it has run.

    Args:
        state: its connection.
        raw: what it writes to audited tables.
        effect: what it does to the transaction.
        schema_changed: what to call once it has changed the schema.
        counts: see ``is_counted``.
    """

    __slots__ = ("_aborted", "_effect", "_raw", "_schema_changed", "count", "is_counted", "state")

    def __init__(
        self,
        state: SQLAlchemyConnection,
        raw: RawStatement | None,
        effect: Effect | None,
        schema_changed: Callable[[], None] | None = None,
        *,
        counts: bool = True,
    ) -> None:
        self.state = state
        self.count: Any = None
        self.is_counted = counts
        self._raw = raw
        self._effect = effect
        self._schema_changed = schema_changed
        self._aborted = False

    def begin(self) -> None:
        """Announce it: in autocommit, and before a COMMIT, the intents are on disk when this returns.

        Raises:
            AuditError: they cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        if self._raw is not None:
            self._raw.begin()
        if self._effect is not None and self._effect.kind == "commit":
            state = self.state
            self._aborted = state.is_aborted()
            if state.pending and not self._aborted:
                state.before_commit()

    def ran(self, cursor: Any) -> None:
        """Count the rows of one call of the driver's."""
        if self.is_counted:
            count = getattr(cursor, "rowcount", None)
            self.count = count if self.count is None or count is None else self.count + count

    def done(self) -> None:
        """Note that it ran.

        Raises:
            AuditError: a record cannot be kept and ``on_error`` is ``fail_closed``.
        """
        try:
            self._end()
            if self._raw is not None:
                self._raw.done(self.count)
        except BaseException as error:
            if interrupts(error) and self._raw is not None:
                self._raw.finish()
            raise
        if self._schema_changed is not None:
            self._schema_changed()

    def _end(self) -> None:
        state, effect = self.state, self._effect
        if effect is None:
            return
        state.ended = state.ended or effect.kind in ("commit", "rollback")
        if effect.kind != "commit":
            state.apply(effect)
            # A script that begins a transaction may have ended it, too.
            if effect.kind == "begin" and self._raw is not None and state.is_open() is False:
                state.raw = False
        elif self._aborted:
            state.rolled_back()
        else:
            state.committed()
            state.raw = effect.chained

    def failed(self, error: BaseException, *, refused: bool) -> None:
        """Note that it raised. Never raises."""
        if self._raw is not None:
            self._raw.failed(error, refused=refused)
        if self._effect is not None and self._effect.kind == "commit":
            self.state.failed_commit(error, refused=refused)


class Texts:
    """What the text of statements does.

    Args:
        tables: those that are audited.
        transactions: has ours of each connection.
        failures: takes our own.
        schema_changed: is called when a statement has changed a table.
    """

    def __init__(
        self,
        tables: Tables,
        transactions: Transactions,
        failures: Failures,
        schema_changed: Callable[[], None],
    ) -> None:
        self._tables = tables
        self._transactions = transactions
        self._failures = failures
        self._schema_changed = schema_changed

    def writes(self, sql: str, connection: Any) -> bool:
        """Say whether a statement names an audited table as what it writes to."""
        text = self._read(sql, connection)
        if text is None:
            return False
        here = self._tables.here(self._transactions.database_of(connection), connection.dialect)
        return any(here.plan(table, schema).audited for _, table, schema in text.writes)

    def _read(self, sql: str, connection: Any) -> SqlText | None:
        try:
            return self._tables.known().read(sql, connection.dialect.name)
        except faults() as error:
            self._failures.report("raw SQL", error, lost=1)
            return None

    def begin(self, connection: Any, sql: Any, context: Any) -> TextRunning | None:
        """Announce a statement; None if there is nothing to say of it.

        Raises:
            AuditError: a record cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        if type(sql) is not str:
            if not isinstance(sql, str):
                return None
            sql = str.__str__(sql)
        text = self._read(sql, connection)
        if context.isddl:
            self._made(connection, context)
        # What SQLAlchemy compiles ends and marks no transactions, except by what changes the schema.
        plain = sql[:2] in ORDINARY or is_ordinary(sql) or not (context.is_text or context.isddl)
        if text is None and plain:
            return None
        try:
            running = self._running(connection, sql, context, text, plain)
        except faults() as error:  # a connection that has no place for ours: it is being initialized
            self._failures.report("raw SQL", error, lost=0 if text is None else 1)
            return None
        if running is not None:
            running.begin()
        return running

    def _made(self, connection: Any, context: Any) -> None:
        """Note whose database has a table: who makes one knows."""
        try:
            table = getattr(context.compiled.statement, "element", None)
            self._tables.used(self._transactions.database_of(connection), table)
        except faults() as error:
            self._failures.note(
                "look at a statement", error, instead="which database it is of is learnt later"
            )

    def _running(
        self, connection: Any, sql: str, context: Any, text: SqlText | None, plain: bool
    ) -> TextRunning | None:
        state = self._transactions.peek(connection)
        effect = None
        changed: Callable[[], None] | None = None
        if not plain:
            effect = effect_of(sql, dbapi.dialect(connection.dialect.name).implicit_commits)
            if sql.split(None, 1)[0].upper() in _SCHEMA_CHANGES:
                changed = self._schema_changed
        if state is not None and state.committing:
            effect = None  # the dialect's own, of a commit in two phases
        if (
            text is None
            and changed is None
            and (effect is None or (state is None and effect.kind not in ("begin", "savepoint")))
        ):
            return None
        if state is None:
            state = self._transactions.of(connection)
        effect = state.meant(effect)
        raw = None
        if text is not None:
            alone = None if effect is None else effect.kind != "begin"
            raw = self._raw(connection, state, context, text, alone)
        # SQLite knows it only when what RETURNING gives has been fetched.
        counts = connection.dialect.name != "sqlite" or "RETURNING" not in sql.upper()
        return TextRunning(state, raw, effect, changed, counts=counts)

    def beside(self, connection: Any, sql: str, context: Any) -> TextRunning | None:
        """Announce what the CTEs of a statement write whose own table is captured."""
        text = self._read(sql, connection)
        writes = tuple(dict.fromkeys(self._in_ctes(context)))
        if text is None or not writes:
            return None
        state = self._transactions.of(connection)
        text = text._replace(writes=writes, counts=False)
        # The driver's count is that of the statement itself.
        running = TextRunning(state, self._raw(connection, state, context, text, None), None)
        running.begin()
        return running

    def _in_ctes(self, context: Any) -> Iterator[Write]:
        known = self._tables.known()
        for verb, table in written_in_ctes(context.compiled):
            if table.name and known.has(folded(table.name)):
                schema = translated(getattr(table, "schema", None), context)
                yield Write(verb, folded(table.name), schema or "")

    def _raw(
        self, connection: Any, state: SQLAlchemyConnection, context: Any, text: SqlText, alone: bool | None
    ) -> RawStatement:
        state.alone = commits_by_itself(connection, state)

        def aim(plan: TablePlan, schema: str | None) -> None:
            own = translated(getattr(plan, "schema", None), context) if schema is None else schema
            state.in_schema(own)
            state.doubtful.add(plan.table)

        return RawStatement(
            state,
            self._tables.here(state.known_as, connection.dialect),
            text,
            alone=alone,
            aim=aim,
            beyond=beyond(self._tables, connection, state, text),
        )


def beyond(
    tables: Tables, connection: Any, state: SQLAlchemyConnection, text: SqlText
) -> Sequence[tuple[TablePlan, Verb]]:
    """Return the tables whose rows the database may delete or change with those that text writes."""
    rules, here = tables.rules, tables.here(state.known_as, connection.dialect)
    if rules is None:
        return ()
    sets = Assigned(text.text)
    plans = [(here.plan(table, schema), verb) for verb, table, schema in text.writes]
    found = dict.fromkeys(
        each for plan, verb in plans for each in rules.reached(plan, verb, connection, state, sets)
    )
    if found and state.system == "sqlite":
        reader = Reader(connection, state, next(iter(found))[0], "delete", {})
        if not reader.value("PRAGMA foreign_keys"):
            return ()
    return list(found)


class Assigned:
    """Says whether an UPDATE sets a column, by the names that stand before ``=`` and outside its condition.

    Args:
        text: of the statement, without values.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._names: set[str] | None = None

    def __call__(self, column: str) -> bool:
        if self._names is None:
            end = max((found.start() for found in _WHERE.finditer(self._text)), default=len(self._text))
            self._names = {name.lower() for name in _ASSIGNED.findall(self._text, 0, end)}
        return column.lower() in self._names


_WHERE: Final = re.compile(r"\bWHERE\b", re.IGNORECASE)
_ASSIGNED: Final = re.compile(r"([^\W\d]\w*)[\"`\]]?\s?=")


def written_in_ctes(compiled: Any) -> Iterator[tuple[Verb, Any]]:
    """Yield what the CTEs of a compiled statement write, and to which tables."""
    for cte in getattr(compiled, "ctes", None) or ():
        element = bare(cte.element)
        if isinstance(element, UpdateBase):
            verb: Verb = "create" if element.is_insert else "update" if element.is_update else "delete"
            yield verb, bare(element.table)
