"""The face of redaction: values, records and spans without what is sensitive, by one configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import PLACES, Place, PlaceRules, RedactionConfig
from otel_audit.redaction.records import RecordRedactor
from otel_audit.redaction.value_redactor import ValueRedactor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_audit.redaction.spans.span_redactor import SpanRedactor


class Redactor(ValueRedactor):
    """Applies the rules of one configuration. Thread safe."""

    def __init__(self, config: RedactionConfig) -> None:
        """Compile the rules.

        Raises:
            ConfigurationError: a pattern is not a regular expression, or the hmac key is too short.
        """
        super().__init__(config)
        self._places = {
            place: ValueRedactor(config, place) for place in PLACES if getattr(config, place) != PlaceRules()
        }
        self._records = RecordRedactor(self, self._places)
        self._spans: SpanRedactor | None = None

    def at(self, place: Place) -> ValueRedactor:
        """Return what applies the rules of one place; itself where the place has none of its own."""
        return self._places.get(place, self)

    def record(
        self,
        record: AuditRecord,
        strategies: Mapping[str, str] | None = None,
        key: Sequence[str] | None = None,
    ) -> AuditRecord:
        """Return a record without sensitive values; the same object if it holds none.

        Args:
            strategies: strategy by name of a field; decides before the rules do.
            key: strategy by part of the target's key, empty where only the text of it counts. Without it the
                type of the target says whether its key is a secret.
        """
        return self._records.record(record, strategies or {}, key)

    def are_clean(
        self, names: list[str], values: list[Any], texts: list[str], strategies: Mapping[str, str]
    ) -> bool:
        """Tell in one go that nothing in portable values, their names and other texts is sensitive.

        False is only a doubt; patterns of ``redaction.values`` are not asked. The lists may be added to.
        """
        return self._records.are_clean(names, values, texts, strategies)

    def key(self, identifier: str, strategies: Sequence[str]) -> str:
        """Return what may be shown of the key of an object, by its strategies as in :meth:`record`."""
        return self._records.identifier(identifier, strategies)

    def shortened(self, record: AuditRecord, strategies: Mapping[str, str] | None, limit: int) -> AuditRecord:
        """Return a record whose texts have at most ``limit`` characters, cut so that no secret is cut in two.

        What is cut says how long it was, and with a ``hmac_key`` its keyed hash.
        """
        return self._records.shortened(record, strategies or {}, limit)

    def span(self, span: ReadableSpan) -> ReadableSpan:
        """Return a finished span, or a redacted copy of it."""
        if self._spans is None:
            from otel_audit.redaction.spans.span_redactor import SpanRedactor

            self._spans = SpanRedactor(self)
        return self._spans.span(span)
