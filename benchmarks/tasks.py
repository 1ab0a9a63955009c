"""A task of Celery, published and run: Celery alone, its tasks as who acts, and its tasks recorded.

The broker is in memory and the worker in this process, so that nothing else takes time. Publishing goes
through all of Celery, running through the tracer that a worker calls.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.app.trace import build_tracer

from benchmarks.figures import Figure, interleaved, report
from benchmarks.pipelines import without_sender
from otel_audit.config.model import CeleryConfig, ContextConfig

_ROUNDS = 40
_TASKS = 50
_GOAL_US = 200
_GOAL_OFF_US = 1

app = Celery("bench", broker="memory://", set_as_current=False)
app.conf.update(task_ignore_result=True)


@app.task(name="bench.nothing")  # type: ignore[untyped-decorator]
def nothing(order: int) -> None:
    return


def _work() -> float:
    """Return the seconds that a task takes, published and run: the median of some."""
    task = app.tasks["bench.nothing"]  # itself, as a worker has it, and no proxy
    tracer = build_tracer(task.name, task, app=app)
    ids = [str(uuid.uuid4()) for _ in range(_TASKS)]
    request: dict[str, Any] = {
        "delivery_info": {"routing_key": "celery"},
        "hostname": "celery@bench",
        "retries": 0,
    }
    took = []
    for task_id in ids:
        start = time.perf_counter()
        task.apply_async((7,), task_id=task_id)
        tracer(task_id, (7,), {}, request | {"id": task_id, "task": task.name})
        took.append(time.perf_counter() - start)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("celery")
    return statistics.median(took)


@contextmanager
def _audited(**sections: Any) -> Iterator[None]:
    with without_sender(**sections):
        yield


def _mode(sections: dict[str, Any] | None) -> Callable[[], float]:
    def measured() -> float:
        if sections is None:
            return _work()
        with _audited(**sections):
            _work()
            return _work()

    return measured


def measure() -> Iterator[Figure]:
    keys = ContextConfig(keys={"k1": "k" * 32}, queues=["*"])
    modes = {
        "alone": _mode(None),
        "off": _mode({}),
        "on": _mode({"celery": CeleryConfig(enabled=True)}),
        "signed": _mode({"celery": CeleryConfig(enabled=True), "context": keys}),
    }
    _work()
    times = interleaved(modes, _ROUNDS)

    def more(mode: str, base: str) -> float:
        return statistics.median(a - b for a, b in zip(times[mode], times[base], strict=True)) * 1e6

    alone = statistics.median(times["alone"]) * 1e6
    note = f"more than Celery alone, {alone:.0f} µs; {_ROUNDS} rounds of {_TASKS} tasks"
    yield Figure(
        name="a task published and run, recorded",
        value=more("on", "alone"),
        unit="µs",
        goal=_GOAL_US,
        note=note,
    )
    yield Figure(
        name="the same with signed headers",
        value=more("signed", "alone"),
        unit="µs",
        note="outside of any request",
    )
    yield Figure(
        name="switched off: the task is who acts", value=more("off", "alone"), unit="µs", note="as before"
    )


if __name__ == "__main__":
    report(measure())
