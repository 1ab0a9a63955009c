"""Run the benchmarks, print figures beside goals, write them to ``benchmarks/results/``.

usage: python -m benchmarks [NAME…]

Ends with status 1 if a benchmark could not run. A missed goal is shown, but it is no error: figures depend on
the machine.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure

NAMES = (
    "importing",
    "emit",
    "spans",
    "django_writes",
    "sqlalchemy_writes",
    "request",
    "fastapi_request",
    "server_requests",
    "policy",
    "throttling",
    "contents",
    "tasks",
    "outgoing",
    "ingest",
    "answer",
    "collector",
)
RESULTS = Path(__file__).parent / "results"
_TIMEOUT = 1800
_COLOURS = {"met": "green", "missed": "red", "": "dim"}
_PACKAGES = (
    "otel-audit",
    "Django",
    "opentelemetry-sdk",
    "chdb-core",
    "django-auditlog",
    "django-pghistory",
    "django-simple-history",
    "SQLAlchemy",
    "SQLAlchemy-Continuum",
)


def run(name: str) -> tuple[list[Figure], str]:
    """Run one benchmark in its own process; return its figures and, if it failed, how."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        return _figures(error.stdout or b""), f"not done after {_TIMEOUT} s"
    figures = _figures(done.stdout)
    if done.returncode:
        return figures, f"ended with status {done.returncode}"
    return figures, "" if figures else "measured nothing"


def _figures(output: bytes) -> list[Figure]:
    return [msgspec.json.decode(line, type=Figure) for line in output.splitlines() if line.startswith(b"{")]


def table(measured: dict[str, list[Figure]]) -> Table:
    """Lay the figures out, goal and verdict beside each."""
    result = Table(box=None, pad_edge=False)
    result.add_column("")
    result.add_column("figure", justify="right")
    result.add_column("goal", justify="right")
    result.add_column("")
    result.add_column("", style="dim")
    for name, figures in measured.items():
        result.add_section()
        result.add_row(f"[bold]{name}[/bold]")
        for figure in figures:
            colour = _COLOURS[figure.verdict]
            bound = "" if figure.goal is None else f"{'≥' if figure.at_least else '≤'} {number(figure.goal)}"
            value = f"[{colour}]{number(figure.value)} {figure.unit}[/{colour}]"
            verdict = f"[{colour}]{figure.verdict}[/{colour}]"
            result.add_row(f"  {figure.name}", value, bound, verdict, figure.note)
        if noisy := [figure.noise for figure in figures if figure.noise is not None]:
            result.add_row(f"  [dim]{noise_of(noisy)}[/dim]")
    return result


def noise_of(noisy: list[float]) -> str:
    """Say how noisy a table is: how far the middle half of the rounds lies apart."""
    middle, most = statistics.median(noisy), max(noisy)
    return f"noise: the middle half of the rounds within {middle:.0%} of a figure, at most {most:.0%}"


def number(value: float) -> str:
    """Show three digits that matter, thousands apart."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def machine() -> dict[str, object]:
    """Say on what the figures were taken."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "packages": versions,
    }


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in NAMES]:
        sys.stderr.write(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}\n")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts, measured, failed = machine(), {}, {}
    for name in names or NAMES:
        started = time.monotonic()
        measured[name], failure = run(name)
        if failure:
            failed[name] = failure
        sys.stderr.write(f"{name}: {failure or 'measured'} in {time.monotonic() - started:.0f} s\n")
    console.print(table(measured))
    console.print(
        f"[dim]Python {facts['python']}, {facts['cores']} cores, load {facts['load']:.1f} at the start[/dim]"
    )
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{str(facts['time']).replace(':', '')}.json"
    rows = {
        name: [msgspec.to_builtins(figure) | {"verdict": figure.verdict} for figure in figures]
        for name, figures in measured.items()
    }
    result.write_bytes(
        msgspec.json.format(msgspec.json.encode({"machine": facts, "failed": failed, "figures": rows}))
    )
    console.print(f"[dim]written to {os.path.relpath(result)}[/dim]")
    for name, failure in failed.items():
        console.print(f"[red]{name}: {failure}[/red]")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
