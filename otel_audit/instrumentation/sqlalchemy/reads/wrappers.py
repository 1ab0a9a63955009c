"""Records reads of sensitive tables: one per statement and table, with the rows and fields it displayed.

Everything that SQLAlchemy selects comes through ``Connection._exec_single_context``: entities and columns,
Core and the ORM, whatever the ORM loads by itself. A read has happened whatever becomes of the transaction it
was made in, so it does not wait for a commit. Nothing is wrapped before the reads of some table are to be
recorded.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otel_audit.audit_record import Database
from otel_audit.capture.opt_in import (
    ATTRIBUTE,
    CodeRule,
    code_rules,
    listen,
    owner_of_attribute,
    unlisten,
)
from otel_audit.capture.reads import Reading, ReadRecords, Tally
from otel_audit.instrumentation.patching import AppliedPatches, Listener, Patch
from otel_audit.instrumentation.sqlalchemy.reads.fetching import Fetched, WatchedAnswer, WatchedRows
from otel_audit.instrumentation.sqlalchemy.reads.plan import Displayed, displayed_by
from otel_audit.instrumentation.sqlalchemy.reads.text import TextReads
from otel_audit.instrumentation.sqlalchemy.tables import all_mappers, translated
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.writes.state import Capture
    from otel_audit.pipeline.logger import AuditLogger

_KEY: Final = "otel_audit.reads"
"""Where results that are not on record yet wait in the ``info`` of a connection."""

_internal: ContextVar[bool] = ContextVar("otel_audit_internal_reads", default=False)
"""Statements in this context are the ORM's own errands, or ours."""


class ReadCapture:
    """Looks at results, from the first table on whose reads are to be recorded.

    Args:
        capture: what it shares with the capture of writes.
        patches: list what is wrapped and listened to once there is such a table.
    """

    def __init__(
        self, capture: Capture, patches: Callable[[ReadCapture], Sequence[Patch | Listener]]
    ) -> None:
        self._capture = capture
        self._failures = capture.failures
        self._max_keys = capture.section.max_read_ids
        self._listed = patches
        self._patches = AppliedPatches()
        self._switch = threading.Lock()
        self._on = False
        self._displayed: weakref.WeakKeyDictionary[Any, Displayed | None] = weakref.WeakKeyDictionary()
        self._texts = TextReads(capture)
        self._left: deque[Fetched] = deque()

    def start(self) -> None:
        """Look at what is said of the tables there are, and notice what is said from now on."""
        listen(self._opted_in)
        section = self._capture.section
        if (
            any(not pattern.startswith("!") for pattern in section.reads)
            or any(model.reads for model in section.model.values())
            or any(rule.said.reads for rule in code_rules())
            or any(self._says(mapper.class_) for mapper in all_mappers())
        ):
            self._switch_on()

    def stop(self) -> None:
        """Undo :meth:`start`."""
        unlisten(self._opted_in)
        with self._switch:
            self._on = False
            self._patches.undo()

    def forget(self) -> None:
        """Decide anew about every statement, when it is next executed."""
        self._displayed = weakref.WeakKeyDictionary()

    def _switch_on(self) -> None:
        with self._switch:
            if not self._on:
                self._on = True
                self._patches.apply(self._listed(self))

    def _opted_in(self, rules: Sequence[CodeRule]) -> None:
        self.forget()
        try:
            if any(rule.said.reads for rule in rules):
                self._switch_on()
        except faults() as error:
            self._failures.note("audit_models", error)

    @staticmethod
    def _says(model: type[Any]) -> bool:
        """Say whether a class may have its reads recorded; what else it says is looked at elsewhere."""
        owner = owner_of_attribute(model)
        said = None if owner is None else vars(owner)[ATTRIBUTE]
        return isinstance(said, Mapping) and "reads" in said

    # --- listeners ---------------------------------------------------------------------------------

    def instrumented(self, mapper: Any, cls: type[Any]) -> None:
        """Listen to ``Mapper.instrument_class``: it may say that its reads are to be recorded."""
        self.forget()
        try:
            if self._says(cls):
                self._switch_on()
        except faults() as error:  # what is wrong with it is said when it is mapped
            self._failures.note("instrument_class", error)

    def reset(self, driver: Any, record: Any, reset_state: Any) -> None:
        """Listen to ``Pool.reset``: nobody fetches any more from results of a connection."""
        self.gone(driver, record)

    def gone(self, driver: Any, record: Any, *error: Any) -> None:
        """Listen to ``Pool.close`` and ``Pool.invalidate``: the same."""
        try:
            waiting = getattr(record, "info", {}).pop(_KEY, None)
            for fetched in list(waiting or ()):
                fetched.finish()
            self._finish_left()
        except faults() as error:
            self._failures.note("read", error)

    # --- wrappers ----------------------------------------------------------------------------------

    def execute(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._exec_single_context``: look at rows of what displays sensitive tables."""

        def execute(connection: Any, dialect: Any, context: Any, *args: Any) -> Any:
            result = original(connection, dialect, context, *args)
            compiled = context.compiled
            displayed = None
            if compiled is not None:
                try:
                    displayed = self._displayed[compiled]
                except KeyError:
                    displayed = self._look_at(compiled, context)
            if displayed is None and (compiled is None or (context.is_text and not compiled._result_columns)):
                displayed = self._texts.displayed(context, result)
            if displayed is not None and not _internal.get():
                self._watch(displayed, connection, context, result)
            return result

        return execute

    def internal(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method of the ORM's whose own statements display nothing to anybody."""

        @functools.wraps(original)
        def not_a_read(*args: Any, **kwargs: Any) -> Any:
            return _internally(original, *args, **kwargs)

        return not_a_read

    # --- recording ---------------------------------------------------------------------------------

    def _look_at(self, compiled: Any, context: Any) -> Displayed | None:
        known = self._displayed
        displayed = None
        try:
            if not (context.isinsert or context.isupdate or context.isdelete):
                description = context.cursor.description or ()
                displayed = displayed_by(compiled, self._capture.plans, description)
        except faults() as error:
            self._failures.report("read", error, lost=1)
        known[compiled] = displayed
        return displayed

    def _watch(self, displayed: Displayed, connection: Any, context: Any, result: Any) -> None:
        logger = self._capture.logger()
        if logger is None or result.cursor is None:
            return
        try:
            self._finish_left()
            records = _internally(self._records, logger, displayed, connection, context)
            inner = result.cursor_strategy
            if displayed.kind != "rows":
                keep = functools.partial(self._keep_answer, records, displayed)
                result.cursor_strategy = WatchedAnswer(inner, keep)
                return
            tallies = [
                Tally(reading, list(readers), self._max_keys) for reading, readers in displayed.readings
            ]
            info = connection._dbapi_connection.info
            fetched = Fetched(records, tallies, _internally, functools.partial(_forget, info))
            result.cursor_strategy = _Watched(
                inner, fetched, functools.partial(_begin, info), self._left.append
            )
        except faults() as error:
            self._failures.report("read", error, lost=1)

    def _records(
        self, logger: AuditLogger, displayed: Displayed, connection: Any, context: Any
    ) -> ReadRecords:
        state = self._capture.transactions.of(connection)
        schema = translated(displayed.schema, context)
        return ReadRecords(
            logger,
            self._failures,
            Database(state.system, state.namespace_of(schema), "", "", "", *state.address),
        )

    @staticmethod
    def _keep_answer(records: ReadRecords, displayed: Displayed, row: Any) -> None:
        answer = row
        if displayed.kind == "exists" and row is not None and not row[0]:
            answer = None
        readings: Iterable[Reading] = [reading for reading, _ in displayed.readings]
        _internally(records.keep_answer, readings, displayed.kind, answer)

    def _finish_left(self) -> None:
        """Keep what was fetched of results that are gone, and that nobody has closed."""
        while self._left:
            self._left.popleft().finish()


class _Watched(WatchedRows):
    """Has what is left of a result that is garbage finished later: a collector may run anywhere."""

    __slots__ = ("_leave",)

    def __init__(
        self,
        inner: Any,
        fetched: Fetched,
        begun: Callable[[Fetched], None],
        leave: Callable[[Fetched], None],
    ) -> None:
        super().__init__(inner, fetched, begun)
        self._leave = leave

    def __del__(self) -> None:
        if self._started and not self._closed:
            self._leave(self._fetched)


def _begin(info: Any, fetched: Fetched) -> None:
    fetched.begin()
    info.setdefault(_KEY, {})[fetched] = None


def _forget(info: Any, fetched: Fetched) -> None:
    waiting = info.get(_KEY)
    if waiting is not None:
        waiting.pop(fetched, None)


def _internally(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run something whose own statements are not recorded as reads."""
    token = _internal.set(True)
    try:
        return run(*args, **kwargs)
    finally:
        _internal.reset(token)
