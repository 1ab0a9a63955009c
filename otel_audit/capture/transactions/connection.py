"""One database connection: the writes of its transaction, and what becomes of them.

An instrumentor keeps one :class:`Connection` for each connection of its library and tells it what happens
there: savepoints, COMMIT, ROLLBACK, by method or as text. Around a statement it uses
:class:`~otel_audit.capture.statement.Statement`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from msgspec import UNSET

from otel_audit.audit_record import Database, Outcome
from otel_audit.capture.databases import dbapi
from otel_audit.capture.freshness import COMMITTED, Epoch, Mark, OneConnection, Reader
from otel_audit.capture.transactions.transaction_sql import Effect
from otel_audit.errors import AuditError
from otel_audit.forks import process_id
from otel_audit.interruptions import faults, interrupts

if TYPE_CHECKING:
    from otel_audit.capture.plan import TablePlan
    from otel_audit.capture.transactions.state import CaptureState
    from otel_audit.capture.transactions.transaction_buffer import Waiting


NO_ADDRESS: Final = ("", 0)
How: TypeAlias = Literal["committed", "rolled_back", "unknown"]
"""How a transaction ended."""


class Connection:
    """What capture knows of one connection.

    Args:
        state: what the connections of one instrumentor share.
        reader: whoever sees what this connection has not committed yet; default this connection alone.
        name: of its database among those of this process.
        system: ``db.system.name``: ``postgresql``, ``mysql``, ``mariadb``, ``sqlite`` …
        namespace: ``db.namespace``, the name of the database, with its schema where that is known.
        address: ``server.address`` and ``server.port``, where the database has them and they are known.

    Attributes:
        database_name: the namespace without a schema.
        dialect: what is different about this kind of database.
        pending: counts the writes of the open transaction.
        raw: the transaction was begun by a statement of the application's own text.
        error: names the exception that is rolling it back.
        locked: SQLite's write lock is held.
        begun_by: the savepoint that has begun the transaction (SQLite): its release commits.
    """

    __slots__ = (
        "address",
        "begun_by",
        "buffer",
        "database_name",
        "dialect",
        "error",
        "failures",
        "freshness",
        "locked",
        "mark",
        "name",
        "namespace",
        "pending",
        "pid",
        "raw",
        "reader",
        "system",
    )

    def __init__(
        self,
        state: CaptureState,
        reader: Reader | None = None,
        *,
        name: str = "",
        system: str = "",
        namespace: str = "",
        address: tuple[str, int] = NO_ADDRESS,
    ) -> None:
        self.buffer = state.buffer()
        self.reader: Reader = reader or OneConnection()
        self.freshness = state.freshness
        self.failures = state.failures
        self.name = name
        self.system = system
        self.dialect = dbapi.dialect(system)
        self.database_name = self.namespace = namespace
        self.address = address
        self.mark = Mark(self.reader.identity)
        self.pending = 0
        self.raw = False
        self.locked = False
        self.error = ""
        self.begun_by = ""
        self.pid = process_id()

    # --- what an instrumentor says of its library ------------------------------------------------

    def commits_at_once(self) -> tuple[bool, bool]:
        """Say whether a statement commits by itself now, and whether it is settled as if it had.

        The two differ only where no COMMIT will ever come, as in a test that is always rolled back.
        """
        raise NotImplementedError

    def driver(self) -> Any:
        """Return the DB-API connection, None if there is none now."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Roll the transaction back, in the library too: its records cannot be kept (``fail_closed``)."""
        raise NotImplementedError

    def taken_back(self, plan: TablePlan) -> None:
        """Hear that the database rolled back what was written to a table."""

    # --- inside the transaction ----------------------------------------------------------------

    def namespace_of(self, schema: str | None) -> str:
        """Return what records call a schema, which MySQL calls a database; empty: the connection's own."""
        if not schema:
            return self.database_name
        return schema if self.system in ("mysql", "mariadb") else f"{self.database_name}|{schema}"

    def database(self, plan: TablePlan, transaction: str = "", namespace: str | None = None) -> Database:
        """Say in a record where a write went."""
        namespace = self.namespace if namespace is None else namespace
        return Database(self.system, namespace, plan.table, transaction, "", *self.address)

    def add(self, write: Waiting) -> None:
        """Hold a write until its transaction ends."""
        try:
            write.shorten()
        except faults() as error:  # a value of an unusual class: it is held as it is
            self.failures.note("shorten", error)
        self.pending += 1
        self.buffer.add(write)

    def add_once(self, write: Waiting) -> None:
        """Hold a write unless it is held already: whoever was interrupted may not know."""
        if not self.buffer.holds(write):
            self.add(write)

    def wrote(self, plan: TablePlan, key: Any) -> int:
        """Note that a row was written; return the count of the write."""
        return self.freshness.wrote(self.name, plan.table, key, self._mark_now())

    def wrote_many(self, plan: TablePlan, keys: Sequence[Any] | None) -> None:
        """Note that these rows, or rows not known, were written."""
        self.freshness.wrote_many(self.name, plan.table, keys, self._mark_now())

    def _mark_now(self) -> Mark:
        return COMMITTED if self.commits_at_once()[1] else self.mark

    def savepoint(self, sid: str, *, begins: bool = False) -> None:
        """Remember where a savepoint stands; ``begins``: it has begun the transaction."""
        if begins:
            self.begun_by = sid
        with self._told("savepoint"):
            self.buffer.savepoint(sid)

    def begins_by_savepoint(self) -> bool:
        """Say whether a savepoint would begin the transaction, as it does on SQLite outside of any.

        https://www.sqlite.org/lang_savepoint.html
        """
        return self.dialect.one_writer and self.is_open() is False

    def commits_by_release(self, sid: str) -> bool:
        """Say whether the release of a savepoint commits: of the one that has begun the transaction."""
        return self.begun_by == sid and self.buffer.is_outermost(sid)

    def release(self, sid: str) -> None:
        """Forget a savepoint; what came after it belongs to what encloses it."""
        with self._told("release"):
            self.buffer.release(sid)

    def rollback_to(self, sid: str) -> None:
        """Fail what came after a savepoint."""
        self.reader.epoch = Epoch()
        with self._told("rollback_to"):
            self.buffer.rollback_to(sid)

    @contextmanager
    def _told(self, place: str) -> Iterator[None]:
        try:
            yield
        except AuditError:
            raise
        except faults() as error:
            self.failures.report(place, error)

    # --- its end ---------------------------------------------------------------------------------

    def before_commit(self) -> None:
        """Write the intents. Only under ``fail_closed`` does this raise, after rolling back."""
        try:
            self.buffer.before_commit()
        except AuditError:
            self.abandon()
            raise
        except faults() as error:
            self.failures.report("before_commit", error)

    def committed(self) -> None:
        """The database has committed."""
        if self.pid == process_id():
            self._end("committed", self.freshness.tick())

    def rolled_back(self, error: str = "") -> None:
        """The database has rolled back; ``error`` names why."""
        self.reader.epoch = Epoch()
        if self.pid == process_id():
            self.error = error or self.error
            self._end("rolled_back")

    def unknown(self, error: str = "") -> None:
        """How the transaction ended cannot be known."""
        self.reader.epoch = Epoch()
        if self.pid == process_id():
            self.error = error or self.error
            self._end("unknown")

    def _end(self, how: How, committed: int = 0) -> None:
        self.mark.committed = committed
        self.mark = Mark(self.reader.identity)
        self.raw = self.locked = False
        self.begun_by = ""
        pending, self.pending = self.pending, 0
        try:
            # An empty buffer may still hold savepoint marks.
            if how == "committed":
                self.buffer.committed()
            elif how == "rolled_back":
                self.buffer.rolled_back()
            else:
                self.buffer.unknown()
        except AuditError:
            raise
        except faults() as fault:
            self.failures.report(how, fault, lost=pending)
        finally:
            self.error = ""

    def settle(self) -> None:
        """End the transaction as if it had committed, where it never will."""
        self.before_commit()
        self.committed()

    def failed_commit(self, error: BaseException, *, refused: bool) -> Outcome | None:
        """Decide what a COMMIT that raised has done; None if the transaction is still open.

        ``refused``: the error is the database's answer, so that nothing was committed.
        """
        if self.is_open():
            return None  # SQLite keeps it: it may be committed again or rolled back
        name = type(error).__qualname__
        if refused:
            self.rolled_back(name)
            return "failure"
        self.unknown(name)
        return "unknown"

    # --- what the driver knows -------------------------------------------------------------------

    def is_open(self) -> bool | None:
        """Ask the driver, not the server, whether a transaction is open; ``None``: it cannot tell."""
        return dbapi.transaction_open(self.system, self.driver())

    def is_aborted(self) -> bool:
        """Ask the driver whether an error has doomed the transaction (PostgreSQL)."""
        return dbapi.transaction_aborted(self.system, self.driver())

    # --- a whole COMMIT, and transactions by text --------------------------------------------------

    def commit(self, commit: Callable[[], Any], *, chained: bool = False) -> Any:
        """Run what commits, and settle what it committed; ``chained``: the next transaction has begun."""
        if self.is_aborted():
            return self.then(commit, self.rolled_back)
        result: Any = UNSET
        try:
            if self.pending:
                self.before_commit()
            result = commit()
            self.committed()
            self.raw = chained
            return result
        except BaseException as error:
            self.commit_raised(error, returned=result is not UNSET)
            raise

    def commit_raised(self, error: BaseException, *, returned: bool) -> None:
        """Settle a transaction whose COMMIT raised, or one interrupted before or after its COMMIT."""
        if not returned:
            if not isinstance(error, AuditError):  # of before_commit, which has rolled back
                self.failed_commit(error, refused=self.is_answer(error))
        else:
            self.committed()

    def then(self, run: Callable[[], Any], note: Callable[[], None]) -> Any:
        """Run what ends or marks a transaction, then note it: once more where that was interrupted."""
        result: Any = UNSET
        try:
            result = run()
            note()
            return result
        except BaseException as error:
            if result is not UNSET and interrupts(error):
                note()
            raise

    def is_answer(self, error: BaseException) -> bool:
        """Say whether an exception of COMMIT is the database's answer; False where it may have been lost."""
        return False

    def refused(self, error: BaseException, *, of_driver: bool = True) -> bool:
        """Say whether what a statement raised means that nothing was written: refused, or never sent.

        ``of_driver``: nothing but the driver can have raised it; otherwise its traceback must say so.
        """
        return False

    def meant(self, effect: Effect | None) -> Effect | None:
        """Return what a statement is about to do here: SQLite's outermost savepoint is a transaction."""
        if effect is not None and self.dialect.one_writer:
            if effect.kind == "savepoint" and self.begins_by_savepoint():
                return Effect("begin", effect.name)
            if effect.kind == "release" and self.commits_by_release(effect.name):
                return Effect("commit")
        return effect

    def apply(self, effect: Effect) -> None:
        """Note what a statement that ended or marked a transaction has done, other than COMMIT."""
        if effect.kind == "rollback":
            self.rolled_back()
            self.raw = effect.chained
        elif effect.kind == "rollback_to":
            self.rollback_to(effect.name)
        elif effect.kind == "savepoint":
            self.savepoint(effect.name)
        elif effect.kind == "release":
            self.release(effect.name)
        elif effect.kind == "begin":
            self.raw = True
            if effect.name:
                self.savepoint(effect.name, begins=True)
