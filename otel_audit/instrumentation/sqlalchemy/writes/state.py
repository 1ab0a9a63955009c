"""Write capture: the one place that each statement comes to, and what is kept from one to the next.

All that is to be known before a statement runs is known when its cursor is about to: the statement is
compiled, its parameters have their defaults, and its transaction has begun. What was found out waits in the
execution context, which is all that an error brings.

The methods of a connection that run a cursor are wrapped, not listened to: with a single listener to engines,
every statement pays more for the events than for all that is done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from otel_audit.capture.opt_in import CodeRule, listen, unlisten
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.errors import AuditError
from otel_audit.instrumentation.sqlalchemy.connection import (
    SQLAlchemyConnection,
    Transactions,
    commits_by_itself,
)
from otel_audit.instrumentation.sqlalchemy.plan import Plans
from otel_audit.instrumentation.sqlalchemy.tables import translated
from otel_audit.instrumentation.sqlalchemy.writes import delete, insert, update
from otel_audit.instrumentation.sqlalchemy.writes.cascades.rows import Cascade
from otel_audit.instrumentation.sqlalchemy.writes.cascades.rules import Rules, shape_beside
from otel_audit.instrumentation.sqlalchemy.writes.keys import as_without_keys, with_keys
from otel_audit.instrumentation.sqlalchemy.writes.raw.text import (
    Tables,
    TextRunning,
    Texts,
    written_in_ctes,
)
from otel_audit.instrumentation.sqlalchemy.writes.returned import returned_rows
from otel_audit.instrumentation.sqlalchemy.writes.running import Running
from otel_audit.instrumentation.sqlalchemy.writes.shape import Shape, compiled_table, emitted_table, shape_of
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_audit.capture.writes import CapturedWrite
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline

_RUNNING: Final = "_otel_audit"
"""Where a :class:`Running` or a :class:`TextRunning` waits in the execution context."""
_BESIDE: Final = "_otel_audit_beside"
"""Where what the CTEs of a captured statement write waits there."""
_CASCADE: Final = "_otel_audit_cascade"
"""Where the rows that the database deletes with those of a statement wait there."""
_DECIDED: Final = "_otel_audit"
"""Where the decision about it stands in a compiled statement."""
_BY_TEXT: Final = object()
"""Stands for the shape of a statement that says by its text alone that it writes to an audited table."""
_VERBS: Final = {"create": insert, "update": update, "delete": delete}


class _Decision(NamedTuple):
    """What a compiled INSERT, UPDATE or DELETE is to us.

    ``since`` tells decisions apart that were made before tables or classes changed; ``shape`` is None where
    its table is not audited, :data:`_BY_TEXT` or a :class:`Shape`; ``beside``: its CTEs write as well.
    """

    since: object
    shape: Any
    beside: bool


class Capture(CaptureState):
    """The state of write capture in this process, and the plans of the tables it has met."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None = None) -> None:
        super().__init__("SQLAlchemy", config, config.sqlalchemy, pipeline)
        self.section = config.sqlalchemy
        self.plans = Plans(config, self.policy)
        self.transactions = Transactions(self)
        self.catalog: dict[Any, Any] = {}
        self.tables = Tables(self.section, self.policy, self.plans)
        self.texts = Texts(self.tables, self.transactions, self.failures, self.schema_changed)
        self._since = object()
        self._looked_for_mistakes = False
        self.rules = self.tables.rules = Rules(
            self.tables, self.plans, self.catalog, self.failures, self._decide_anew
        )

    def start(self) -> None:
        """Hear what code says of models from now on."""
        listen(self._code_has_said)

    def stop(self) -> None:
        """Undo :meth:`start`."""
        unlisten(self._code_has_said)

    def _code_has_said(self, rules: Sequence[CodeRule]) -> None:
        self.forget()

    def forget(self, *mapped: Any) -> None:
        """Decide about every table anew, when it is next written."""
        self.plans.forget()
        self._decide_anew()

    def _decide_anew(self) -> None:
        self._since = object()

    def _look_for_mistakes(self) -> None:
        self._looked_for_mistakes = True
        try:
            from otel_audit.instrumentation.sqlalchemy.mistakes import say_what_matches_nothing

            say_what_matches_nothing(self.section, self.tables.all())
        except faults() as error:
            self.failures.note("look at the configuration", error, instead="everything is recorded")

    def schema_changed(self) -> None:
        self.catalog.clear()

    # --- wrappers ----------------------------------------------------------------------------------

    def execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._exec_single_context``: one call of the driver's."""

        # Every statement comes here: no arguments are gathered, nothing is called for those not audited.
        def execute(connection: Any, dialect: Any, context: Any, statement: Any, parameters: Any) -> Any:
            if not context.is_crud:
                sql = context.statement
                # What a SELECT calls cannot be known: only a second statement could write.
                if type(sql) is str and sql[:7] == "SELECT " and ";" not in sql:
                    return original(connection, dialect, context, statement, parameters)
            running = self._begin(connection, context)
            if running is None:
                return original(connection, dialect, context, statement, parameters)
            self._count_when_run(running, context)
            result = original(connection, dialect, context, statement, parameters)
            return self._noted(running, context, result)

        return execute

    def execute_many(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._exec_insertmany_context``: an INSERT that takes a call for some rows each."""

        def execute(connection: Any, dialect: Any, context: Any, *args: Any) -> Any:
            running = self._begin(connection, context)
            result = original(connection, dialect, context, *args)
            return result if running is None else self._noted(running, context, result)

        return execute

    def batches(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``DefaultDialect._deliver_insertmanyvalues_batches``: count the rows of each."""

        def batches(dialect: Any, connection: Any, cursor: Any, *args: Any) -> Iterator[Any]:
            running = args[-1].__dict__.get(_RUNNING)
            made: Iterator[Any] = original(dialect, connection, cursor, *args)
            if running is None or not running.is_counted:  # one step less for each row, where each is a batch
                return made
            return self._counted(running, cursor, made)

        return batches

    def _counted(self, running: Running, cursor: Any, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch
            self._count(running, cursor)

    def execute_insert(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Insert._execute_on_connection``: have an INSERT of many rows return their keys."""

        def execute(element: Any, connection: Any, parameters: Any, *args: Any) -> Any:
            asking = element
            if parameters and len(parameters) > 1:
                try:
                    plan = self.plans.of(emitted_table(element))
                    if plan is not None and plan.audited:
                        asking = with_keys(self.section, plan, connection.dialect, element, parameters)
                except faults() as error:
                    self.failures.note("ask for keys", error)
            result = original(asking, connection, parameters, *args)
            if asking is not element:
                try:
                    as_without_keys(result, connection.dialect, parameters)
                except faults() as error:
                    self.failures.note("ask for keys", error, instead="the record has the keys")
            return result

        return execute

    # --- one statement -----------------------------------------------------------------------------

    def _begin(self, connection: Any, context: Any) -> Running | TextRunning | None:
        """Announce what a statement is about to write; None if that is nothing to us."""
        if not context.is_crud:
            return self._begin_text(connection, context)
        compiled = context.compiled
        decision: _Decision | None = compiled.__dict__.get(_DECIDED)
        if decision is None or decision.since is not self._since:
            decision = self._decide(connection, compiled, context.statement)
        shape = decision.shape
        if shape is None:
            return None
        if shape is _BY_TEXT:
            return self._begin_text(connection, context)
        running = self._begin_shape(connection, context, shape)
        if decision.beside:
            context.__dict__[_BESIDE] = self.texts.beside(connection, context.statement, context)
        return running

    def _decide(self, connection: Any, compiled: Any, sql: str) -> _Decision:
        if not self._looked_for_mistakes:
            self._look_for_mistakes()
        since, shape, beside = self._since, None, False
        try:
            if self.tables.used(self.transactions.database_of(connection), compiled_table(compiled)):
                self._decide_anew()
                since = self._since
            shape = shape_of(compiled, self.plans)
            if shape is None and not compiled.isinsert:
                shape = self._beside(connection, compiled)
            beside = shape is not None and next(written_in_ctes(compiled), None) is not None
        except faults() as error:
            self.failures.report("look at a statement", error)
        # A table by its name only, another object for one that a class is mapped to, a CTE that writes.
        by_text = shape is None and self.texts.writes(sql, connection)
        decision = _Decision(since, _BY_TEXT if by_text else shape, beside)
        compiled.__dict__[_DECIDED] = decision
        return decision

    def _beside(self, connection: Any, compiled: Any) -> Shape | None:
        """Return what a statement on a table that is not audited writes, if rules lead to one that is."""
        try:
            state = self.transactions.of(connection)
        except faults():  # a connection that has no place for ours
            return None
        return shape_beside(compiled, self.rules, connection, state)

    def _begin_text(self, connection: Any, context: Any) -> TextRunning | None:
        running = self.texts.begin(connection, context.statement, context)
        if running is not None:
            context.__dict__[_RUNNING] = running
        return running

    def _begin_shape(self, connection: Any, context: Any, shape: Shape) -> Running:
        state = self.transactions.of(connection)
        state.alone = commits_by_itself(connection, state)
        state.in_schema(translated(shape.plan.schema, context))
        running = Running(self.section, self.catalog, connection, state, context, shape)
        context.__dict__[_RUNNING] = running
        if not shape.plan.audited:
            self._begin_cascade(running)
            return running
        try:
            _VERBS[shape.verb].prepare(running)
        except (AuditError, DBAPIError):
            raise
        except faults() as error:
            self.failures.report(f"before {shape.verb}", error)
        if shape.verb != "create":
            # Reads, and may raise what the database says: nothing is announced yet.
            self._begin_cascade(running)
        if running.statement.autocommit:
            running.statement.begin(self._intent(running))
        return running

    def _intent(self, running: Running) -> CapturedWrite | None:
        """Return what is known of a statement that may fail; of most that is never asked."""
        try:
            known: CapturedWrite = _VERBS[running.shape.verb].intent(running)
            return known
        except faults() as error:
            self.failures.report(f"intent of {running.shape.verb}", error)
            return None

    def _begin_cascade(self, running: Running) -> None:
        try:
            cascade = Cascade.of(running, self.rules)
            if cascade is not None:
                running.context.__dict__[_CASCADE] = cascade
                cascade.prepare()
        except (AuditError, DBAPIError):
            raise
        except faults() as error:
            self.failures.report("cascade", error)

    def _count_when_run(self, running: Running | TextRunning, context: Any) -> None:
        """Have the rows counted as soon as the cursor has run: some drivers forget their number soon."""

        def post_exec() -> None:
            del context.post_exec  # from here on it is that of its class again
            self._count(running, context.cursor)
            context.post_exec()

        context.post_exec = post_exec

    def _count(self, running: Running | TextRunning, cursor: Any) -> None:
        try:
            running.ran(cursor)
        except faults() as error:
            self.failures.note("count rows", error)

    def _noted(self, running: Running | TextRunning, context: Any, result: Any) -> Any:
        """Note what a statement has done; return its result."""
        waiting = context.__dict__
        waiting.pop(_RUNNING, None)
        if type(running) is TextRunning:
            self._note_text(running)
            return result
        assert isinstance(running, Running)
        running.result = result
        self._note(running)
        beside = waiting.pop(_BESIDE, None)
        if beside is not None:
            self._note_text(beside)
        return result

    def _note(self, running: Running) -> None:
        statement = running.statement
        cascade: Cascade | None = None
        if running.shape.verb != "create":
            cascade = running.context.__dict__.pop(_CASCADE, None)
        if not running.shape.plan.audited:
            self._note_cascade(running, cascade)
            return
        try:
            statement.ran()
            if running.count is None and running.shape.verb != "create":
                rows = returned_rows(running)
                running.count = None if rows is None else len(rows)
            if cascade is not None:
                cascade.deleted()
            writes = _VERBS[running.shape.verb].note(running)
            statement.done(*writes)
            self._note_cascade(running, cascade)
            self._after(running.state)
        except AuditError:
            raise
        except faults() as error:
            statement.recover(error, running.count)

    def _note_cascade(self, running: Running, cascade: Cascade | None) -> None:
        if cascade is None:
            return
        try:
            cascade.done()
        except AuditError:
            raise
        except faults() as error:
            self.failures.report("cascade", error, lost=1)

    def _note_text(self, running: TextRunning) -> None:
        try:
            running.done()
        except AuditError:
            raise
        except faults() as error:
            self.failures.report("raw SQL", error, lost=1)
        self._after(running.state)

    def _after(self, state: SQLAlchemyConnection) -> None:
        if state.committing and state.pending:  # a listener of the application's writes while COMMIT is sent
            state.before_commit()

    # --- listeners ---------------------------------------------------------------------------------

    def handle_error(self, exception_context: Any) -> None:
        """Listen to ``Engine.handle_error``: a statement raised, or COMMIT, which is looked at elsewhere."""
        context = exception_context.execution_context
        connection = exception_context.connection
        if context is None or connection is None:
            return
        try:
            state = self.transactions.peek(connection)
            if state is not None:
                state.statement_failed()
            running: Any = context.__dict__.pop(_RUNNING, None)
            if running is not None:
                context.__dict__.pop("post_exec", None)
                error = exception_context.original_exception
                refused = (
                    exception_context.sqlalchemy_exception is not None
                    and isinstance(error, connection.dialect.loaded_dbapi.Error)
                    and not exception_context.is_disconnect
                )
                beside = context.__dict__.pop(_BESIDE, None), context.__dict__.pop(_CASCADE, None)
                for each in (running, *beside):
                    if isinstance(each, TextRunning | Cascade):
                        each.failed(error, refused=refused)
                    elif each is not None and each.shape.plan.audited:
                        intent = self._intent(each)
                        each.statement.failed(error, sent=True, refused=refused, intent=intent)
        except faults() as fault:
            self.failures.note("failed statement", fault)
