"""What the pipeline's tests share: configurations, records, scripts in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_audit.audit_record import AuditRecord, Change, Target
from otel_audit.config.model import AuditConfig, SinkConfig, SpoolConfig
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.cursor import Position
from otel_audit.pipeline.spool.reader import Content, StreamReader

NOWHERE = "http://127.0.0.1:9/v1/audit"
"""Nobody listens on the discard port."""


def audit_config(directory: Path, endpoint: str = NOWHERE, **settings: Any) -> AuditConfig:
    """A configuration with short pauses; ``spool_…`` and ``sink_…`` go into these sections."""
    spool = {name[6:]: settings.pop(name) for name in list(settings) if name.startswith("spool_")}
    sink = {name[5:]: settings.pop(name) for name in list(settings) if name.startswith("sink_")}
    return AuditConfig(
        spool=SpoolConfig(**{"directory": str(directory), "block_timeout": 0.05, **spool}),
        sink=SinkConfig(
            **{"endpoint": endpoint, "max_delay": 0.01, "max_backoff": 0.05, "timeout": 5.0, **sink}
        ),
        **settings,
    )


def make_record(pipeline: AuditPipeline, number: int = 0, **values: Any) -> AuditRecord:
    """Make a record of an update of ``shop.Order/<number>``."""
    values = {
        "target": Target("shop.Order", str(number)),
        "changes": [Change("status", "new", "paid")],
        **values,
    }
    return pipeline.logger.record("shop.order.update", "UPDATE", **values)


def spooled(directory: Path) -> list[Content]:
    """All that lies settled in a spool directory, as the adopter of dead processes would read it."""
    content: list[Content] = []
    for incarnation in layout.list_incarnations(directory):
        reader = StreamReader(incarnation, Position())
        content += [item.content for item in reader.items()]
        reader.close()
    return content


def spooled_records(directory: Path) -> list[AuditRecord]:
    """The records among :func:`spooled`."""
    return [item for item in spooled(directory) if isinstance(item, AuditRecord)]


def target_ids(records: list[AuditRecord], event_name: str = "shop.order.update") -> list[str]:
    """The target ids of the records with an event name."""
    return [record.target.id for record in records if record.event_name == event_name and record.target]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for something that happens in another thread or process; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.01)


PROLOGUE = """
import os, signal, sys, threading, time
from pathlib import Path
from otel_audit.pipeline import provider
from otel_audit.audit_record import *
from tests.pipeline.spooling import audit_config, make_record
"""


def start_script(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start Python code in a process of its own; ``sys.argv[1:]`` are the arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        **options,
    )


def run_script(script: str, *arguments: object, expect: int = 0, **options: Any) -> str:
    """Run Python code in a process of its own and give its output."""
    process = start_script(script, *arguments, **options)
    out, err = process.communicate(timeout=60)
    assert process.returncode == expect, f"exit status {process.returncode}\n{out}\n{err}"
    return out
