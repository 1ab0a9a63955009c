"""Work that goes on in another thread or process: in the context of the call that asked for it, or of nobody.

A call handed to an executor or a ``Timer`` keeps the context it was asked for in. A bare thread has its
starter's while that work goes on (:class:`~otel_audit.audit_context.StarterScope`). The threads of a pool are
started by whoever needs the first one; they have no context but that of each call.

``asyncio.to_thread`` and asgiref's ``sync_to_async`` copy context variables themselves. In force while any of
our instrumentors is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from otel_audit.audit_context import (
    AuditContext,
    ContextFields,
    StarterScope,
    current_context,
    enter_context,
    handed_over,
    leave_scope,
    without_context,
)
from otel_audit.audit_record import UNKNOWN, Actor
from otel_audit.instrumentation.patching import AppliedPatches, Patch
from otel_audit.interruptions import faults

_PROCESS_POOLS: Final = "concurrent.futures.process"
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
    awaits_process_pools = False
    process_pools: Final = AppliedPatches()


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


def watch_process_pools() -> None:
    """Wrap process pools as well, now or once the application imports them; they cost much to import."""
    if _PROCESS_POOLS in sys.modules:
        _wrap_process_pools()
    elif not Handing.awaits_process_pools:
        from wrapt import register_post_import_hook

        Handing.awaits_process_pools = True
        register_post_import_hook(lambda _: _wrap_process_pools(), _PROCESS_POOLS)


def _wrap_process_pools() -> None:
    if Handing.over:
        Handing.process_pools.apply(
            [
                Patch(
                    f"{_PROCESS_POOLS}:ProcessPoolExecutor.submit",
                    submitting_to_processes,
                    "the call takes along who asked for it; the worker is forked by anybody's request",
                )
            ]
        )


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


def submitting_to_processes(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``ProcessPoolExecutor.submit``: another process gets the values of the context as they are now."""

    def submit(executor: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = current_context() if Handing.over else None
        if context is None:
            return original(executor, fn, *args, **kwargs)
        try:
            fields = context.fields()
        except faults():  # a scope may be anybody's; the call goes on
            fields = ContextFields(actor=Actor(UNKNOWN), truncated=True)
        token = without_context()
        try:
            return original(executor, call_for, fields, fn, *args, **kwargs)
        finally:
            leave_scope(token)

    return submit


class _AskedFor:
    """The scope of a call that another process has asked for."""

    __slots__ = ("__weakref__", "_fields", "ended")

    def __init__(self, fields: ContextFields) -> None:
        self._fields = fields
        self.ended = False

    def fields(self) -> ContextFields:
        """Return what the context of the call was."""
        return self._fields


def call_for(fields: ContextFields, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a call in a process of a pool, on behalf of whoever asked for it in another process."""
    scope = _AskedFor(fields)
    try:
        return _call(AuditContext(scope), fn, *args, **kwargs)
    finally:
        scope.ended = True


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
