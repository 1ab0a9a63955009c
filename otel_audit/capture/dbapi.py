"""What a DB-API connection says of itself, without a round trip where possible, and how databases differ."""

from __future__ import annotations

import decimal
from typing import Any, Final, NamedTuple

from otel_audit.interruptions import faults


class Dialect(NamedTuple):
    """What is different about a kind of database: all of it in one table.

    ``one_writer``: a transaction that has read cannot always be upgraded to write, so the write lock must be
    taken before anything is read; and a savepoint may be the transaction. ``implicit_commits`` are the first
    words of statements that commit. ``tells_new_rows``: an upsert can say which rows it inserted (``xmax``).
    ``joined_update``: UPDATE may return the values its rows had. ``rounding`` is that of decimals stored.
    """

    one_writer: bool = False
    implicit_commits: frozenset[str] = frozenset()
    tells_new_rows: bool = False
    joined_update: bool = False
    rounding: str = decimal.ROUND_HALF_UP


_MYSQL: Final = Dialect(
    implicit_commits=frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "LOCK"}),
)
_OTHER: Final = Dialect()
_DIALECTS: Final[dict[str, Dialect]] = {
    # SQLite keeps decimals as they are, and Django rounds what it reads.
    "sqlite": Dialect(one_writer=True, rounding=decimal.ROUND_HALF_EVEN),
    "postgresql": Dialect(tells_new_rows=True, joined_update=True),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def dialect(system: str) -> Dialect:
    """Return what is different about a kind of database, by ``db.system.name``."""
    return _DIALECTS.get(system, _OTHER)


def transaction_open(system: str, driver: Any) -> bool | None:
    """Ask the driver, not the server, whether a transaction is open; ``None``: it cannot tell."""
    try:
        if system == "sqlite":
            return bool(driver.in_transaction)
        if system == "postgresql":
            status = driver.info.transaction_status.name
            if status in ("INTRANS", "INERROR", "ACTIVE"):
                return not driver.closed
            return False if status == "IDLE" else None
    except faults():  # another driver, or no connection
        return None
    return None


def transaction_aborted(system: str, driver: Any) -> bool:
    """Ask the driver whether an error has doomed the transaction (PostgreSQL)."""
    if system != "postgresql":
        return False
    try:
        return bool(driver.info.transaction_status.name == "INERROR")
    except faults():  # another driver
        return False


def answered(system: str, driver: Any) -> bool:
    """Say whether the server still answers, so that an error at COMMIT was its answer."""
    try:
        if system == "postgresql":
            return not driver.closed and driver.info.transaction_status.name != "UNKNOWN"
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
