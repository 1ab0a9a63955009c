"""Audit trail for Django and SQLAlchemy applications, on OpenTelemetry."""

from otel_audit.version import __version__

__all__ = ["__version__"]
