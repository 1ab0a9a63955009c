"""What is sensitive, and what stands in its place: for records at birth and for every exported span."""

from otel_audit.redaction.redactor import Redactor

__all__ = ["Redactor"]
