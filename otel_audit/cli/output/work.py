"""Requests, calls, commands, jobs and tasks in one line each: what it was, how it ended, how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_audit.cli.output.safe import safe, shortened
from otel_audit.store.entries import AuditEntry
from otel_audit.store.work import KIND_OF

_STAGES: Final = {
    "publish": "published",
    "start": "started",
    "output": "still running",
    "retry": "to be tried again",
    "stale": "never ran",
}
"""What the last word of an event's name says, where the work is not over."""


def work_line(entry: AuditEntry, width: int = 40) -> str:
    """Return the line of a record of work, safe to print; empty for any other record."""
    kind = KIND_OF.get(entry.event_name)
    return "" if kind is None else "  ".join(filter(None, _parts(entry, kind, width)))


def _parts(entry: AuditEntry, kind: str, width: int) -> Iterator[str]:
    work = entry.work
    if kind == "request":
        yield shortened(safe(f"{entry.method} {entry.path}".strip()), 2 * width)
    elif kind == "outgoing":
        yield shortened(safe(f"{work.method} {work.url}".strip()), 2 * width)
    elif (stage := entry.event_name.rpartition(".")[2]) in _STAGES:
        yield _STAGES[stage]
    elif work.state:
        yield safe(work.state).lower()
    if work.status:
        yield str(work.status)
    if work.exit_code:
        yield f"exit code {work.exit_code}"
    if work.queue:
        yield f"queue {safe(work.queue)}"
    if work.duration or work.status:
        yield duration(work.duration)


def duration(seconds: float) -> str:
    """Write a duration for people: ``0.4 ms``, ``34 ms``, ``12.3 s``, ``2 h 5 min``."""
    if seconds >= 6000:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    if seconds >= 10:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
