"""Who acts, on the spans of their work; never taken from them, nor from baggage.

An inbound ``baggage`` header is written by whoever sent the request. What stands in it under our names is
removed before anything can mistake it for ours, or send it on to others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context, get_current
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators import textmap
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Span

from otel_audit.audit_context import AuditContext, current_context
from otel_audit.audit_record import ANONYMOUS, UNKNOWN
from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once, set_attributes, set_first_attributes
from otel_audit.semconv import ACTOR_ID, REQUEST_ID
from otel_audit.values import portable

_OURS: Final = ("audit.", "otel_audit.")
_NOBODY: Final = frozenset({"", ANONYMOUS, UNKNOWN})


def known() -> dict[str, str]:
    """Return actor and request id of the current work, by attribute name, as far as they are known."""
    context = current_context()
    return {} if context is None else _values(context)


def _values(context: AuditContext) -> dict[str, str]:
    try:
        actor, request = context.who()
        values = {}
        if actor.id not in _NOBODY:
            values[ACTOR_ID] = text(actor.id)
        if request:
            values[REQUEST_ID] = text(request)
    except faults() as error:  # spans and outgoing calls go on, whatever a scope does
        say_once("Spans and outgoing calls do not name the actor: it cannot be determined", error)
        return {}
    return values


def text(value: object) -> str:
    """Return an id as records have it."""
    # As in a record: a lone surrogate would make the exporter of a span fail, and a header of a call.
    return value if type(value) is str and value.isascii() else str(portable(value))


def annotate(
    span: Span, context: AuditContext, set_: Callable[[Span, dict[str, str]], None] = set_attributes
) -> None:
    """Put actor and request id on a span that began before they were known, such as the request's own."""
    try:
        if span.is_recording():
            set_(span, _values(context))
    except faults() as error:  # a span may be anybody's
        say_once(
            f"Spans do not name the actor: {type(span).__qualname__} does not accept the attribute", error
        )


class ActorSpanProcessor(SpanProcessor):
    """Puts the actor and the request id of the current work on every span that starts in it."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Annotate a started span."""
        context = current_context()
        if context is not None:
            annotate(span, context, set_first_attributes)


class AuditPropagator(textmap.TextMapPropagator):
    """Another propagator, with baggage under our names kept out of what comes in and of what goes out."""

    def __init__(self, inner: textmap.TextMapPropagator) -> None:
        self.inner = inner

    def extract(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        getter: textmap.Getter[textmap.CarrierT] = textmap.default_getter,
    ) -> Context:
        """Extract without any baggage under our names."""
        extracted = self.inner.extract(carrier, context, getter=getter)
        try:
            # Without any propagator (OTEL_PROPAGATORS=none) the SDK extracts None, against its signature.
            return without_ours(extracted) if extracted else extracted
        except faults() as error:  # a context may be anybody's
            say_once(
                "Incoming baggage cannot be read; entries with otel-audit's names are not removed", error
            )
            return extracted

    def inject(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        setter: textmap.Setter[textmap.CarrierT] = textmap.default_setter,
    ) -> None:
        """Inject without any baggage under our names."""
        try:
            context = without_ours(get_current() if context is None else context)
        except faults() as error:  # a context may be anybody's, and the call goes on
            say_once(
                "Outgoing baggage cannot be read; entries with otel-audit's names are not removed", error
            )
        self.inner.inject(carrier, context, setter=setter)

    @property
    def fields(self) -> set[str]:
        """The fields the other propagator sets."""
        return self.inner.fields

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def is_ours(name: str) -> bool:
    """Say whether a name in baggage is one of ours."""
    return name.strip().lower().startswith(_OURS)


def without_ours(context: Context) -> Context:
    """Return a context without baggage under our names."""
    for name in baggage.get_all(context):
        if is_ours(str(name)):
            context = baggage.remove_baggage(name, context)
    return context


def install() -> AuditPropagator:
    """Wrap the process's propagator; :func:`uninstall` takes it away."""
    inner = get_global_textmap()
    if isinstance(inner, AuditPropagator):
        inner = inner.inner
    propagator = AuditPropagator(inner)
    set_global_textmap(propagator)
    return propagator


def uninstall(propagator: AuditPropagator) -> None:
    """Put the process's propagator back, unless another one was set meanwhile."""
    if get_global_textmap() is propagator:
        set_global_textmap(propagator.inner)
