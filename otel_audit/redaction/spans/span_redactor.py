"""Spans without secrets: a redacted copy on the way to the exporter, the original untouched.

Wrapping the exporter, and not a processor in front of it, makes the order of processors irrelevant and keeps
every value for the processors that are not exporters.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Status

from otel_audit.interruptions import faults
from otel_audit.redaction import routes
from otel_audit.redaction.value_redactor import ValueRedactor
from otel_audit.semconv import RECORD_ID, EventRecordId

_logger = logging.getLogger(__name__)

_STATEMENTS: Final = frozenset({"db.query.text", "db.statement", "db.query.summary"})
# `db.query.parameter.0`, `db.query.parameter.name`: of the statement beside them.
_PARAMETERS: Final = ("db.statement.parameters", "db.query.parameter", "db.operation.parameter")
_ROUTES: Final = ("http.route", "url.template")
_PATHS: Final = frozenset({"url.path", "url.full", "http.target", "http.url", "http.path", "url.original"})
_KNOWN_RESOURCES: Final = 64
_KNOWN_ROUTES: Final = 1024
_CARD_SIZED: Final = 10**12


class SpanRedactor:
    """Makes redacted copies of spans, by the rules of a :class:`ValueRedactor`."""

    def __init__(self, redactor: ValueRedactor) -> None:
        self._redactor = redactor
        self._resources: dict[int, tuple[Resource, Resource]] = {}
        self._scopes: dict[int, tuple[InstrumentationScope, InstrumentationScope]] = {}
        self._plain_routes: set[str | None] = {None}  # and no route at all

    def span(self, span: ReadableSpan) -> ReadableSpan:
        """Return the span, or a copy of it if anything in it is sensitive.

        Everything else is kept: ids, times, scope, kind, limits and the counts of what was dropped.
        """
        # A plain dict: to ask the SDK's own mapping for a name that it has not costs a microsecond.
        given: Any = span.attributes
        values: dict[str, Any] = given.copy() if given else {}
        attributes = self._redacted(values) if values else None
        # `events` and `links` copy what they give; nearly every span has neither.
        events = self._events(span.events) if span._events else None
        links = self._links(span.links) if span._links else None
        name = self._redactor.text(span.name)
        description = span.status.description
        status_text = self._redactor.text(description) if description else description
        resource = self._resource(span.resource)
        scope = span.instrumentation_scope
        if scope is not None:
            scope = known[1] if (known := self._scopes.get(id(scope))) else self._scope(scope)
        plain = values.get("http.route") in self._plain_routes and "url.template" not in values
        if not plain and (hidden := self._in_path(values)):
            attributes = self._without(values if attributes is None else attributes, hidden)
            name = routes.without(name, hidden, self._redactor.mask)
            if status_text:
                status_text = routes.without(status_text, hidden, self._redactor.mask)
            events = [self._event_without(event, hidden) for event in events or span.events]
        if (
            attributes is None
            and events is None
            and links is None
            and name is span.name
            and status_text is description
            and resource is span.resource
            and scope is span.instrumentation_scope
        ):
            return span
        return ReadableSpan(
            name=name,
            context=span.context,
            parent=span.parent,
            resource=resource,
            attributes=span._attributes if attributes is None else _bounded(span._attributes, attributes),
            events=span._events if events is None else _listed(events, span.dropped_events),
            links=span._links if links is None else _listed(links, span.dropped_links),
            kind=span.kind,
            instrumentation_info=getattr(span, "_instrumentation_info", None),
            status=span.status
            if status_text is description
            else Status(span.status.status_code, status_text),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )

    def _attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return a redacted copy, None if there is nothing to redact."""
        if not attributes:
            return None
        return self._redacted(attributes.copy())  # type: ignore[attr-defined] # a mapping proxy

    def _redacted(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """Return the values changed in place, None if there is nothing to redact."""
        names, texts = self._redactor.clean_names, self._redactor.clean_texts
        doubted = [
            name
            for name, value in values.items()
            if not (
                name in names
                and (
                    value in texts
                    if (kind := type(value)) is str
                    else (kind is int and value < _CARD_SIZED) or kind is bool
                )
            )
        ]
        return self._doubted(values, doubted) if doubted else None

    def _in_path(self, attributes: dict[str, Any]) -> set[str]:
        """Return what the path of a span has at the sensitive parameters of its route.

        ``reset/<token>/`` of Django, ``/invite/{token}`` of Starlette; nearly always nothing.
        """
        found: set[str] = set()
        for name in _ROUTES:
            if name not in attributes or (route := attributes[name]) in self._plain_routes:
                continue
            if type(route) is not str:
                continue
            if routes.secret_groups(route, self._redactor.is_secret):
                for path_name in _PATHS:
                    if type(path := attributes.get(path_name)) is str:
                        found |= routes.secrets(route, self._redactor.text(path), self._redactor.is_secret)
            else:
                if len(self._plain_routes) >= _KNOWN_ROUTES:
                    self._plain_routes = {None}
                self._plain_routes.add(route)
        found.discard(self._redactor.mask)
        return found

    def _without(self, given: dict[str, Any], hidden: set[str]) -> dict[str, Any]:
        """Return attributes without these texts; a route keeps its own words."""
        mask = self._redactor.mask
        return {
            name: routes.without(value, hidden, mask) if type(value) is str and name not in _ROUTES else value
            for name, value in given.items()
        }

    def _doubted(self, values: dict[str, Any], names: list[str]) -> dict[str, Any] | None:
        redactor = self._redactor
        if not redactor.has_own_values and all(
            values[name].__class__ is str
            and name not in _STATEMENTS
            and redactor.names.decide(name) == "clean"
            for name in names
        ):
            # Most often the doubt is about texts not seen before: look at them in one go.
            unknown = [values[name] for name in names]
            keys = [name for name in names if name not in redactor.clean_names]
            if not redactor.suspects("\0".join((*unknown, *keys))):
                redactor.remember_clean(names, unknown)
                return None
        changed = False
        if not _STATEMENTS.isdisjoint(names) and "parameter" in "\0".join(values):
            parameters = [name for name in values if name.startswith(_PARAMETERS)]
            if parameters and self._belong_to_secret(values):
                changed = True
                values.update(dict.fromkeys(parameters, redactor.mask))
        for name in names:
            value = values[name]
            if (
                name not in redactor.clean_names
                and redactor.suspects(name)
                and (shown := redactor.text(name)) != name
            ):
                values[shown] = redactor.attribute(name, values.pop(name))
                changed = True
                continue
            if name in _STATEMENTS and isinstance(value, str) and redactor.names.decide(name) == "clean":
                redacted: Any = redactor.statement(value)
            else:
                redacted = redactor.attribute(name, value)
            if redacted is not value:
                values[name] = redacted
                changed = True
            elif redactor.names.decide(name) == "clean":
                redactor.remember_clean((name,), ())
        return values if changed else None

    def _belong_to_secret(self, values: Mapping[str, Any]) -> bool:
        """Say whether the statement of these positional parameters names a sensitive column."""
        return any(
            isinstance(text := values.get(name), str) and self._redactor.names_secret(text)
            for name in _STATEMENTS
        )

    def _events(self, events: Sequence[Event]) -> list[Event] | None:
        changed: list[Event] | None = None
        for index, event in enumerate(events):
            attributes = event.attributes
            if attributes is not None and type(attributes.get(RECORD_ID)) is EventRecordId:
                continue  # an audit record's own event was redacted when the record was made
            values = self._attributes(_proxy(attributes))
            name = self._redactor.text(event.name)
            if values is None and name is event.name:
                continue
            if changed is None:
                changed = list(events)
            kept = attributes if values is None else _bounded(attributes, values)
            changed[index] = Event(name=name, attributes=kept, timestamp=event.timestamp)
        return changed

    def _event_without(self, event: Event, hidden: set[str]) -> Event:
        if event.attributes is None or type(event.attributes.get(RECORD_ID)) is EventRecordId:
            return event
        values = self._without(dict(event.attributes), hidden)
        return Event(event.name, _bounded(event.attributes, values), event.timestamp)

    def _links(self, links: Sequence[Link]) -> list[Link] | None:
        changed: list[Link] | None = None
        for index, link in enumerate(links):
            values = self._attributes(_proxy(link.attributes))
            if values is not None:
                if changed is None:
                    changed = list(links)
                changed[index] = Link(link.context, _bounded(link.attributes, values))
        return changed

    def _scope(self, scope: InstrumentationScope) -> InstrumentationScope:
        values = self._attributes(_proxy(scope.attributes))
        redacted = (
            scope
            if values is None
            else InstrumentationScope(scope.name, scope.version, scope.schema_url, values)
        )
        if len(self._scopes) >= _KNOWN_RESOURCES:
            self._scopes.clear()
        self._scopes[id(scope)] = (scope, redacted)
        return redacted

    def _resource(self, resource: Resource) -> Resource:
        known = self._resources.get(id(resource))
        if known is not None:
            return known[1]
        values = self._attributes(_proxy(resource.attributes))
        redacted = resource if values is None else Resource(values, resource.schema_url)
        if len(self._resources) >= _KNOWN_RESOURCES:
            self._resources.clear()
        self._resources[id(resource)] = (resource, redacted)  # holds the original, so that its id stays taken
        return redacted


class RedactingSpanExporter(SpanExporter):
    """Passes redacted spans on to another exporter.

    A span that cannot be redacted goes on without its content, never as it is.
    """

    def __init__(self, exporter: SpanExporter, redactor: ValueRedactor) -> None:
        self.exporter = exporter
        self._redact = SpanRedactor(redactor).span
        self._shutdown_takes_timeout = "timeout_millis" in inspect.signature(exporter.shutdown).parameters

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans without what is sensitive in them."""
        return self.exporter.export([self._redacted(span) for span in spans])

    def _redacted(self, span: ReadableSpan) -> ReadableSpan:
        try:
            return self._redact(span)
        except faults():
            _logger.exception("A span could not be redacted and is exported without its content")
            return ReadableSpan(
                name="redaction failed",
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                kind=span.kind,
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Shut the exporter down."""
        if self._shutdown_takes_timeout:
            self.exporter.shutdown(timeout_millis=timeout_millis)  # type: ignore[call-arg]
        else:
            self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self.exporter.force_flush(timeout_millis)

    def __getattr__(self, name: str) -> Any:
        # What else an exporter offers (its endpoint, a test's list of spans) stays in reach.
        if name == "exporter":
            raise AttributeError(name)
        return getattr(self.exporter, name)


def _proxy(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return attributes if attributes is None or hasattr(attributes, "copy") else dict(attributes)


def _bounded(original: Any, values: dict[str, Any]) -> BoundedAttributes:
    """Put clean values into the SDK's container, with the limits and the count of dropped ones it had.

    Handing the values to its constructor would clean each again (facts: opentelemetry, A3: +158 µs a span).
    """
    bounded = BoundedAttributes(
        getattr(original, "maxlen", None),
        immutable=True,
        max_value_len=getattr(original, "max_value_len", None),
    )
    bounded._dict = values
    bounded.dropped = getattr(original, "dropped", 0)
    return bounded


def _listed(items: list[Any], dropped: int) -> BoundedList[Any]:
    bounded = BoundedList.from_seq(None, items)
    bounded.dropped = dropped
    return bounded
