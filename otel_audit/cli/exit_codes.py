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
    "Exit status: 0 success; 1 nothing found, or doctor found a fault; 2 invalid option, time or "
    "configuration; 3 the store or the sink cannot be reached or refused; 4 any other failure."
)
"""Stands below every help text."""


def status_of(error: AuditError) -> Status:
    """Choose the exit status of an error."""
    if isinstance(error, QueryError | ConfigurationError):
        return Status.USAGE
    if isinstance(error, StoreError | DeliveryError):
        return Status.UNREACHABLE
    return Status.FAILED
