"""Celery's tasks as who acts, by name; whoever asked for a task is not known yet.

Nothing of Celery is imported here: it is waited for until the application does.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from contextvars import Token
from typing import Any, Final

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    current_context,
    enter_context,
    leave_scope,
)
from otel_audit.audit_record import Actor

_SIGNALS: Final = "celery.signals"
_DISPATCH_UID: Final = "otel_audit"


class _Running:
    """Whether tasks are watched, and those that run, by id."""

    watched = False
    awaited = False
    tasks: Final[dict[str, tuple[SystemScope, Token[AuditContext | None]]]] = {}


def watch() -> None:
    """Give tasks their scope from now on, also if Celery is imported later."""
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
    signals: Any = sys.modules.get(_SIGNALS)
    if signals is not None:
        signals.task_prerun.disconnect(dispatch_uid=_DISPATCH_UID)
        signals.task_postrun.disconnect(dispatch_uid=_DISPATCH_UID)


def _connect(signals: Any) -> None:
    if _Running.watched:
        signals.task_prerun.connect(_begin, weak=False, dispatch_uid=_DISPATCH_UID)
        signals.task_postrun.connect(_end, weak=False, dispatch_uid=_DISPATCH_UID)


def _begin(sender: Any = None, task_id: Any = None, **kwargs: Any) -> None:
    outer = current_context()
    scope = None if outer is None else outer.scope
    if scope is not None and not (isinstance(scope, StarterScope) and scope.ended):
        return  # called eagerly by a request or a command: that is who acts
    name = str(getattr(sender, "name", "") or type(sender).__name__)
    task = SystemScope(Actor(id=name, type="system"), name)
    overrides = () if outer is None else outer.overrides
    _Running.tasks[str(task_id)] = task, enter_context(AuditContext(task, overrides))


def _end(task_id: Any = None, **kwargs: Any) -> None:
    found = _Running.tasks.pop(str(task_id), None)
    if found is not None:
        scope, token = found
        scope.ended = True
        with suppress(ValueError):  # another context than the task began in: a pool that switches between
            leave_scope(token)
