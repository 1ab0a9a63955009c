"""Puts redaction in front of every span exporter of this process: those there already, and those to come.

Exporters hide inside processors. For the SDK's own processors we know where; of any other kind we look for an
exporter or a processor among its attributes, and where there is none the processor itself is given redacted
copies. What we rely on of the SDK is in :data:`PATCHES` and :data:`_HOLDERS`, and checked when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

from otel_audit.errors import StartupError
from otel_audit.interruptions import faults
from otel_audit.redaction.redactor import Redactor
from otel_audit.redaction.spans import RedactingSpanExporter

_logger = logging.getLogger(__name__)

PATCHES: Final = (
    # class, method, why
    (sdk_trace.SynchronousMultiSpanProcessor, "add_span_processor", "a processor is added later"),
    (sdk_trace.ConcurrentMultiSpanProcessor, "add_span_processor", "a processor is added later"),
    (sdk_trace.TracerProvider, "__init__", "a provider is made later, perhaps with processors"),
)
# Where the SDK's processors keep their exporter, in SDK 1.45: the path to the holder, and its attribute.
_HOLDERS: Final = (
    (BatchSpanProcessor, ("_batch_processor",), "_exporter"),
    (SimpleSpanProcessor, (), "span_exporter"),
)
_CHILDREN: Final = "_span_processors"  # of the processors that hand on to others
_MAX_DEPTH: Final = 4


class ExporterRedaction:
    """Redaction in front of exporters; :meth:`undo` takes it away again.

    Args:
        redactor: the rules; None redacts nothing.
        companion: a processor every provider gets as well, if given.
    """

    def __init__(self, redactor: Redactor | None, companion: SpanProcessor | None = None) -> None:
        self._redactor = redactor
        self._companion = companion
        self._undo: list[Callable[[], None]] = []

    def apply(self, provider: object) -> None:
        """Redact what ``provider`` exports, now and later, and what any provider made from now on exports.

        Raises:
            StartupError: this is not the SDK's provider, or the SDK keeps its exporters where we do not know.
        """
        try:
            for owner, method, _ in PATCHES:
                wrapper = self._made if method == "__init__" else self._added
                original = owner.__dict__[method]
                setattr(owner, method, _wrapped(original, wrapper))
                self._undo.append(partial(setattr, owner, method, original))
            self.cover(provider)
        except BaseException:
            self.undo()
            raise

    def cover(self, provider: object) -> None:
        """Redact what this provider exports; one that exports nothing yet (a proxy) is left alone."""
        if isinstance(provider, TracerProvider):
            self._cover_sdk(provider)
        elif self._redactor is not None and not type(provider).__module__.startswith("opentelemetry.trace"):
            raise StartupError(
                f"the tracer provider is a {type(provider).__module__}.{type(provider).__qualname__}, not "
                "the OpenTelemetry SDK's: its spans cannot be redacted. Set redaction.spans = false to "
                "export them as they are"
            )

    def undo(self) -> None:
        """Take redaction away from everywhere it was put, the last first."""
        while self._undo:
            self._undo.pop()()

    def _cover_sdk(self, provider: TracerProvider) -> None:
        active = provider._active_span_processor
        covered = self._covered(active)
        if covered is not active:
            self._set(provider, "_active_span_processor", covered)
        if self._companion is not None and self._companion not in getattr(
            active, _CHILDREN, (self._companion,)
        ):
            provider.add_span_processor(self._companion)

    def _made(self, wrapped: Any, provider: TracerProvider, args: Any, kwargs: Any) -> None:
        wrapped(provider, *args, **kwargs)
        self._cover_sdk(provider)

    def _added(self, wrapped: Any, owner: Any, args: Any, kwargs: Any) -> Any:
        if args:
            args = (self._covered(args[0]), *args[1:])
        elif "span_processor" in kwargs:
            kwargs = kwargs | {"span_processor": self._covered(kwargs["span_processor"])}
        return wrapped(owner, *args, **kwargs)

    def _covered(self, processor: Any, depth: int = 0) -> Any:
        """Give the processor to use in place of this one: itself, with what it exports through wrapped."""
        if (
            self._redactor is None
            or processor is self._companion
            or isinstance(processor, RedactingSpanProcessor)
        ):
            return processor
        if hasattr(processor, _CHILDREN):
            children = tuple(self._covered(child, depth + 1) for child in getattr(processor, _CHILDREN))
            if children != getattr(processor, _CHILDREN):
                self._set(processor, _CHILDREN, children)
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
            "Spans are redacted before %s sees them: its exporter is not known", type(processor).__name__
        )
        return RedactingSpanProcessor(processor, self._redactor)

    def _wrap_known(self, processor: Any, path: tuple[str, ...], attribute: str) -> None:
        holder = processor
        for step in path:
            holder = getattr(holder, step, None)
        exporter = getattr(holder, attribute, None)
        if exporter is None:
            raise StartupError(
                f"{type(processor).__qualname__} of this OpenTelemetry SDK keeps its exporter where we do "
                "not find it: spans would be exported with what is sensitive in them. Use an SDK of "
                "version 1.45, or set redaction.spans = false"
            )
        self._wrap(holder, attribute, exporter)

    def _wrap_inside(self, processor: Any, depth: int) -> bool:
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
    """Gives another processor redacted copies of finished spans."""

    def __init__(self, processor: SpanProcessor, redactor: Redactor) -> None:
        self.processor = processor
        self._redactor = redactor

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Hand on a started span."""
        self.processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        self.processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a finished span, redacted; not at all if that fails."""
        try:
            redacted = self._redactor.span(span)
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


def _wrapped(original: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    # Not wrapt's: importing it brings asyncio along, 20 ms of every start.
    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(original, self, args, kwargs)

    return method


def _attributes(processor: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(processor, "__dict__", {}).items()
    for kind in type(processor).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(processor, name):
                yield name, getattr(processor, name)
