"""The trail at rest: its tables, and how it is asked."""

from otel_audit.store.entries import AuditEntry
from otel_audit.store.lookup import StoredRecord
from otel_audit.store.query import AuditStore, Page
from otel_audit.store.tasks import TaskEntry
from otel_audit.store.work import Work

__all__ = ["AuditEntry", "AuditStore", "Page", "StoredRecord", "TaskEntry", "Work"]
