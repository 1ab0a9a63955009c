"""What the database driver knows of a connection, asked without a word to the server where possible."""

from __future__ import annotations

from typing import Any


def transaction_open(connection: Any) -> bool | None:
    """Ask the driver, not the server, whether a transaction is open; ``None``: it cannot tell."""
    driver = connection.connection
    try:
        if connection.vendor == "sqlite":
            return bool(driver.in_transaction)
        if connection.vendor == "postgresql":
            status = driver.info.transaction_status.name
            if status in ("INTRANS", "INERROR", "ACTIVE"):
                return not driver.closed
            return False if status == "IDLE" else None
    except Exception:  # another driver, or no connection
        return None
    return None


def transaction_aborted(connection: Any) -> bool:
    """Ask the driver whether an error has doomed the transaction (PostgreSQL)."""
    if connection.vendor != "postgresql":
        return False
    try:
        return bool(connection.connection.info.transaction_status.name == "INERROR")
    except Exception:  # another driver
        return False


def answered(connection: Any) -> bool:
    """Say whether the server still answers, so that an error at COMMIT was its answer."""
    driver = connection.connection
    try:
        if connection.vendor == "postgresql":
            return not driver.closed and driver.info.transaction_status.name != "UNKNOWN"
        if connection.vendor == "sqlite":
            return False  # an I/O error: SQLite may have rolled back or not
        return bool(connection.is_usable())
    except Exception:
        return False


def connected(connection: Any) -> bool:
    """Say whether the driver still holds a connection; asks no server."""
    driver = connection.connection
    closed = getattr(driver, "closed", None)
    if driver is None:
        return False
    if closed is not None:
        return not closed
    if connection.vendor == "mysql":
        try:
            driver.ping()
        except Exception:
            return False
    return True
