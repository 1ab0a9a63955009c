"""Capturing what is recorded: around a block, or around every call of a function."""

from __future__ import annotations

import functools
import inspect
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from otel_audit.config.model import AuditConfig
from otel_audit.pipeline import provider
from otel_audit.pipeline.logger import Redacts
from otel_audit.testing.captured_audit import CapturedAudit
from otel_audit.testing.instrumented import NOT_INSTRUMENTED, instrumentors

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.testing.watched_writes import Written

_R = TypeVar("_R")
_PARAMETER: Final = "captured"


class AuditCapture(AbstractContextManager[CapturedAudit]):
    """What :func:`capture_audit` returns: usable in ``with``, and as a decorator."""

    def __init__(self, config: AuditConfig | None, redactor: Redacts | None) -> None:
        self._config = config
        self._redactor = redactor
        self._entered: list[AbstractContextManager[CapturedAudit]] = []

    def __enter__(self) -> CapturedAudit:
        """Begin to capture."""
        capturing = _capturing(self._config, self._redactor)
        captured = capturing.__enter__()
        self._entered.append(capturing)
        return captured

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """End it; what was captured can still be read."""
        return self._entered.pop().__exit__(kind, error, traceback)

    def __call__(self, function: Callable[..., _R]) -> Callable[..., _R]:
        """Capture what every call of ``function`` records.

        A parameter named ``captured`` receives it; callers, and pytest, do not see that parameter.
        """
        if not inspect.isroutine(function):
            raise TypeError(
                f"capture_audit() decorates functions and methods, not {_named(function)}: decorate its test "
                "methods, or use `with capture_audit()` in setUp()"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{_named(function)} yields: what is recorded behind its yield would be missed; write "
                "`with capture_audit() as captured:` around the yield"
            )
        signature = inspect.signature(function)
        wants = _PARAMETER in signature.parameters
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                with _capturing(self._config, self._redactor) as captured:
                    if wants:
                        kwargs[_PARAMETER] = captured
                    return await function(*args, **kwargs)

            wrapper: Any = asynchronous
        else:

            @functools.wraps(function)
            def synchronous(*args: Any, **kwargs: Any) -> Any:
                with _capturing(self._config, self._redactor) as captured:
                    if wants:
                        kwargs[_PARAMETER] = captured
                    return function(*args, **kwargs)

            wrapper = synchronous
        parameters = [each for name, each in signature.parameters.items() if name != _PARAMETER]
        wrapper.__signature__ = signature.replace(parameters=parameters)
        return wrapper  # type: ignore[no-any-return]


@overload
def capture_audit(config: Callable[..., _R], /) -> Callable[..., _R]: ...


@overload
def capture_audit(config: AuditConfig | None = None, *, redactor: Redacts | None = None) -> AuditCapture: ...


def capture_audit(
    config: AuditConfig | Callable[..., Any] | None = None, *, redactor: Redacts | None = None
) -> AuditCapture | Callable[..., Any]:
    """Record into a separate spool, through the real logger, and send nothing.

    Works in Django's test environment, where nothing else is recorded. Warns if nothing was recorded and no
    library is instrumented. As a decorator of functions, async functions and methods, with or without
    parentheses, it passes what was captured as the parameter ``captured``, where there is one.

    Args:
        config: Default: that of the running pipeline, or the defaults.
        redactor: Default: the configured one.
    """
    if config is None or isinstance(config, AuditConfig):
        return AuditCapture(config, redactor)
    return AuditCapture(None, redactor)(config)


@contextmanager
def _capturing(config: AuditConfig | None, redactor: Redacts | None) -> Iterator[CapturedAudit]:
    running = provider.configured()
    if config is None:
        config = running.config if running is not None else AuditConfig()
    with tempfile.TemporaryDirectory(prefix="otel-audit-") as directory:
        spool = msgspec.structs.replace(config.spool, directory=directory)
        pipeline = provider.AuditPipeline(
            msgspec.structs.replace(config, spool=spool),
            redactor=redactor,
            ship=False,
            directory=Path(directory),
        )
        before = provider.replace(pipeline)
        try:
            with _watched_writes(config) as writes:
                captured = CapturedAudit(pipeline, writes)
                yield captured
        finally:
            provider.replace(before)
            captured._close()
            pipeline.shutdown(0)
    if not captured and not instrumentors():
        warnings.warn(f"capture_audit() recorded nothing: {NOT_INSTRUMENTED}", stacklevel=4)


def _watched_writes(config: AuditConfig) -> AbstractContextManager[list[Written]]:
    """Watch Django's writes, where this is a process of Django."""
    apps = sys.modules.get("django.apps")
    if apps is None or not apps.apps.models_ready:
        return nullcontext([])
    from otel_audit.instrumentation.django.testing.watched_writes import watch

    return watch(config)


def _named(value: object) -> str:
    kind = "class " if isinstance(value, type) else ""
    return f"{kind}{getattr(value, '__qualname__', type(value).__qualname__)}"
