"""The trail at rest: its tables, and how it is asked."""

from otel_audit.store.entries import AuditEntry
from otel_audit.store.query import AuditStore, Page, StoredRecord

__all__ = ["AuditEntry", "AuditStore", "Page", "StoredRecord"]
