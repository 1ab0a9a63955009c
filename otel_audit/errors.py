"""The exceptions that this package raises."""

from __future__ import annotations


class AuditError(Exception):
    """Base class of all exceptions that otel-audit raises."""


class ConfigurationError(AuditError):
    """A setting is unknown, malformed or contradicts another; the message names where it was read."""


class StartupError(AuditError):
    """Audit could not be started, and ``on_error`` is ``fail_closed``; the message says why."""


class InvalidRecord(AuditError):
    """A record cannot be represented or sent, and was not accepted."""


class SpoolError(AuditError):
    """The spool cannot keep a record: directory not writable, disk full, size limit reached."""


class DeliveryError(AuditError):
    """The sink did not accept a batch. The records are still in the spool."""


class StoreError(AuditError):
    """The store cannot be reached, is not one of otel-audit, or refused a query."""


class QueryError(AuditError):
    """A query names a time, field or value that does not exist; the message lists what is valid."""
