"""Write capture: what the wrappers around Django's compilers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec import UNSET

from otel_audit.audit_record import Database
from otel_audit.capture.databases import dbapi
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.plan import Verb
from otel_audit.capture.sql.raw_sql import RawTables
from otel_audit.capture.statement import Statement
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.capture.writes import CapturedWrite
from otel_audit.config.model import AuditConfig
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.connection import (
    DjangoConnection,
    Transactions,
    leave_no_transaction,
)
from otel_audit.instrumentation.django.loaded import ThreadState
from otel_audit.instrumentation.django.plan import NOT_AUDITED, ModelPlan, ModelPolicy
from otel_audit.instrumentation.django.writes.sql.selects import take_write_lock
from otel_audit.instrumentation.django.writes.sql.tables import Tables
from otel_audit.interruptions import faults, interrupts
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from otel_audit.pipeline.provider import AuditPipeline

_R = TypeVar("_R")
_TRIES: Final = 5
"""How often a transaction of our own is begun where the database breaks a deadlock by ending it."""
_PLANS: Final = "_otel_audit_plans"
"""Where a :class:`_Plans` stands in ``model._meta``: plans go with the class they are of."""


class _Plans:
    """The plans of one model by kind of database, made by one capture."""

    __slots__ = ("by_vendor", "meta", "owner")

    def __init__(self, owner: object, meta: Any) -> None:
        self.owner = owner
        self.meta = meta
        self.by_vendor: dict[str, ModelPlan] = {}


class Capture(CaptureState):
    """The state of write capture in this process, and the plans of the models it has met."""

    policy: ModelPolicy

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None = None) -> None:
        super().__init__("Django", config, config.django, pipeline)
        self.policy = ModelPolicy(config.django, NameRules.of(config.redaction))
        self.thread = ThreadState()
        self.tables = Tables()
        self.raw = RawTables()
        self.transactions = Transactions(self, self.thread)
        self.generation = object()

    def plan(self, model: Any, vendor: str = "") -> ModelPlan:
        """Return the plan of ``model`` on a database of ``vendor``; a proxy has that of its concrete model.

        A model that cannot be understood counts as not audited; the fault says so.
        """
        meta = model._meta
        plans: _Plans | None = meta.__dict__.get(_PLANS)
        # A copied ``_meta`` carries the plans of the model it was copied from.
        if plans is None or plans.owner is not self.generation or plans.meta is not meta:
            plans = meta.__dict__[_PLANS] = _Plans(self.generation, meta)
        found = plans.by_vendor.get(vendor)
        if found is None:
            concrete = model._meta.concrete_model
            try:
                policy = self.policy
                found = ModelPlan(concrete, policy.of(concrete), policy.keys(concrete), vendor)
            except faults() as error:
                self.failures.report("plan", error, what=model.__name__, lost=1)
                return NOT_AUDITED
            plans.by_vendor[vendor] = found
        return found

    def abilities(self, connection: Any, plan: ModelPlan, verb: Verb, column: str = "") -> Abilities:
        """Return what the table of ``plan`` lets us ask around ``verb``.

        ``column`` is one the statement writes; a DELETE has none.
        """
        known = self.tables.known(connection.alias, plan, verb)
        if known is not None:
            return known
        connection.ensure_connection()
        if dbapi.dialect(connection.vendor).one_writer and not connection.get_autocommit():
            # Asking reads the schema: in a transaction that has not written yet this would be the snapshot
            # that cannot be upgraded afterwards.
            state = self.transactions.state(connection)
            if not state.locked:
                state.locked = take_write_lock(connection, plan.table, verb, column, visibly=False)
        return self.tables.ask(connection, plan, verb)

    def policy_changed(self) -> None:
        """Decide about every model anew, when it is next used."""
        self.policy.forget()
        self.generation = object()

    def schema_changed(self) -> None:
        """Forget what tables could do."""
        self.tables.forget()

    def connection(self, connection: Any) -> DjangoConnection:
        """Return ours of one of Django's connections, which knows the system it is."""
        return self.transactions.connection(connection)

    def database(self, connection: Any) -> Database:
        """Say in records where queries through one of Django's connections go."""
        found = self.connection(connection)
        return Database(found.system, found.namespace, "", "", "", *found.address)


class Plain(NamedTuple):
    """What the application's own statement returned, run where the database refused ours."""

    result: Any


class Refused(Exception):
    """The database refused a statement of ours in a transaction that holds nothing else."""


class CompiledStatement(Statement):
    """The statement of one of Django's compilers."""

    __slots__ = ("capture", "django")

    def __init__(self, capture: Capture, compiler: Any, plan: ModelPlan, verb: Verb) -> None:
        self.capture = capture
        self.django = compiler.connection
        super().__init__(capture.connection(self.django), plan, verb)

    def run(self, execute: Callable[[], Any], intent: Callable[[], CapturedWrite] | None = None) -> Any:
        """Run the application's statement, in autocommit with the intent of it on disk before.

        ``intent`` makes what is known of the statement before it runs; default its table.
        """
        thread = self.capture.thread
        executed = thread.executed
        thread.statement = self
        try:
            if self.autocommit:
                self.begin(self._intended(intent))
            thread.runs += 1
            self.result = execute()
            if not self.autocommit:
                self.ran()
            return self.result
        except Refused:
            raise
        except BaseException as error:
            if self.result is UNSET:
                self.raised(error, executed, intent)
            raise

    def raised(
        self, error: BaseException, executed: int, intent: Callable[[], CapturedWrite] | None = None
    ) -> None:
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
            intent=self._intended(intent),
        )

    def _intended(self, intent: Callable[[], CapturedWrite] | None) -> CapturedWrite | None:
        try:
            return self._intent or (intent() if intent is not None else None)
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


def in_transaction(capture: Capture, connection: Any, run: Callable[[], Any]) -> Any:
    """Run inside a transaction: one of its own in autocommit, where a lock would hold nothing."""
    from django.db import transaction

    if connection.in_atomic_block or not connection.get_autocommit():
        return run()
    block = transaction.atomic(using=connection.alias)
    try:
        with block:
            return _noted(capture.thread, run)
    except BaseException as error:
        if interrupts(error):
            if block in connection.atomic_blocks[-1:]:  # it was not left
                block.__exit__(type(error), error, error.__traceback__)
            leave_no_transaction(connection)  # atomic() is not safe at every line, and this one is ours
        raise


def _noted(thread: ThreadState, run: Callable[[], Any]) -> Any:
    try:
        return run()
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


def in_own_transaction(
    capture: Capture, connection: Any, run: Callable[[], Any], otherwise: Callable[[], Any]
) -> Any:
    """Run as :func:`in_transaction`; ``otherwise`` where the database refused a statement of ours there."""
    from django.db import Error

    if connection.in_atomic_block or not connection.get_autocommit():
        return run()
    thread = capture.thread
    for left in reversed(range(_TRIES)):
        runs = thread.runs
        thread.own_transactions += 1
        try:
            return in_transaction(capture, connection, run)
        except Refused:
            break
        except Error as error:
            # A lock of ours, in a transaction of ours, before the application's statement was sent.
            system = capture.connection(connection).system
            if not left or thread.runs != runs or not dbapi.deadlocked(system, error):
                raise
        finally:
            thread.own_transactions -= 1
    return otherwise()


def guarded(
    capture: Capture,
    plan: ModelPlan,
    verb: Verb,
    compiler: Any,
    plain: Callable[[], Any],
    captured: Callable[[], Any],
) -> Any:
    """Run ``captured``; where it fails before the application's statement ran, run ``plain`` instead.

    An exception the application itself has caused comes again from the plain statement, and only from there.
    A database error of a statement of ours inside a transaction reaches the application as it is: the
    transaction is doomed, and an application that retries on deadlocks must see why.
    """
    return capture.thread.during("compiling", _guarded, capture, plan, verb, compiler, plain, captured)


def _guarded(
    capture: Capture,
    plan: ModelPlan,
    verb: Verb,
    compiler: Any,
    plain: Callable[[], Any],
    captured: Callable[[], Any],
) -> Any:
    from django.db import Error

    thread = capture.thread
    runs, outer = thread.runs, thread.statement
    thread.statement = None
    try:
        return captured()
    except BaseException as error:
        if interrupts(error):
            finish(thread)
            raise
        if thread.runs != runs or isinstance(error, AuditError):
            raise
        connection = compiler.connection
        if isinstance(error, Error) and (connection.in_atomic_block or not connection.autocommit):
            raise
        fault = error
    finally:
        thread.statement = outer
    statement = CompiledStatement(capture, compiler, plan, verb)
    result = statement.run(plain)
    statement.recover(fault, len(result) if isinstance(result, list) else result)
    return result


def reraise_database_error(error: Exception, statement: CompiledStatement) -> None:
    """Let a database error of our own statement reach the application inside a transaction.

    The transaction is aborted by it, and an application that retries on deadlocks must see it.
    """
    from django.db import Error

    if isinstance(error, Error) and not statement.autocommit:
        raise error
