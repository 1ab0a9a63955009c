"""Count instructions of writes, reads and requests of Django, SQLAlchemy and FastAPI, without us and with us.

Counts leave out the kernel, a database's server and the processor's cache: what runs once per request is
dearer in time than in instructions. But they repeat within a per cent, also on a busy machine. What is
required and the goals are of time; beside ratios of instructions they are for orientation.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.databases import VENDORS, entries, environment
from benchmarks.instructions import counter
from benchmarks.instructions.request_work import EACH as REQUESTS
from benchmarks.instructions.request_work import KINDS as REQUEST_LEVELS
from benchmarks.instructions.request_work import NAMES as REQUEST_JOBS
from benchmarks.instructions.sqlalchemy_work import NAMES as SQLALCHEMY_JOBS
from benchmarks.instructions.work import FEW, LISTED, MANY
from benchmarks.sqlalchemy_writes import GOALS as SQLALCHEMY_GOALS

RESULTS = Path(__file__).parents[1] / "results"


class Wanted(NamedTuple):
    """A ratio asked for, per database."""

    sqlite: float | None = None
    postgresql: float | None = None


class Row(NamedTuple):
    """One line: a job of a module, in a process with audit and one without, and what was asked for."""

    job: str
    each: int
    what: str
    base: str
    kind: str
    required: Wanted = Wanted()
    goal: Wanted = Wanted()
    module: str = "work"


_SAVE = Wanted(1.30, 1.15), Wanted(1.15, 1.10)
_CREATE = Wanted(1.40, 1.20), Wanted(1.15, 1.10)
_DELETE = Wanted(1.50, 1.30), Wanted(1.20, 1.15)
_BULK_CREATE = Wanted(1.45, 1.25), Wanted(1.20, 1.15)
_UPDATE_MANY = Wanted(3.0, 1.4), Wanted(2.5, 1.4)
_DELETE_MANY = Wanted(4.0, 2.5), Wanted(2.5, 2.0)
_LIST = Wanted(1.05, 1.05), Wanted(1.02, 1.02)
_READS = Wanted(1.15, 1.15), Wanted(1.10, 1.10)
_NOT_AUDITED = Wanted(), Wanted(1.01, 1.01)
_POST = Wanted(1.08, 1.08), Wanted(1.05, 1.05)

ROWS = (
    Row("save", FEW, "save(), in a transaction", "plain", "audited", *_SAVE),
    Row("save without JSON", FEW, "save(), no JSONField", "plain", "audited", *_SAVE),
    Row("create", FEW, "create(), in a transaction", "plain", "audited", *_CREATE),
    Row("create alone", FEW, "create(), autocommit", "plain", "audited"),
    Row("delete", FEW, "delete(), in a transaction", "plain", "audited", *_DELETE),
    Row("bulk_create", MANY, f"bulk_create() of {MANY}, a row", "plain", "audited", *_BULK_CREATE),
    Row("QuerySet.update", MANY, f"QuerySet.update() of {MANY}, a row", "plain", "audited", *_UPDATE_MANY),
    Row("QuerySet.delete", MANY, f"QuerySet.delete() of {MANY}, a row", "plain", "audited", *_DELETE_MANY),
    Row("list", 1, f"list of {LISTED}, writes audited", "plain", "audited", *_LIST),
    Row("get", FEW, "get(), writes audited", "plain", "audited"),
    Row("list", 1, f"list of {LISTED}, reads audited", "plain", "reads", *_READS),
    Row("get", FEW, "get(), reads audited", "plain", "reads"),
    Row("unaudited", FEW, "get() of a model not audited", "plain", "audited", *_NOT_AUDITED),
    Row("unaudited", FEW, "the same, reads of others audited", "plain", "reads", *_NOT_AUDITED),
    Row("POST", 10, "POST that saves one row", "otel", "otel audited", *_POST),
    Row(
        "FastAPI POST",
        10,
        "FastAPI: POST that updates one row",
        "otel",
        "otel audited",
        goal=Wanted(1.10, 1.10),
        module="fastapi_work",
    ),
    *(
        Row(name, REQUESTS, f"{name}: {level}", "alone", level, module="request_work")
        for name in REQUEST_JOBS
        for level in REQUEST_LEVELS
    ),
    *(
        Row(
            name,
            MANY if job.times == 1 else job.times,
            f"SQLAlchemy: {job.what}{', a row' if job.times == 1 else ''}",
            "plain",
            "audited",
            goal=Wanted(**SQLALCHEMY_GOALS.get(name, {})),
            module="sqlalchemy_work",
        )
        for name, job in SQLALCHEMY_JOBS.items()
    ),
)


class Counted(NamedTuple):
    """The counts of one job in one kind of process."""

    counts: list[int]

    @property
    def median(self) -> float:
        return statistics.median(self.counts)

    @property
    def spread(self) -> float:
        """By how much the counts differ at most, of their median."""
        return (max(self.counts) - min(self.counts)) / self.median


def measure(rows: Iterable[Row], vendor: str) -> dict[tuple[str, str], Counted]:
    """Run one process per kind that ``rows`` need on one database; return the counts by kind and job."""
    needed: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for kind in (row.base, row.kind):
            jobs = needed.setdefault((row.module, kind), [])
            if row.job not in jobs:
                jobs.append(row.job)
    result = {}
    with tempfile.TemporaryDirectory(prefix="otel-audit-bench-") as path:
        directory = Path(path)
        library = counter.build(directory)
        for (module, kind), jobs in needed.items():
            with entries(vendor) as [entry]:
                arguments = ["-m", f"benchmarks.instructions.{module}", kind, *jobs]
                env = {n: v for n, v in environment(entry).items() if not n.startswith("OTEL_")}
                env["OTEL_SERVICE_NAME"] = "bench"
                for job, counts in counter.count(library, directory, arguments, env).items():
                    result[kind, job] = Counted(counts)
            sys.stderr.write(f"{module}, {kind}: counted\n")
    return result


def table(rows: Iterable[Row], counted: dict[tuple[str, str], Counted], vendor: str) -> Table:
    """Lay the counts out, ratio and goals beside each."""
    result = Table(box=None, pad_edge=False)
    result.add_column(f"thousands of instructions, {vendor}")
    for name in ("without", "with", "ratio", "required", "goal", "repeats within"):
        result.add_column(name, justify="right")
    for row in rows:
        base, with_audit = counted[row.base, row.job], counted[row.kind, row.job]
        ratio = with_audit.median / base.median
        required, goal = getattr(row.required, vendor), getattr(row.goal, vendor)
        colour = "dim" if required is None else "green" if ratio <= required else "red"
        result.add_row(
            row.what,
            f"{base.median / row.each / 1000:.1f}",
            f"{with_audit.median / row.each / 1000:.1f}",
            f"[{colour}]{ratio:.3f}[/{colour}]",
            "" if required is None else f"{required:.2f}",
            "" if goal is None else f"{goal:.2f}",
            f"{max(base.spread, with_audit.spread):.2%}",
        )
    return result


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--database", choices=VENDORS, default=VENDORS[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="what is counted, default everything")
    given = parser.parse_args(arguments)
    names, vendor = given.names, given.database
    known = {row.job for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"no count {unknown[0]!r}; there are {', '.join(sorted(known))}\n")
        return 2
    if lacks := counter.missing():
        print(f"skipped: {lacks}")
        return 0
    rows = [row for row in ROWS if not names or row.job in names]
    counted = measure(rows, vendor)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(rows, counted, vendor))
    console.print(
        "[dim]the ratios are of instructions, the goals of time; neither kernel nor server is counted[/dim]"
    )
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace(":", "")
    result = RESULTS / f"instructions-{vendor}-{now}.json"
    written = {f"{kind}: {job}": found.counts for (kind, job), found in counted.items()}
    result.write_bytes(msgspec.json.format(msgspec.json.encode(written)))
    console.print(f"[dim]written to {os.path.relpath(result)}[/dim]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
