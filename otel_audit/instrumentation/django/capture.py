"""Write capture: what the wrappers around Django's compilers share.

A captured statement goes three steps: prepare (ours), run (the application's statement, never guarded),
record (ours). A fault of ours in the first or last step costs detail, never the statement.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_audit.config.model import AuditConfig
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.changes import BulkWrite, CapturedWrite, NoWrite, Place, Verb
from otel_audit.instrumentation.django.driver import connected
from otel_audit.instrumentation.django.faults import Faults
from otel_audit.instrumentation.django.fields import NOT_AUDITED, ModelPlan
from otel_audit.instrumentation.django.models import ModelPolicy
from otel_audit.instrumentation.django.old_values import Freshness, ThreadState
from otel_audit.instrumentation.django.statements import Abilities, Tables, take_write_lock
from otel_audit.instrumentation.django.transactions import Transactions
from otel_audit.pipeline import provider
from otel_audit.pipeline.transaction import TransactionBuffer

if TYPE_CHECKING:
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.pipeline.provider import AuditPipeline

_F = TypeVar("_F", bound=Callable[..., Any])
_MAX_PLANS: Final = 4096


class Capture:
    """The state of write capture in this process, and the plans of the models it has met."""

    def __init__(
        self, policy: ModelPolicy, config: AuditConfig, pipeline: AuditPipeline | None = None
    ) -> None:
        self.policy = policy
        self.config = config.django
        self._pipeline = pipeline
        self.thread = ThreadState()
        self.freshness = Freshness()
        self.faults = Faults(fail_closed=config.on_error == "fail_closed")
        self.tables = Tables()
        self.transactions = Transactions(self._buffer, self.thread, self.freshness, self.faults)
        self._plans: dict[str, dict[Any, ModelPlan]] = {}
        self._places: dict[tuple[str, str, str], Place] = {}

    def _buffer(self) -> TransactionBuffer:
        logger = None if self._pipeline is None else self._pipeline.logger
        return TransactionBuffer(logger, failures=self.config.failures)

    def logger(self) -> AuditLogger | None:
        """Give the logger of the pipeline: the one given, or the current one."""
        pipeline = self._pipeline or provider.current()
        return None if pipeline is None else pipeline.logger

    def plan(self, model: Any, vendor: str = "") -> ModelPlan:
        """Give the plan of ``model`` on a database of ``vendor``; a proxy has that of its concrete model.

        A model that cannot be understood counts as not audited; the fault says so.
        """
        plans = self._plans.get(vendor)
        if plans is None:
            plans = self._plans.setdefault(vendor, {})
        found = plans.get(model)
        if found is None:
            concrete = model._meta.concrete_model
            try:
                policy = self.policy
                found = ModelPlan(concrete, policy.settings(concrete), policy.keys(concrete), vendor)
            except Exception as error:
                self.faults.report(f"model {model.__name__}", error, lost=1)
                return NOT_AUDITED
            # Models of migrations and tests are classes made anew each time.
            if len(plans) >= _MAX_PLANS:
                plans.clear()
            plans[model] = found
        return found

    def abilities(self, connection: Any, plan: ModelPlan) -> Abilities:
        """Give what the table of ``plan`` lets us ask."""
        known = self.tables.known(connection.alias, plan.table)
        if known is not None:
            return known
        connection.ensure_connection()
        if connection.vendor == "sqlite" and not connection.get_autocommit():
            # Asking reads the schema: in a transaction that has not written yet this would be the snapshot
            # that cannot be upgraded afterwards.
            state = self.transactions.state(connection)
            if not state.locked:
                take_write_lock(connection, plan.table, visibly=False)
                state.locked = True
        return self.tables.ask(connection, plan.table)

    def place(self, connection: Any) -> Place:
        """Say where writes through ``connection`` go."""
        name = str(connection.settings_dict.get("NAME") or "")
        key = (connection.alias, connection.vendor, name)
        found = self._places.get(key)
        if found is None:
            system = connection.vendor
            if system == "mysql" and connection.mysql_is_mariadb:
                system = "mariadb"
            found = self._places[key] = Place(system, name, self.config, self.faults)
        return found


class Statement:
    """One captured statement, from before it runs until its effect is noted."""

    def __init__(self, capture: Capture, compiler: Any, plan: ModelPlan, verb: Verb) -> None:
        self.capture = capture
        self.connection = compiler.connection
        self.plan = plan
        self.verb: Verb = verb
        self.transactions = capture.transactions
        self.state = self.transactions.state(self.connection)
        self.immediate = self.transactions.immediate(self.connection, self.state)
        # A TestCase never commits; its statements are settled like committed ones, without an intent.
        self.autocommit = self.immediate and not self.connection.in_atomic_block
        if self.state.place is None:
            self.state.place = capture.place(self.connection)
        self.place: Place = self.state.place
        self._intent: CapturedWrite | None = None
        self._handle: Any = None

    def run(self, execute: Callable[[], Any], intent: Callable[[], CapturedWrite] | None = None) -> Any:
        """Run the application's statement, in autocommit with the intent of it on disk before.

        ``intent`` makes what is known of the statement before it runs; default its table.
        """
        if self.autocommit:
            try:
                self._handle = self.state.buffer.intend_now(self._intended(intent))
            except AuditError:
                raise
            except Exception as error:
                self.capture.faults.report("intend", error)
        thread = self.capture.thread
        thread.runs += 1
        executed = thread.executed
        try:
            result = execute()
        except BaseException as error:
            try:
                self.failed(error, self._intended(intent), executed)
            except Exception as fault:  # of making the intent; the application's own exception is on its way
                self.capture.faults.note("failed statement", fault)
            raise
        if not self.autocommit and self.connection.vendor == "sqlite":
            self.state.locked = True
        return result

    def take_write_lock(self) -> None:
        """Take SQLite's write lock inside a transaction that has not taken it yet."""
        if self.connection.vendor == "sqlite" and not self.autocommit and not self.state.locked:
            take_write_lock(self.connection, self.plan.table)
            self.state.locked = True

    def _intended(self, intent: Callable[[], CapturedWrite] | None) -> CapturedWrite:
        if self._intent is None:
            self._intent = intent() if intent else CapturedWrite(self.plan, self.verb, self.place)
            self._intent.origin = self.state
        return self._intent

    def done(self, *writes: CapturedWrite) -> None:
        """Note what the statement did; nothing if it matched no row."""
        for write in writes:
            write.origin = self.state
        if self.autocommit:
            self._settle(writes)
            return
        for write in writes:
            self.transactions.add(self.state, write)
        if self.immediate and writes:
            self.transactions.settle_testcase(self.connection)

    def recover(self, error: BaseException, count: Any = None) -> None:
        """Note the statement with its row count only: ``error`` is a fault of ours after it ran."""
        self.capture.faults.report(self.verb, error)
        write = CapturedWrite(self.plan, self.verb, self.place)
        if type(count) is int:
            write = (
                BulkWrite(self.plan, self.verb, self.place, count)
                if count
                else NoWrite(self.plan, self.verb, self.place)
            )
        try:
            self.capture.freshness.wrote_many(
                self.connection.alias, self.plan, None, self.transactions.mark(self.connection)
            )
            self.done(write)
        except AuditError:
            raise
        except Exception as fault:
            self.capture.faults.report(f"{self.verb}, again", fault, lost=1)

    def _settle(self, writes: tuple[CapturedWrite, ...]) -> None:
        handle, self._handle = self._handle, None
        first, *others = writes or (NoWrite(self.plan, self.verb, self.place),)
        try:
            # What is on disk already as it turned out need not be made and written once more.
            settled = None if first is self._intent and handle is not None else first
            self.state.buffer.settle_now(handle, settled, "success")
            for write in others:
                self.state.buffer.settle_now(None, write, "success")
        except AuditError:
            raise
        except Exception as error:
            self.capture.faults.report("settle", error, lost=len(writes))

    def failed(self, error: BaseException, intent: CapturedWrite, executed: int) -> None:
        """Note that the statement raised: nothing was written, unless its answer was lost.

        ``executed`` is the thread's count of statements before it.
        """
        from django.db import Error, InterfaceError, OperationalError

        intent.error = type(error).__qualname__
        sent = self.capture.thread.executed != executed
        lost = isinstance(error, OperationalError | InterfaceError) and not connected(self.connection)
        refused = isinstance(error, Error) and not lost
        try:
            if self.autocommit:
                self._failed_in_autocommit(intent, sent=sent, refused=refused)
            elif refused and sent:
                logger = self.capture.logger()
                if logger is not None and self.capture.config.failures:
                    transaction = self.state.buffer.transaction
                    logger.emit(*intent.build(logger, "failure", transaction), at=intent.moment)
            elif sent:
                # Something after the statement raised; what was written shares the fate of the transaction.
                self.transactions.add(self.state, intent)
        except Exception as fault:
            # The application's own exception is on its way; ours must not take its place.
            self.capture.faults.note("failed statement", fault)

    def _failed_in_autocommit(self, intent: CapturedWrite, *, sent: bool, refused: bool) -> None:
        handle, self._handle = self._handle, None
        buffer = self.state.buffer
        if refused:
            buffer.settle_now(handle, intent, "failure")
        elif sent:
            buffer.settle_now(handle, intent, "unknown")
        else:  # it could not even be compiled
            buffer.settle_now(handle, NoWrite(self.plan, self.verb, self.place), "failure")


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
    from django.db import Error

    thread = capture.thread
    runs = thread.runs
    try:
        return captured()
    except Exception as error:
        if thread.runs != runs or isinstance(error, AuditError):
            raise
        connection = compiler.connection
        if isinstance(error, Error) and (connection.in_atomic_block or not connection.autocommit):
            raise
        fault = error
    statement = Statement(capture, compiler, plan, verb)
    result = statement.run(plain)
    statement.recover(fault, len(result) if isinstance(result, list) else result)
    return result


def reraise_database_error(error: Exception, statement: Statement) -> None:
    """Let a database error of our own statement reach the application inside a transaction.

    The transaction is aborted by it, and an application that retries on deadlocks must see it.
    """
    from django.db import Error

    if isinstance(error, Error) and not statement.autocommit:
        raise error


def suppressing(thread: ThreadState) -> Callable[[_F], _F]:
    """Make a wrapper under which nothing is captured."""

    def wrap(original: _F) -> _F:
        @functools.wraps(original)
        def suppressed(*args: Any, **kwargs: Any) -> Any:
            thread.suppressed += 1
            try:
                return original(*args, **kwargs)
            finally:
                thread.suppressed -= 1

        return suppressed  # type: ignore[return-value]

    return wrap
