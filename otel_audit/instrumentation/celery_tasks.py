"""Celery's tasks as who acts, by name, whether or not ``[celery]`` has them recorded.

Nothing of Celery is imported here: it is waited for until the application does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_audit.audit_context import current_context, restore_context
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

    def end(self, task: Any, task_id: Any, args: Any, kwargs: Any, state: Any, retval: Any) -> None:
        """Record how a task ended; called again if a soft time limit comes meanwhile."""


class _Running:
    """Whether tasks are watched, who records them, and those that run, by id."""

    watched = False
    awaited = False
    recorder: Recorder | None = None
    tasks: Final[dict[str, Entered | None]] = {}
    patches: Final = AppliedPatches()


def table() -> list[Patch]:
    """List what is wrapped of Celery, whether or not ``[celery]`` has its tasks recorded."""
    why = "keeps whatever a receiver raises: a soft time limit that comes while one of ours runs, too"
    return [
        Patch("celery.utils.dispatch.signal:Signal.send", passing_interruptions, why, late=True),
        *[
            Patch(
                f"celery.app.trace:{name}",
                passing_interruptions,
                f"the same, bound before: it {why}",
                late=True,
            )
            for name in ("send_prerun", "send_postrun")
        ],
    ]


def passing_interruptions(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Signal.send``: a limit that comes while one of ours runs has to end the task, as without us.

    Not at the end of a task: that is over, and a limit would make a failure of what has succeeded.
    """
    if getattr(original, "__wrapped__", None) is not None:  # bound after the signal was wrapped
        return original

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        responses = original(*args, **kwargs)
        for receiver, response in responses:
            if isinstance(response, Exception) and _is_ours(receiver) and interrupts(response):
                if receiver is not _end:
                    raise response
                receiver(**kwargs)  # it comes once
        return responses

    return send


def _is_ours(receiver: Any) -> bool:
    return str(getattr(receiver, "__module__", "")).startswith("otel_audit.")


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
    outer = current_context()
    try:
        _Running.tasks[str(task_id)] = enter_task(name)
    except BaseException:  # a soft time limit, which ends the task
        if str(task_id) not in _Running.tasks:
            restore_context(outer)
        raise


def _end(
    sender: Any = None,
    task_id: Any = None,
    args: Any = None,
    kwargs: Any = None,
    state: Any = None,
    retval: Any = None,
    **_: Any,
) -> None:
    """End a task; called again if a limit comes meanwhile."""
    if _Running.recorder is not None:
        _Running.recorder.end(sender, task_id, args, kwargs, state, retval)
    entered = _Running.tasks.get(str(task_id))
    if entered is not None:
        from otel_audit.runs.scope import leave

        leave(entered)
    _Running.tasks.pop(str(task_id), None)
