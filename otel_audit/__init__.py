"""Audit trail for Django and SQLAlchemy applications, on OpenTelemetry: the public API.

Names other than those that ``context`` and ``record`` need are imported at first access.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otel_audit.audit_context import annotate, context, relate
from otel_audit.audit_record import Actor, AuditRecord, Change, Target
from otel_audit.recording import record
from otel_audit.version import __version__

if TYPE_CHECKING:
    from otel_audit.authentication import login, login_failed, logout, set_actor
    from otel_audit.capture.opt_in import audit_models
    from otel_audit.config.model import AuditConfig
    from otel_audit.errors import (
        AuditError,
        ConfigurationError,
        DeliveryError,
        InvalidRecord,
        QueryError,
        SpoolError,
        StartupError,
        StoreError,
    )
    from otel_audit.http.asgi import ASGIAuditMiddleware
    from otel_audit.http.requests.marks import (
        AuditExemptMixin,
        AuditRequestMixin,
        audit_exempt,
        audit_request,
    )
    from otel_audit.http.wsgi import WSGIAuditMiddleware
    from otel_audit.jobs import job
    from otel_audit.messages import accept_context, sign_context
    from otel_audit.span_redaction import RedactingSpanProcessor
    from otel_audit.startup import setup, shutdown

__all__ = [
    "ASGIAuditMiddleware",
    "Actor",
    "AuditConfig",
    "AuditError",
    "AuditExemptMixin",
    "AuditRecord",
    "AuditRequestMixin",
    "Change",
    "ConfigurationError",
    "DeliveryError",
    "InvalidRecord",
    "QueryError",
    "RedactingSpanProcessor",
    "SpoolError",
    "StartupError",
    "StoreError",
    "Target",
    "WSGIAuditMiddleware",
    "__version__",
    "accept_context",
    "annotate",
    "audit_exempt",
    "audit_models",
    "audit_request",
    "context",
    "job",
    "login",
    "login_failed",
    "logout",
    "record",
    "relate",
    "set_actor",
    "setup",
    "shutdown",
    "sign_context",
]

_HOMES = {
    "ASGIAuditMiddleware": "otel_audit.http.asgi",
    "WSGIAuditMiddleware": "otel_audit.http.wsgi",
    "AuditConfig": "otel_audit.config.model",
    "RedactingSpanProcessor": "otel_audit.span_redaction",
    "audit_models": "otel_audit.capture.opt_in",
    "job": "otel_audit.jobs",
}
_HOMES |= dict.fromkeys(
    ("AuditExemptMixin", "AuditRequestMixin", "audit_exempt", "audit_request"),
    "otel_audit.http.requests.marks",
)
_HOMES |= dict.fromkeys(("setup", "shutdown"), "otel_audit.startup")
_HOMES |= dict.fromkeys(("accept_context", "sign_context"), "otel_audit.messages")
_HOMES |= dict.fromkeys(("login", "login_failed", "logout", "set_actor"), "otel_audit.authentication")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "otel_audit.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
