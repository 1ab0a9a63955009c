"""Puts redaction in front of every span exporter of this process: those there already, and those to come.

Exporters hide inside processors. For the SDK's own processors we know where; of any other kind we look for an
exporter or a processor among its attributes, and where there is none, or it cannot be wrapped, the processor
itself is given redacted copies. A provider that is not the SDK's is searched for one that is; what cannot be
covered is said once, and never costs the application a span, nor the trail a record. What we rely on of the
SDK is in :data:`PATCHES` and :data:`_HOLDERS`, and checked when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

from otel_audit.interruptions import faults
from otel_audit.otel_api import say_once, tracer_provider
from otel_audit.redaction.spans.span_redactor import RedactingSpanExporter, SpanRedactor
from otel_audit.redaction.value_redactor import ValueRedactor

_logger = logging.getLogger(__name__)

PATCHES: Final = (
    # class or module, function, why
    (sdk_trace.SynchronousMultiSpanProcessor, "add_span_processor", "a processor is added later"),
    (sdk_trace.ConcurrentMultiSpanProcessor, "add_span_processor", "a processor is added later"),
    (sdk_trace.TracerProvider, "__init__", "a provider is made later, perhaps with processors"),
    (trace, "_set_tracer_provider", "a provider that is not the SDK's becomes the process's later"),
)
# Where the SDK's processors keep their exporter, in SDK 1.45: the path to the holder, and its attribute.
_HOLDERS: Final = (
    (BatchSpanProcessor, ("_batch_processor",), "_exporter"),
    (SimpleSpanProcessor, (), "span_exporter"),
)
_CHILDREN: Final = "_span_processors"  # of the processors that hand on to others
_API: Final = "opentelemetry.trace"  # its providers, a proxy and one that does nothing, export nothing
_MAX_DEPTH: Final = 4


class ExporterRedaction:
    """Redaction in front of exporters; :meth:`undo` takes it away again.

    Args:
        redactor: the rules; None redacts nothing.
        companion: a processor every provider gets as well, if given.
    """

    def __init__(self, redactor: ValueRedactor | None, companion: SpanProcessor | None = None) -> None:
        self._redactor = redactor
        self._companion = companion
        self._undo: list[Callable[[], None]] = []
        self._wrappers = {
            "add_span_processor": self._added,
            "__init__": self._made,
            "_set_tracer_provider": self._was_set,
        }

    def apply(self, provider: object) -> None:
        """Redact what ``provider`` exports, now and later, and what any provider made from now on exports."""
        for owner, name, _ in PATCHES:
            original = vars(owner).get(name)
            if original is None:
                say_once(f"This OpenTelemetry has no {owner.__name__}.{name}: spans may not be redacted")
                continue
            setattr(owner, name, _wrapped(original, self._wrappers[name]))
            self._undo.append(partial(setattr, owner, name, original))
        self.cover(provider)

    def cover(self, provider: object) -> None:
        """Redact what this provider exports, or say that this cannot be done; a proxy exports nothing."""
        kind = type(provider)
        if provider is None or kind.__module__.startswith(_API):
            return
        error: Exception | None = None
        try:
            if self._cover_inside(provider):
                return
        except Exception as failure:  # noqa: BLE001 - a provider may be anybody's
            error = failure
        what = "are not redacted and " if self._redactor is not None else ""
        say_once(
            f"The tracer provider is {kind.__module__}.{kind.__qualname__}, not the OpenTelemetry SDK's: its "
            f"spans {what}do not name the actor, except that of a request. Records do not depend on it",
            error,
        )

    def undo(self) -> None:
        """Take redaction away from everywhere it was put, the last first."""
        while self._undo:
            self._undo.pop()()

    def _cover_inside(self, provider: Any, depth: int = 0) -> bool:
        """Cover a provider of the SDK, or what another one holds of the SDK; False if that is nothing."""
        if isinstance(provider, TracerProvider):
            self._cover_sdk(provider)
            return True
        found = self._wrap_inside(provider, depth)
        for _, value in list(_attributes(provider)):
            if isinstance(value, trace.TracerProvider) and depth < _MAX_DEPTH:
                found = self._cover_inside(value, depth + 1) or found
        return found

    def _cover_sdk(self, provider: TracerProvider) -> None:
        active = provider._active_span_processor
        covered = self._covered(active)
        if covered is not active:
            self._set(provider, "_active_span_processor", covered)
        companion = self._companion
        if companion is not None and all(
            each is not companion for each in getattr(active, _CHILDREN, (companion,))
        ):
            provider.add_span_processor(companion)

    def _made(self, wrapped: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        self.cover(args[0])

    def _was_set(self, wrapped: Any, args: Any, kwargs: Any) -> None:
        wrapped(*args, **kwargs)
        self.cover(tracer_provider())

    def _added(self, wrapped: Any, args: Any, kwargs: Any) -> Any:
        if len(args) > 1:
            args = (args[0], self._covered(args[1]), *args[2:])
        elif "span_processor" in kwargs:
            kwargs = kwargs | {"span_processor": self._covered(kwargs["span_processor"])}
        return wrapped(*args, **kwargs)

    def _covered(self, processor: Any, depth: int = 0) -> Any:
        """Return the processor to use in place of this one: itself, with what it exports through wrapped."""
        redactor = self._redactor
        if (
            redactor is None
            or processor is self._companion
            or issubclass(type(processor), RedactingSpanProcessor)
        ):
            return processor
        try:
            return self._looked_into(processor, redactor, depth)
        except Exception as error:  # noqa: BLE001 - a processor may be anybody's
            _logger.info(
                "Spans are redacted before %s receives them: its exporter cannot be wrapped (%r)",
                type(processor).__name__,
                error,
            )
            return RedactingSpanProcessor(processor, redactor)

    def _looked_into(self, processor: Any, redactor: ValueRedactor, depth: int) -> Any:
        if hasattr(processor, _CHILDREN):
            before = tuple(getattr(processor, _CHILDREN))
            after = tuple(self._covered(child, depth + 1) for child in before)
            if any(new is not old for new, old in zip(after, before, strict=True)):
                self._set(processor, _CHILDREN, after)
            return processor
        for kind, path, attribute in _HOLDERS:
            if isinstance(processor, kind):
                self._wrap_known(processor, path, attribute)
                return processor
        if type(processor).on_end is SpanProcessor.on_end:
            return processor  # never sees a finished span
        if depth < _MAX_DEPTH and self._wrap_inside(processor, depth):
            return processor
        _logger.info(
            "Spans are redacted before %s receives them: its exporter is not known", type(processor).__name__
        )
        return RedactingSpanProcessor(processor, redactor)

    def _wrap_known(self, processor: Any, path: tuple[str, ...], attribute: str) -> None:
        holder = processor
        for step in path:
            holder = getattr(holder, step, None)
        exporter = getattr(holder, attribute, None)
        if exporter is None:
            raise AttributeError(f"no exporter in {'.'.join((*path, attribute))}")
        self._wrap(holder, attribute, exporter)

    def _wrap_inside(self, processor: Any, depth: int) -> bool:
        """Wrap the exporters and processors among an object's attributes; False if there are none."""
        found = False
        for name, value in list(_attributes(processor)):
            if isinstance(value, SpanExporter):
                self._wrap(processor, name, value)
                found = True
            elif isinstance(value, SpanProcessor):
                covered = self._covered(value, depth + 1)
                if covered is not value:
                    self._set(processor, name, covered)
                found = True
        return found

    def _wrap(self, holder: Any, attribute: str, exporter: Any) -> None:
        if self._redactor is not None and not isinstance(exporter, RedactingSpanExporter):
            self._set(holder, attribute, RedactingSpanExporter(exporter, self._redactor))

    def _set(self, holder: Any, attribute: str, value: Any) -> None:
        original = getattr(holder, attribute)
        setattr(holder, attribute, value)

        def restore() -> None:
            if getattr(holder, attribute, None) is value:
                setattr(holder, attribute, original)

        self._undo.append(restore)


class RedactingSpanProcessor(SpanProcessor):
    """Passes redacted copies of finished spans to another processor; delegates everything else to it."""

    def __init__(self, processor: SpanProcessor, redactor: ValueRedactor) -> None:
        self.processor = processor
        self._redact = SpanRedactor(redactor).span

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Hand on a started span."""
        self.processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        self.processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a finished span, redacted; not at all if that fails."""
        try:
            redacted = self._redact(span)
        except faults():
            _logger.exception(
                "A span could not be redacted and is withheld from %s", type(self.processor).__name__
            )
            return
        self.processor.on_end(redacted)

    def shutdown(self) -> None:
        """Shut the processor down."""
        self.processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the processor."""
        return self.processor.force_flush(timeout_millis)

    def __getattr__(self, name: str) -> Any:
        if name == "processor":
            raise AttributeError(name)
        return getattr(self.processor, name)


def _wrapped(original: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    # Not wrapt's: importing it brings asyncio along, 20 ms of every start.
    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, args, kwargs)

    return wrapped


def _attributes(processor: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(processor, "__dict__", {}).items()
    for kind in type(processor).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(processor, name):
                yield name, getattr(processor, name)
