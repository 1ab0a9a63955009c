"""Write capture: what the listeners share, and the one place each event of a statement comes to.

All that is to be known before a statement runs is known when its cursor is about to: the statement is
compiled, its parameters have their defaults, and its transaction has begun. What was found out waits in the
execution context, which the events afterwards have as well.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import Insert

from otel_audit.capture.opt_in import CodeRule, listen, unlisten
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.errors import AuditError
from otel_audit.instrumentation.sqlalchemy.connection import (
    SQLAlchemyConnection,
    Transactions,
    commits_by_itself,
)
from otel_audit.instrumentation.sqlalchemy.plan import Plans
from otel_audit.instrumentation.sqlalchemy.writes import delete, insert, update
from otel_audit.instrumentation.sqlalchemy.writes.cascades import Cascade, Rules, shape_beside
from otel_audit.instrumentation.sqlalchemy.writes.keys import with_keys
from otel_audit.instrumentation.sqlalchemy.writes.returned import returned_rows
from otel_audit.instrumentation.sqlalchemy.writes.running import Running
from otel_audit.instrumentation.sqlalchemy.writes.shape import Shape, emitted_table, shape_of
from otel_audit.instrumentation.sqlalchemy.writes.text import (
    Tables,
    TextRunning,
    Texts,
    note,
    written_in_ctes,
)
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline

_RUNNING: Final = "_otel_audit"
"""Where a :class:`Running` or a :class:`TextRunning` waits in the execution context."""
_BESIDE: Final = "_otel_audit_beside"
"""Where what the CTEs of a captured statement write waits there."""
_CASCADE: Final = "_otel_audit_cascade"
"""Where the rows that the database deletes with those of a statement wait there."""
_BY_TEXT: Final = object()
"""Stands for the shape of a statement that says by its text alone that it writes to an audited table."""
_VERBS: Final = {"create": insert, "update": update, "delete": delete}


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
        self.rules = self.tables.rules = Rules(self.tables, self.plans)
        self._shapes: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._beside: weakref.WeakSet[Any] = weakref.WeakSet()
        self._any_beside = False

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
        self._shapes = weakref.WeakKeyDictionary()

    def schema_changed(self) -> None:
        self.catalog.clear()

    # --- listeners ---------------------------------------------------------------------------------

    def before_execute(
        self, connection: Any, element: Any, multiparams: Any, params: Any, options: Any
    ) -> tuple[Any, Any, Any]:
        """Listen to ``Engine.before_execute``: have an INSERT of many rows return their keys."""
        if multiparams and len(multiparams) > 1 and isinstance(element, Insert):
            try:
                plan = self.plans.of(emitted_table(element))
                if plan is not None and plan.audited:
                    element = with_keys(self.section, plan, connection.dialect, element, multiparams)
            except faults() as error:
                self.failures.note("ask for keys", error)
        return element, multiparams, params

    def before_cursor_execute(
        self, connection: Any, cursor: Any, sql: Any, parameters: Any, context: Any, executemany: Any
    ) -> None:
        """Listen to ``Engine.before_cursor_execute``: find out what will be gone afterwards."""
        if context is None:
            return
        compiled = context.compiled
        if compiled is None or not (context.isinsert or context.isupdate or context.isdelete):
            # What a SELECT calls cannot be known: only a second statement could write.
            if sql[:7] != "SELECT " or ";" in sql:
                self._begin_text(connection, sql, context)
            return
        try:
            shape = self._shapes[compiled]
        except KeyError:
            shape = self._look_at(connection, compiled, sql)
        if shape is None or _RUNNING in context.__dict__:  # the further parts of one INSERT
            return
        if shape is _BY_TEXT:
            self._begin_text(connection, sql, context)
            return
        self._begin(connection, context, shape)
        if self._any_beside and compiled in self._beside:
            context.__dict__[_BESIDE] = self.texts.beside(connection, sql, context)

    def _begin_text(self, connection: Any, sql: str, context: Any) -> None:
        running = self.texts.begin(connection, sql, context)
        if running is not None:
            context.__dict__[_RUNNING] = running

    def _look_at(self, connection: Any, compiled: Any, sql: str) -> Any:
        shapes = self._shapes
        shape: Any = None
        try:
            shape = shape_of(compiled, self.plans)
            if shape is None and compiled.isdelete:
                shape = shape_beside(compiled, self.rules)
            if shape is not None and next(written_in_ctes(compiled), None) is not None:
                self._beside.add(compiled)
                self._any_beside = True
        except faults() as error:
            self.failures.report("look at a statement", error)
        # A table by its name only, another object for one that a class is mapped to, a CTE that writes.
        if shape is None and self.texts.writes(sql, connection):
            shape = _BY_TEXT
        shapes[compiled] = shape
        return shape

    def _begin(self, connection: Any, context: Any, shape: Shape) -> None:
        state = self.transactions.of(connection)
        state.alone = commits_by_itself(connection, state)
        state.in_schema(_schema(shape, context))
        running = Running(self.section, self.catalog, connection, state, context, shape)
        context.__dict__[_RUNNING] = running
        intent = None
        if not shape.plan.audited:
            self._begin_cascade(running)
            return
        try:
            intent = _VERBS[shape.verb].prepare(running)
        except (AuditError, DBAPIError):
            raise
        except faults() as error:
            self.failures.report(f"before {shape.verb}", error)
        running.statement.begin(intent)
        if shape.verb == "delete":
            self._begin_cascade(running)

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

    def after_cursor_execute(
        self, connection: Any, cursor: Any, sql: Any, parameters: Any, context: Any, executemany: Any
    ) -> None:
        """Listen to ``Engine.after_cursor_execute``: count rows, which some drivers forget soon."""
        running: Any = None if context is None else context.__dict__.get(_RUNNING)
        if running is None:
            return
        if type(running) is TextRunning:
            del context.__dict__[_RUNNING]
            self._note_text(connection, running, cursor, sql)
            return
        try:
            running.ran(cursor)
        except faults() as error:
            self.failures.note("count rows", error)

    def _note_text(self, connection: Any, running: TextRunning, cursor: Any, sql: str) -> None:
        note(running, cursor, sql, connection.dialect.name, self.failures)
        self._after(running.state)

    def after_execute(
        self, connection: Any, element: Any, multiparams: Any, params: Any, options: Any, result: Any
    ) -> None:
        """Listen to ``Engine.after_execute``: note what the statement did."""
        context = getattr(result, "context", None)
        if context is None:  # of a default or a sequence, which is executed for its value
            return
        running: Running | None = context.__dict__.pop(_RUNNING, None)
        if running is not None:
            running.result = result
            self._note(running)
            beside = context.__dict__.pop(_BESIDE, None) if self._any_beside else None
            if beside is not None:
                self._note_text(running.connection, beside, context.cursor, "RETURNING")

    def _note(self, running: Running) -> None:
        statement = running.statement
        cascade: Cascade | None = None
        if running.shape.verb == "delete":
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

    def _after(self, state: SQLAlchemyConnection) -> None:
        if state.committing and state.pending:  # a listener of the application's writes while COMMIT is sent
            state.before_commit()

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
                        each.statement.failed(error, sent=True, refused=refused, intent=each.intent)
        except faults() as fault:
            self.failures.note("failed statement", fault)


def _schema(shape: Shape, context: Any) -> str | None:
    """Return the schema that a statement writes to, as its execution options translate it."""
    schema = shape.plan.schema
    translated = context.execution_options.get("schema_translate_map")
    if translated:
        found = translated.get(schema, schema)
        return None if found is None else str(found)
    return schema
