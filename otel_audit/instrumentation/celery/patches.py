"""Everything of Celery that is wrapped or listened to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_audit.instrumentation.celery.recorder import CeleryTasks
from otel_audit.instrumentation.patching import Listener, Patch

_UID = "otel_audit.celery"


def table(tasks: CeleryTasks) -> list[Patch | Listener]:
    """List what records tasks; none of it is imported for this."""
    listened: list[tuple[str, Callable[..., Any], str]] = [
        ("before_task_publish", tasks.before_publish, "the message is made: its id, and where it goes"),
        ("task_revoked", tasks.revoked, "it never ran: revoked, or expired"),
        ("task_unknown", tasks.unknown, "it never ran: this worker does not know it"),
        ("task_rejected", tasks.rejected, "it never ran: the message is not one of a task"),
    ]
    entries: list[Patch | Listener] = [
        Patch(
            "celery.app.base:Celery.send_task",
            tasks.sending,
            "all ways to publish a task lead here; whether the broker took it is known here alone",
            late=True,
        ),
        Patch(
            "celery.beat:Scheduler.apply_async",
            tasks.scheduling,
            "who publishes is the schedule",
            late=True,
        ),
        *[_listener(name, receiver, why) for name, receiver, why in listened],
    ]
    if tasks.commands is not None:
        entries += tasks.commands.table()
    return entries


def _listener(name: str, receiver: Callable[..., Any], why: str) -> Listener:
    """List a receiver of one of Celery's signals; when tasks begin and end is in ``celery_tasks``."""

    def listen() -> None:
        from celery import signals

        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=_UID)

    def forget() -> None:
        from celery import signals

        getattr(signals, name).disconnect(dispatch_uid=_UID)

    return Listener(f"celery.signals:{name}", listen, forget, why, late=True)
