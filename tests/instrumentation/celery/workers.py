"""Real workers over a real Redis, which send what they record to a sink in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from otel_audit.audit_record import AuditRecord
from tests.e2e.running import ROOT, Process, command
from tests.instrumentation.celery.conftest import SECRET, config, visit
from tests.pipeline.otlp_sink import Sink
from tests.services import RedisServer, wait_until

TOML = """\
[celery]
enabled = true

[context]
queues = ["celery", "orders"]
"""
POOLS = {
    "prefork": ("--pool=prefork", "--concurrency=2"),
    "threads": ("--pool=threads", "--concurrency=2"),
    "solo": ("--pool=solo",),
    "gevent": ("--pool=gevent", "--concurrency=2"),
}


class Workers:
    """A directory, a broker, and the workers that run there."""

    def __init__(
        self, directory: Path, redis: RedisServer, sink: Sink, toml: str = TOML, broker: str = ""
    ) -> None:
        self.directory = directory
        self.sink = sink
        broker = broker or redis.url
        self.spool = directory / "spool"
        (directory / "otel-audit.toml").write_text(toml)
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "SHOP_BROKER": broker,
            "SHOP_RESULTS": redis.url,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_AUDIT_CONFIG": str(directory / "otel-audit.toml"),
            "OTEL_AUDIT_CONTEXT_KEYS": f"k1={SECRET}",
            "OTEL_AUDIT_SPOOL_DIRECTORY": str(self.spool),
            "OTEL_AUDIT_SINK_ENDPOINT": sink.url,
        }
        self.processes: list[Process] = []
        self.app = Celery("publisher", broker=broker, backend=redis.url, set_as_current=False)

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start a worker, and wait until it takes tasks."""
        log = self.directory / f"worker-{len(self.processes)}.log"
        process = Process(
            [
                command("opentelemetry-instrument"),
                command("celery"),
                "--app=tests.instrumentation.celery.shop",
                "worker",
                "--queues=celery,orders",
                "--without-gossip",
                "--without-mingle",
                "--loglevel=INFO",
                *arguments,
            ],
            self.environment | environment,
            log,
            cwd=self.directory,
        )
        self.processes.append(process)
        process.wait_until(lambda: " ready." in process.output(), "the worker is ready")
        return process

    def send(self, name: str, *args: Any, **options: Any) -> AsyncResult:
        """Publish a task, as a request of Ana's; whoever calls decides whether that is audited."""
        with visit("ana"):
            return self.app.send_task(name, args, **options)

    def of(self, task: Any, event_name: str | None = None) -> list[AuditRecord]:
        """Return what arrived of a task, by its result or id."""
        task_id = getattr(task, "id", task)
        return [
            record
            for record in self.sink.records
            if record.attributes.get("task.id") == task_id and event_name in (None, record.event_name)
        ]

    def wait_for(self, task: Any, event_name: str, times: int = 1) -> list[AuditRecord]:
        """Wait until a record has arrived so many times."""
        with suppress(TimeoutError):
            wait_until(lambda: len(self.of(task, event_name)) >= times, 60, event_name)
        found = self.of(task, event_name)
        assert len(found) == times, (found, [process.output() for process in self.processes])
        return found

    def stop(self) -> None:
        """End all of them as a deployment would."""
        for process in self.processes:
            process.stop(signal.SIGTERM, timeout=60)

    def kill(self) -> None:
        """End all of them at once, with their children."""
        for process in self.processes:
            process.kill()


@contextmanager
def workers(directory: Path, redis: RedisServer, toml: str = TOML, broker: str = "") -> Iterator[Workers]:
    """Make a place for workers; those that still run in the end are killed.

    Args:
        directory: for what they write.
        redis: has the results, and the queues unless there is a ``broker``.
        toml: their configuration.
        broker: the address of another broker.
    """
    with Sink() as sink:
        made = Workers(directory, redis, sink, toml, broker)
        try:
            yield made
        finally:
            made.kill()
            made.app.close()


def marked(mark: Path) -> list[int]:
    """Return the ids of the processes in which the task that sleeps has begun, one for each time."""
    return [int(line) for line in mark.read_text().split()] if mark.exists() else []


def kill(pid: int) -> None:
    """Kill one process of a worker that this test has started."""
    os.kill(pid, signal.SIGKILL)


__all__ = ["POOLS", "Workers", "config", "kill", "marked", "workers"]
