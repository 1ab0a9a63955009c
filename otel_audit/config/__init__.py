"""One typed configuration: file, Django settings, environment."""

from otel_audit.config.loader import LoadedConfig, load
from otel_audit.config.model import AuditConfig

__all__ = ["AuditConfig", "LoadedConfig", "load"]
