"""Management commands of Django as tasks by their names: ``[celery] commands``."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from otel_audit.instrumentation.patching import Listener, Patch
from otel_audit.interruptions import faults
from otel_audit.pipeline.failures import Failures


class CommandTasks:
    """Registers a task for each command in every application of Celery, once that has its own.

    An application's own task of that name is left as it is.
    """

    def __init__(self, names: Iterable[str], failures: Failures) -> None:
        self._names = tuple(names)
        self._failures = failures
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._made: list[tuple[weakref.ref[Any], str, Any]] = []

    def table(self) -> list[Patch | Listener]:
        """List what is wrapped and listened to."""
        why = "management commands are tasks of the same name"
        return [
            Patch("celery.app.base:Celery.finalize", self.finalizing, why, late=True),
            Listener("celery.app.base:finalized", self.begin, self.end, why, late=True),
        ]

    def finalizing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Celery.finalize``, after which an application has all of its tasks."""

        @functools.wraps(original)
        def finalize(app: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = original(app, *args, **kwargs)
            if app not in self._known and app.finalized:
                self._register(app)
            return result

        return finalize

    def begin(self) -> None:
        """Register them in applications that have their tasks already."""
        from celery import _state

        for app in _state._get_active_apps():
            if app.finalized:
                self._register(app)

    def end(self) -> None:
        """Take them back."""
        while self._made:
            reference, name, task = self._made.pop()
            app = reference()
            if app is not None and app._tasks.get(name) is task:
                app._tasks.pop(name)
        self._known.clear()

    def _register(self, app: Any) -> None:
        self._known.add(app)
        try:
            for name in self._names:
                if name not in app._tasks:
                    task = app._task_from_fun(_running(name), name=name)
                    self._made.append((weakref.ref(app), name, task))
        except faults() as error:
            self._failures.report("commands", error)


def _running(command: str) -> Callable[..., None]:
    def run(*args: Any, **options: Any) -> None:
        from django.core.management import call_command

        call_command(command, *args, **options)

    run.__name__ = run.__qualname__ = command
    run.__doc__ = f"Run the management command {command}."
    return run
