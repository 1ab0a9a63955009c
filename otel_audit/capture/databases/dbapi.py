"""What a DB-API connection says of itself, without a round trip where possible, and how databases differ."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING, Any, Final

from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.capture.plan import Verb


class Dialect(NamedTuple):
    """What is different about a kind of database: all of it in one table.

    ``one_writer``: a transaction that has read cannot always be upgraded to write, so the write lock must be
    taken before anything is read; and a savepoint may be the transaction. ``implicit_commits`` are the first
    words of statements that commit. ``returning_since``: the first version whose DELETE and INSERT return
    rows, None where none does. ``errors_doom``: an error leaves the transaction nothing but to roll back.
    ``exact_names``: names of columns differ by their case. ``folds``: what a DELETE or UPDATE returns can be
    looked at by the same statement (``WITH … AS (DELETE …) SELECT``). ``length``: the function that measures
    a text or binary value, where there is one without reading it whole. ``rounding`` is that of decimals
    stored. ``moves_rows``: an UPDATE moves its row within the table, and a locking SELECT sorts before it
    locks; without an order two of them meet in a deadlock where the plain statements would not.
    What a single table can do stands in its catalog: :mod:`otel_audit.capture.databases.abilities`.
    """

    one_writer: bool = False
    implicit_commits: frozenset[str] = frozenset()
    returning_since: tuple[int, ...] | None = None
    errors_doom: bool = False
    exact_names: bool = False
    folds: bool = False
    length: str = "LENGTH"
    rounding: str = decimal.ROUND_HALF_UP
    moves_rows: bool = False


_MYSQL: Final = Dialect(
    implicit_commits=frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "LOCK"}),
    length="OCTET_LENGTH",
)
_OTHER: Final = Dialect(errors_doom=True)
_DIALECTS: Final[dict[str, Dialect]] = {
    # SQLite keeps decimals as they are, and Django rounds what it reads.
    "sqlite": Dialect(one_writer=True, returning_since=(3, 35), rounding=decimal.ROUND_HALF_EVEN),
    "postgresql": Dialect(
        returning_since=(),
        errors_doom=True,
        exact_names=True,
        folds=True,
        length="OCTET_LENGTH",
        moves_rows=True,
    ),
    "mysql": _MYSQL,
    "mariadb": _MYSQL._replace(returning_since=(10, 5)),
}


def dialect(system: str) -> Dialect:
    """Return what is different about a kind of database, by ``db.system.name``."""
    return _DIALECTS.get(system, _OTHER)


def is_tried(system: str) -> bool:
    """Say whether the tests cover a kind of database."""
    return system in _DIALECTS


def write_lock(verb: Verb, table: str, column: str) -> str:
    """Return a statement that takes SQLite's write lock and writes nothing.

    Of the same verb as the application's and on one of its columns, so that it is refused only where that
    would be: a view may have an INSTEAD OF trigger for one verb only, a foreign key may not fit for one.

    Args:
        verb: of the application's statement.
        table: quoted.
        column: quoted.
    """
    if verb == "delete":
        return f"DELETE FROM {table} WHERE 0"
    if verb == "update":
        return f"UPDATE {table} SET {column} = {column} WHERE 0"
    return f"INSERT INTO {table} ({column}) SELECT NULL WHERE 0"


_REFUSALS: Final = frozenset({1031, 1054, 1064, 1100, 1142, 1143, 1235, 1288, 1356})
"""MariaDB: the engine, the columns, the syntax, the lock, the privileges or the view do not allow it."""
_REFUSING_STATES: Final = ("42", "0A", "HV", "55000")
"""PostgreSQL: syntax or access, feature not supported, foreign data wrapper, wrong state of the object."""
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _UNKNOWN = range(5)
_SQLITE_REFUSALS: Final = frozenset({1, 23})  # SQLITE_ERROR, SQLITE_AUTH


_DEADLOCK: Final = 1213
_DEADLOCK_STATE: Final = "40P01"


def _sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code of an error: of psycopg, or of psycopg2."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def deadlocked(system: str, error: BaseException) -> bool:
    """Say whether an error means that the database broke a deadlock by it: whoever tries again may succeed.

    Args:
        system: ``db.system.name``.
        error: what the driver raised, or an exception made from it.
    """
    error = error.__cause__ or error
    if system == "postgresql":
        return _sqlstate(error) == _DEADLOCK_STATE
    return system in ("mysql", "mariadb") and error.args[:1] == (_DEADLOCK,)


def refuses(system: str, error: BaseException) -> bool:
    """Say whether an error means that the database never runs this statement, however often it is sent.

    Locks, deadlocks, timeouts and lost connections are none: whoever sent the statement must see them.

    Args:
        system: ``db.system.name``.
        error: what the driver raised, or an exception made from it.
    """
    error = error.__cause__ or error
    if any(kind.__name__ == "NotSupportedError" for kind in type(error).__mro__):
        return True
    if system == "postgresql":
        return _sqlstate(error).startswith(_REFUSING_STATES)
    if system == "sqlite":
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # another driver than Python's own
            return "locked" not in str(error)
        return code & 0xFF in _SQLITE_REFUSALS
    if system in ("mysql", "mariadb"):
        return bool(error.args) and error.args[0] in _REFUSALS
    return any(kind.__name__ == "ProgrammingError" for kind in type(error).__mro__)


def _transaction_status(driver: Any) -> int:
    """Return libpq's ``PGTransactionStatusType``: of psycopg an enumeration, of psycopg2 a number."""
    return int(driver.info.transaction_status)


def transaction_open(system: str, driver: Any) -> bool | None:
    """Ask the driver, not the server, whether a transaction is open; ``None``: it cannot tell."""
    try:
        if system == "sqlite":
            return bool(driver.in_transaction)
        if system == "postgresql":
            status = _transaction_status(driver)
            if status in (_ACTIVE, _IN_TRANSACTION, _IN_ERROR):
                return not driver.closed
            return False if status == _IDLE else None
    except faults():  # another driver, or no connection
        return None
    return None


def transaction_aborted(system: str, driver: Any) -> bool:
    """Ask the driver whether an error has doomed the transaction (PostgreSQL)."""
    if system != "postgresql":
        return False
    try:
        return _transaction_status(driver) == _IN_ERROR
    except faults():  # another driver
        return False


def answered(system: str, driver: Any) -> bool:
    """Say whether the server still answers, so that an error at COMMIT was its answer."""
    try:
        if system == "postgresql":
            return not driver.closed and _transaction_status(driver) != _UNKNOWN
        if system == "sqlite":
            return False  # an I/O error: SQLite may have rolled back or not
        driver.ping()
        return True
    except faults():
        return False


def connected(system: str, driver: Any) -> bool:
    """Say whether the driver still holds a connection; asks no server where the driver knows."""
    if driver is None:
        return False
    closed = getattr(driver, "closed", None)
    if closed is not None:
        return not closed
    if system in ("mysql", "mariadb"):
        try:
            driver.ping()
        except faults():
            return False
    return True
