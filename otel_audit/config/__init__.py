"""One typed configuration: file, Django settings, environment."""

from otel_audit.config.model import AuditConfig

__all__ = ["AuditConfig"]
