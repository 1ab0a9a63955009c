"""OpenTelemetry's API, asked so that no answer of it costs a record.

Tracer provider, spans and context may be anybody's: another vendor's, a wrapper's, a test's. What they cannot
say is left out of the record, and logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, TracerProvider, get_current_span

from otel_audit.interruptions import faults

SDK: Final = "opentelemetry.sdk.trace"
"""The module of the SDK's spans."""
_logger: Final = logging.getLogger(__name__)
_said: Final[set[str]] = set()
_MOST: Final = 1000
_api: Final = vars(trace)


def tracer_provider() -> TracerProvider | None:
    """Return the tracer provider of this process; None where it cannot be loaded."""
    try:
        return trace.get_tracer_provider()
    except faults() as error:  # OTEL_PYTHON_TRACER_PROVIDER may name anything
        say_once("OpenTelemetry's tracer provider cannot be loaded", error)
        return None


def current_tracer_provider() -> object:
    """Return the tracer provider that has been set in this process; None while none has.

    For each record: nothing is loaded, and the environment, most of the time :func:`tracer_provider` takes,
    is not looked at.
    """
    found = _api.get("_TRACER_PROVIDER", _api)
    return tracer_provider() if found is _api else found


def current_span() -> Span:
    """Return the current span; one that records nothing where there is none or the context fails."""
    try:
        return get_current_span()
    except faults() as error:  # OTEL_PYTHON_CONTEXT may name anything
        say_once("Records have no trace id: OpenTelemetry's context cannot tell which span is current", error)
        return INVALID_SPAN


def trace_ids(span: Span) -> tuple[str, str]:
    """Return trace id and span id in hexadecimal; both empty where the span has none that are valid."""
    try:
        context = span.get_span_context()
        trace_id, span_id = context.trace_id, context.span_id
        if not trace_id:
            return "", ""
        return trace_id.to_bytes(16, "big").hex(), span_id.to_bytes(8, "big").hex()
    except faults() as error:  # a span may be anybody's
        say_once(f"Records have no trace id: {type(span).__qualname__} has no valid ids", error)
        return "", ""


def set_attributes(span: Span, attributes: dict[str, str]) -> None:
    """Set attributes of ASCII text on a recording span.

    A span of the SDK gets them past the SDK's look at each, which takes five times as long as the rest. What
    is used of it here is private; should it change, the public way is as good.
    """
    if type(span).__module__ != SDK or not _set_directly(span, attributes):
        span.set_attributes(attributes)


def set_first_attributes(span: Span, attributes: dict[str, str]) -> None:
    """Set attributes of ASCII text on a span that is being started, as :func:`set_attributes` does.

    Nobody else has it yet, so nothing of the SDK's is locked: two locks take longer than the rest.
    """
    if type(span).__module__ != SDK or not _set_first(span, attributes):
        span.set_attributes(attributes)


def _set_directly(span: Any, attributes: dict[str, str]) -> bool:
    try:
        with span._lock, span._attributes._lock:
            return _set_first(span, attributes)
    except (AttributeError, TypeError):
        return False


def _set_first(span: Any, attributes: dict[str, str]) -> bool:
    try:
        held = span._attributes
        most = held.maxlen
        if (
            held.max_value_len is not None
            or span._end_time is not None
            or (most is not None and len(held._dict) + len(attributes) > most)
        ):
            return False
        held._dict.update(attributes)
    except (AttributeError, TypeError):
        return False
    return True


def say_once(what: str, error: BaseException | None = None) -> None:
    """Log a warning the first time ``what`` is said in this process, with the error that led to it."""
    if what in _said or len(_said) >= _MOST:
        return
    _said.add(what)
    if error is None:
        _logger.warning("%s", what)
    else:
        _logger.warning("%s: %r", what, error, exc_info=error)
