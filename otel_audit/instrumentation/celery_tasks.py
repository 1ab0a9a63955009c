"""Celery's tasks as who acts, by name, whether or not ``[celery]`` has them recorded.

Nothing of Celery is imported here: it is waited for until the application does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_audit.instrumentation.patching import AppliedPatches, Patch
from otel_audit.interruptions import interrupts

if TYPE_CHECKING:
    from otel_audit.runs.scope import Entered

_SIGNALS: Final = "celery.signals"
_DISPATCH_UID: Final = "otel_audit"


class Recorder(Protocol):
    """What records tasks, and makes each of them a scope."""

    def begin(self, task: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        """Begin to record a task that is about to run."""

    def end(self, task: Any, state: Any, retval: Any) -> None:
        """Record how a task ended."""


class _Running:
    """Whether tasks are watched, who records them, and those that run, by id."""

    watched = False
    awaited = False
    recorder: Recorder | None = None
    tasks: Final[dict[str, Entered | None]] = {}
    patches: Final = AppliedPatches()


def table() -> list[Patch]:
    """List what is wrapped of Celery, whether or not ``[celery]`` has its tasks recorded."""
    return [
        Patch(
            "celery.utils.dispatch.signal:Signal.send",
            passing_interruptions,
            "keeps whatever a receiver raises: a soft time limit that comes while one of ours runs, too",
            late=True,
        )
    ]


def passing_interruptions(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Signal.send``: a limit that comes while a task publishes others has to end it, as without us.

    Not at the beginning and end of a task: there the limit is seconds away, or the task is over, and Celery
    tells nobody of the end of a task that was interrupted so early.
    """

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        responses = original(*args, **kwargs)
        for receiver, response in responses:
            if isinstance(response, Exception) and _is_ours(receiver) and interrupts(response):
                raise response
        return responses

    return send


def _is_ours(receiver: Any) -> bool:
    module = str(getattr(receiver, "__module__", ""))
    return module.startswith("otel_audit.") and module != __name__


def watch() -> None:
    """Give tasks their scope from now on, also if Celery is imported later."""
    if not _Running.watched:
        _Running.patches.apply(table())
    _Running.watched = True
    if _SIGNALS in sys.modules:
        _connect(sys.modules[_SIGNALS])
    elif not _Running.awaited:
        from wrapt import register_post_import_hook

        _Running.awaited = True
        register_post_import_hook(_connect, _SIGNALS)


def unwatch() -> None:
    """Leave tasks alone again."""
    _Running.watched = False
    _Running.patches.undo(only_ours=True)
    signals: Any = sys.modules.get(_SIGNALS)
    if signals is not None:
        signals.task_prerun.disconnect(dispatch_uid=_DISPATCH_UID)
        signals.task_postrun.disconnect(dispatch_uid=_DISPATCH_UID)


def record_by(recorder: Recorder | None) -> None:
    """Have tasks recorded, or no longer."""
    _Running.recorder = recorder


def _connect(signals: Any) -> None:
    if _Running.watched:
        signals.task_prerun.connect(_begin, weak=False, dispatch_uid=_DISPATCH_UID)
        signals.task_postrun.connect(_end, weak=False, dispatch_uid=_DISPATCH_UID)


def _begin(sender: Any = None, task_id: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    if _Running.recorder is not None:
        _Running.recorder.begin(sender, task_id, args, kwargs)
        return
    from otel_audit.tasks.work import enter_task

    name = str(getattr(sender, "name", "") or type(sender).__name__)
    _Running.tasks[str(task_id)] = enter_task(name)


def _end(sender: Any = None, task_id: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    if _Running.recorder is not None:
        _Running.recorder.end(sender, state, retval)
    entered = _Running.tasks.pop(str(task_id), None)
    if entered is not None:
        from otel_audit.runs.scope import leave

        leave(entered)
