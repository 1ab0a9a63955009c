"""Exit statuses of every command, and what is said when one fails."""

from __future__ import annotations

import enum

from otel_audit.errors import (
    AuditError,
    ConfigurationError,
    DeliveryError,
    QueryError,
    StoreError,
)


class Status(enum.IntEnum):
    """What a command's exit status says."""

    OK = 0
    NOTHING = 1
    USAGE = 2
    UNREACHABLE = 3
    FAILED = 4


EPILOG = (
    "Exit status: 0 done; 1 nothing found, or doctor found something broken; 2 wrong option, time or "
    "configuration; 3 store or sink not reachable, or it refused; 4 anything else that failed."
)
"""Stands below every help text."""


def status_of(error: AuditError) -> Status:
    """Choose the exit status of an error."""
    if isinstance(error, QueryError | ConfigurationError):
        return Status.USAGE
    if isinstance(error, StoreError | DeliveryError):
        return Status.UNREACHABLE
    return Status.FAILED
