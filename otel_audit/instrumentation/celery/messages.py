"""A task as Celery's messages and requests tell of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from otel_audit.semconv import (
    PROCESS_PID,
    TASK_EAGER,
    TASK_GROUP,
    TASK_PARENT,
    TASK_ROOT,
    TASK_SCHEDULE,
    TASK_WORKER,
)
from otel_audit.tasks.task import Task


def published(
    headers: Mapping[str, Any],
    queue: str,
    args: Any,
    kwargs: Any,
    countdown: Any,
    schedule: str,
    function: Any,
) -> Task:
    """Return the task of a message that is about to be published (protocol 2)."""
    return _task(
        headers,
        str(headers.get("task") or ""),
        queue=queue,
        args=args or (),
        kwargs=kwargs or {},
        countdown=countdown if type(countdown) in (int, float) else None,
        function=function,
        more=_more(headers) | ({TASK_SCHEDULE: schedule} if schedule else {}),
    )


def asked_for(name: Any, options: Mapping[str, Any], args: Any, kwargs: Any) -> Task:
    """Return a task that was to be published and whose message could not be made."""
    queue = options.get("queue") or options.get("routing_key") or ""
    return Task(
        name=str(name),
        id=str(options.get("task_id") or ""),
        queue=queue if type(queue) is str else str(getattr(queue, "name", "")),
        args=args or (),
        kwargs=kwargs or {},
    )


def received(task: Any, said: Mapping[str, Any], task_id: str, args: Any, kwargs: Any) -> Task:
    """Return a task that is about to run in this process, by what its request says."""
    more = _more(said)
    more[PROCESS_PID] = os.getpid()
    if worker := said.get("hostname"):
        more[TASK_WORKER] = str(worker)
    if said.get("is_eager"):
        more[TASK_EAGER] = True
    delivery = said.get("delivery_info") or {}
    return _task(
        said,
        str(task.name),
        id=task_id,
        queue=str(delivery.get("routing_key") or ""),
        args=args,
        kwargs=kwargs,
        redelivered=bool(delivery.get("redelivered")),
        function=getattr(task, "run", None),
        more=more,
    )


def told(headers: Mapping[str, Any], name: str) -> Task:
    """Return a task that will not run, as its headers tell of it."""
    delivery = headers.get("delivery_info") or {}
    more = _more(headers) | {PROCESS_PID: os.getpid()}
    if worker := headers.get("hostname"):
        more[TASK_WORKER] = str(worker)
    return _task(headers, name, queue=str(delivery.get("routing_key") or ""), more=more)


def _task(headers: Mapping[str, Any], name: str, **parts: Any) -> Task:
    eta = _time(headers.get("eta"))
    parts.setdefault("id", str(headers.get("id") or ""))
    retries = headers.get("retries")
    return Task(
        name=name,
        retries=retries if type(retries) is int else 0,
        eta=eta,
        starts=_seconds(eta),
        expires=_time(headers.get("expires")),
        **parts,
    )


def _more(headers: Mapping[str, Any]) -> dict[str, Any]:
    more = {}
    for attribute, name in ((TASK_PARENT, "parent_id"), (TASK_GROUP, "group")):
        if value := headers.get(name):
            more[attribute] = str(value)
    root = headers.get("root_id")
    if root and root != headers.get("id"):
        more[TASK_ROOT] = str(root)
    return more


def _time(value: Any) -> str:
    """Return a time of a header: text there, and in the request of some versions a datetime."""
    if type(value) is datetime:
        return value.isoformat()
    return value if type(value) is str else ""


def _seconds(eta: str) -> float | None:
    """Return seconds since the epoch; a time without a zone is in UTC."""
    if not eta:
        return None
    try:
        time = datetime.fromisoformat(eta)
    except ValueError:
        return None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
