"""Work that goes on in another thread: in the context of the call that asked for it, or of nobody.

A call handed to an executor or a ``Timer`` keeps the context it was asked for in. A bare thread has its
starter's while that work goes on (:class:`~otel_audit.context.StarterScope`). The threads of a pool are
started by whoever needs the first one; they have no context but that of each call.

``asyncio.to_thread`` and asgiref's ``sync_to_async`` copy context variables themselves. In force while any of
our instrumentors is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from otel_audit.context import (
    AuditContext,
    StarterScope,
    current_context,
    enter_context,
    handed_over,
    leave_scope,
    without_context,
)
from otel_audit.instrumentation.patching import Patch

_POOLS: Final = (
    "anyio.",
    "asgiref.",
    "concurrent.futures.",
    "multiprocessing.",
    "opentelemetry.",
    "otel_audit.",
)
"""Packages whose threads work for anybody, whoever was the first to need one."""


class Handing:
    """Whether contexts are handed over: a wrapper that others have wrapped again stays, and does nothing."""

    over = False


def table() -> list[Patch]:
    """List what is wrapped of the standard library."""
    return [
        Patch(
            "concurrent.futures.thread:ThreadPoolExecutor.submit",
            submitting,
            "the call runs in the context it was asked for in, the worker in none",
        ),
        Patch(
            "threading:Thread.start",
            starting,
            "a thread says who started it; a Timer is a call for later",
        ),
    ]


def submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Executor.submit``."""

    def submit(executor: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = handed_over() if Handing.over else None
        if context is None:
            return original(executor, fn, *args, **kwargs)
        token = without_context()  # it may start a worker, which will serve others as well
        try:
            return original(executor, _call, context, fn, *args, **kwargs)
        finally:
            leave_scope(token)

    return submit


def starting(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap ``Thread.start``."""

    def start(thread: threading.Thread, /) -> None:
        context = current_context() if Handing.over else None
        if context is None or thread.ident is not None or _serves_anybody(thread):
            return original(thread)
        if isinstance(thread, threading.Timer):
            work = handed_over() or context
        else:
            work = AuditContext(StarterScope(context), span=context.span)
        _run_in(work, thread)
        try:
            return original(thread)
        except BaseException:  # no thread could be started: it may be tried again
            vars(thread).pop("run", None)
            raise

    return start


def _serves_anybody(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    module = getattr(target, "__module__", None) if type(thread) is threading.Thread else None
    names = (f"{module}.", f"{type(thread).__module__}.")
    return any(name.startswith(_POOLS) for name in names)


def _run_in(context: AuditContext, thread: threading.Thread) -> None:
    """Have a thread run in a context. Of its class anything may be overridden but the instance's own."""
    run = thread.run

    def run_in_context() -> None:
        vars(thread).pop("run", None)
        _call(context, run)

    vars(thread)["run"] = run_in_context


def _call(context: AuditContext, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = enter_context(context)
    try:
        return fn(*args, **kwargs)
    finally:
        leave_scope(token)
