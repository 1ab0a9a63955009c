"""A statement of one of Django's compilers: run with what is ours around it, and never failing for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

from msgspec import UNSET

from otel_audit.capture.databases import dbapi
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.plan import MAX_NAMED_KEYS, Verb
from otel_audit.capture.statement import Statement
from otel_audit.capture.writes import CapturedWrite
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.connection import leave_no_transaction
from otel_audit.instrumentation.django.loaded import ThreadState
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.sql.selects import take_write_lock
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.interruptions import faults, interrupts
from otel_audit.named_tuples import NamedTuple

_R = TypeVar("_R")
_TRIES: Final = 5
"""How often a transaction of our own is begun where the database breaks a deadlock by ending it."""


class Plain(NamedTuple):
    """What the application's own statement returned, run where the database refused ours."""

    result: Any


class Refused(Exception):
    """The database refused a statement of ours in a transaction that holds nothing else."""


class CompiledStatement(Statement):
    """The statement of one of Django's compilers. Each kind has a class that says what is known of it."""

    __slots__ = ("capture", "django", "known")

    def __init__(
        self,
        capture: Capture,
        compiler: Any,
        plan: ModelPlan,
        verb: Verb,
        known: CapturedWrite | None = None,
    ) -> None:
        """Make a statement; ``known`` is what is known of it before it runs."""
        self.capture = capture
        self.django = compiler.connection
        self.known = known
        super().__init__(capture.connection(self.django), plan, verb)

    def intended(self) -> CapturedWrite | None:
        """Return what is known of the statement before it runs; None: its table."""
        return self.known

    def written(self, result: Any) -> Sequence[CapturedWrite] | None:
        return None if self.known is None else [self.known]

    def run(self, execute: Callable[[], Any]) -> Any:
        """Run the application's statement, in autocommit with the intent of it on disk before."""
        thread = self.capture.thread
        executed = thread.executed
        thread.statement = self
        try:
            if self.autocommit:
                self.begin(self._intended())
            thread.runs += 1
            self.result = execute()
            if not self.autocommit:
                self.ran()
            return self.result
        except Refused:
            raise
        except BaseException as error:
            if self.result is UNSET:
                self.raised(error, executed)
            raise

    def raised(self, error: BaseException, executed: int) -> None:
        """Note that it raised; ``executed`` is the thread's count of statements before it."""
        try:
            refused = self.connection.refused(error, of_driver=False)
        except faults() as fault:
            self.capture.failures.note("statement that raised", fault)
            refused = False
        self.failed(
            error,
            sent=self.capture.thread.executed != executed,
            refused=refused,
            intent=self._intended(),
        )

    def _intended(self) -> CapturedWrite | None:
        try:
            return self._intent or self.intended()
        except faults() as fault:
            self.capture.failures.note("intend", fault)
            return None

    def attempt(self, abilities: Abilities, ours: Callable[[], _R]) -> _R | None:
        """Run a statement of ours; ``None``, as if it had never been sent, where the database refuses it.

        Where an error would doom the transaction, and the catalog could not decide whether there will be one,
        it runs under a savepoint.
        """
        from django.db import Error

        dooms = self.connection.dialect.errors_doom and not self.autocommit
        savepoint = self.django.savepoint() if dooms and not abilities.certain else None
        try:
            result = ours()
        except Error as error:
            if not dbapi.refuses(self.connection.system, error):
                raise
            # Whatever made us believe that it could run has changed.
            self.capture.tables.forget(self.plan)
            if savepoint is None:
                if dooms and self.capture.thread.own_transactions:
                    raise Refused from error
                if dooms:
                    raise
                return None
            self.django.savepoint_rollback(savepoint)
            self.django.savepoint_commit(savepoint)
            return None
        if savepoint is not None:
            self.django.savepoint_commit(savepoint)
        return result

    def uncounted(self, abilities: Abilities, count: int | None = 0) -> list[CapturedWrite]:
        """Say that rows may have been written where the row count, 0 or unknown, does not rule it out."""
        if abilities.counts and count is not None:
            return []
        self.connection.wrote_many(self.plan, None)
        return [CapturedWrite(self.plan, self.verb, self.connection)]

    def take_write_lock(self, column: str = "") -> None:
        """Take SQLite's write lock inside a transaction that has not taken it yet.

        ``column`` is one the statement writes; a DELETE has none.
        """
        ours = self.connection
        if not self.autocommit and not ours.locked and ours.dialect.one_writer:
            ours.locked = take_write_lock(self.django, self.plan.table, self.verb, column)


class RowsStatement(CompiledStatement):
    """A statement that writes any number of rows; ``found`` are these, where they were read before."""

    __slots__ = ("column", "found")

    def __init__(
        self,
        capture: Capture,
        compiler: Any,
        plan: ModelPlan,
        verb: Verb,
        *,
        known: CapturedWrite | None = None,
        column: str = "",
    ) -> None:
        """Make a statement; ``column`` is one it writes, empty for a DELETE."""
        super().__init__(capture, compiler, plan, verb, known)
        self.column = column
        self.found: Returned | None = None

    @abstractmethod
    def writes(self, returned: Returned, more: int) -> list[CapturedWrite]:
        """Return what is to be noted of rows, and of ``more`` of which only the number is known."""

    def rows(self, result: Any) -> tuple[Returned, int]:
        """Return the rows it wrote, and how many there were beside them."""
        if type(result) is Returned:
            return result, 0
        count, found = row_count(self.verb, result), self.found
        # Fewer than were there: a trigger or a policy left some alone, and nobody says which.
        if found is None or found.rows is None or count is None or count < found.count:
            return Returned(None, count or 0, "count"), 0
        return found, count - found.count

    def written(self, result: Any) -> list[CapturedWrite] | None:
        rows, more = self.rows(result)
        return self.writes(rows, more) if rows.count or more else None

    def note(self, result: Any, abilities: Abilities) -> None:
        """Note what it did, as its result and the rows read before it tell."""
        plan, (returned, more) = self.plan, self.rows(result)
        if returned.count or more:
            rows = returned.rows
            unnamed = more or rows is None or len(rows) > MAX_NAMED_KEYS
            self.connection.wrote_many(plan, None if unnamed or rows is None else rows.keys(plan))
            self.done(*self.writes(returned, more))
            return
        if type(result) is Plain:  # the database refused ours: the table is no longer what it was
            abilities = self.capture.abilities(self.django, plan, self.verb, self.column)
        self.done(*self.uncounted(abilities, row_count(self.verb, result)))

    def note_or_recover(self, result: Any, abilities: Abilities) -> None:
        """Note what it did; its row count alone, where that fails."""
        try:
            self.note(result, abilities)
        except faults() as error:
            self.recover(error, row_count(self.verb, result))


def in_transaction(capture: Capture, connection: Any, run: Callable[..., Any], *args: Any) -> Any:
    """Run inside a transaction: one of its own in autocommit, where a lock would hold nothing."""
    from django.db import transaction

    if connection.in_atomic_block or not connection.get_autocommit():
        return run(*args)
    block = transaction.atomic(using=connection.alias)
    try:
        with block:
            return _noted(capture.thread, run, *args)
    except BaseException as error:
        if interrupts(error):
            if block in connection.atomic_blocks[-1:]:  # it was not left
                block.__exit__(type(error), error, error.__traceback__)
            leave_no_transaction(connection)  # atomic() is not safe at every line, and this one is ours
        raise


def _noted(thread: ThreadState, run: Callable[..., Any], *args: Any) -> Any:
    try:
        return run(*args)
    except BaseException as error:
        if interrupts(error):
            finish(thread)
        raise


def finish(thread: ThreadState) -> None:
    """Note the captured statement that ran, where the application's own exception has interrupted us."""
    statement = thread.statement
    if statement is not None:
        statement.finish(row_count(statement.verb, statement.result))


def row_count(verb: Verb, result: Any) -> int | None:
    """Return how many rows a statement wrote by what it returned; ``None`` if that does not say it."""
    if isinstance(result, Plain):
        result = result.result
    if verb == "create":  # returns what was asked back, of all rows or none
        return len(result) or None if isinstance(result, list) else None
    if isinstance(result, list):
        return len(result)
    count = getattr(result, "count", getattr(result, "rowcount", result))
    return count if type(count) is int and count >= 0 else None


def in_own_transaction(capture: Capture, connection: Any, run: Callable[..., Any], *args: Any) -> Any:
    """Run as :func:`in_transaction`; ``NotImplemented``, with nothing run, if the database refused ours."""
    from django.db import Error

    if connection.in_atomic_block or not connection.get_autocommit():
        return run(*args)
    thread = capture.thread
    for left in reversed(range(_TRIES)):
        runs = thread.runs
        thread.own_transactions += 1
        try:
            return in_transaction(capture, connection, run, *args)
        except Refused:
            return NotImplemented
        except Error as error:
            # A lock of ours, in a transaction of ours, before the application's statement was sent.
            system = capture.connection(connection).system
            if not left or thread.runs != runs or not dbapi.deadlocked(system, error):
                raise
        finally:
            thread.own_transactions -= 1
    return NotImplemented


class Guard:
    """A ``with`` block around what captures one statement, and runs it on the way.

    A fault of ours before the application's statement ran ends here; :meth:`run_plainly`, to be called behind
    the block, then runs that statement by itself. An exception the application has caused comes again from
    there, and only from there. A database error of a statement of ours inside a transaction reaches the
    application as it is: the transaction is doomed, and one that retries on deadlocks must see why.
    """

    __slots__ = ("_connection", "_fault", "_outer", "_runs", "_thread")

    def __init__(self, capture: Capture, connection: Any) -> None:
        self._connection = connection
        thread = self._thread = capture.thread
        self._runs, self._outer = thread.runs, thread.statement
        self._fault: BaseException | None = None

    def __enter__(self) -> Self:
        return self  # with nothing to take back: between this and the block an interruption may come

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        from django.db import Error

        thread = self._thread
        statement, thread.statement = thread.statement, self._outer
        if error is None:
            return False
        if interrupts(error):
            if statement is not None and statement is not self._outer:
                statement.finish(row_count(statement.verb, statement.result))
            return False
        if thread.runs != self._runs or isinstance(error, AuditError):
            return False
        connection = self._connection
        if isinstance(error, Error) and (connection.in_atomic_block or not connection.autocommit):
            return False
        self._fault = error
        return True

    def run_plainly(self, statement: CompiledStatement, run: Callable[[], Any]) -> Any:
        """Run the application's statement where capturing it has failed; only its row count is noted."""
        assert self._fault is not None
        try:
            result = statement.run(run)
            statement.recover(self._fault, row_count(statement.verb, result))
        except BaseException as error:
            if interrupts(error):
                statement.finish(row_count(statement.verb, statement.result))
            raise
        return result


def written_column(query: Any) -> str:
    """Return a column the INSERT writes; without any (only defaults) that of the key."""
    return str((query.fields or [query.get_meta().pk])[0].column)


def reraise_database_error(error: Exception, statement: CompiledStatement) -> None:
    """Let a database error of our own statement reach the application inside a transaction.

    The transaction is aborted by it, and an application that retries on deadlocks must see it.
    """
    from django.db import Error

    if isinstance(error, Error) and not statement.autocommit:
        raise error
