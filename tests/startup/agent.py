"""Runs small programs in a process of their own, under opentelemetry-instrument or without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[spool]
directory = "spool"
[sink]
endpoint = "http://127.0.0.1:9/v1/audit"
shutdown_timeout = 0.0
"""
REPORT = """
import json, sys
import otel_audit
from opentelemetry import trace
from otel_audit import distro, startup
from otel_audit.pipeline import provider
made = otel_audit.record("shop.export", "EXPORT", attributes={"password": "hunter2"})
with trace.get_tracer("tests").start_as_current_span("token=hunter2", attributes={"password": "hunter2"}):
    pass
sys.stdout.write("REPORT " + json.dumps({
    "running": startup.is_running(),
    "error": distro.startup_error(),
    "why_off": startup.why_off(),
    "recorded": made is not None,
    "provider": type(trace.get_tracer_provider()).__name__,
    "instrumented": sorted(type(item).__name__ for item in startup.active_instrumentors()),
}) + chr(10))
"""


class Finished(NamedTuple):
    """What became of a program."""

    status: int
    output: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        """What :data:`REPORT` found."""
        for line in self.output.splitlines():
            if line.startswith("REPORT "):
                return json.loads(line.removeprefix("REPORT "))  # type: ignore[no-any-return]
        raise AssertionError(f"no report; status {self.status}\n{self.output}\n{self.errors}")


def run(
    directory: Path,
    program: str = REPORT,
    *,
    config: str | None = CONFIG,
    environ: Mapping[str, str] | None = None,
    agent: bool = True,
    path: Path | None = None,
) -> Finished:
    """Run ``program`` in ``directory`` with ``config`` as otel-audit.toml, spans printed to stdout."""
    if config is not None:
        (directory / "otel-audit.toml").write_text(config)
    (directory / "program.py").write_text(textwrap.dedent(program))
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "DJANGO_", "PYTHONPATH", "COVERAGE", "COV_"))
    }
    variables |= {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "PYTHONPATH": os.pathsep.join(str(item) for item in (path, ROOT) if item is not None),
    }
    command = [sys.executable, "program.py"]
    if agent:
        command = [str(Path(sys.executable).parent / "opentelemetry-instrument"), *command]
    done = subprocess.run(
        command,
        cwd=directory,
        env=variables | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def put_first(directory: Path, name: str) -> Path:
    """Make a directory for the front of the path, so that a distribution's entry points are found first."""
    found = distribution(name)
    folder = directory / "first" / f"{name.replace('-', '_')}-{found.version}.dist-info"
    folder.mkdir(parents=True)
    for file in ("METADATA", "entry_points.txt"):
        (folder / file).write_text(found.read_text(file) or "")
    return folder.parent
