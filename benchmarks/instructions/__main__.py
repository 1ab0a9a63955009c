"""Count instructions of writes, reads and a request on SQLite: plain Django, and with otel-audit.

usage: python -m benchmarks.instructions [NAME…]

Counts leave out the kernel and the processor's cache: what runs once per request is dearer in time than in
instructions. But they repeat within a per cent, also on a busy machine. The goals are goals for time; beside
ratios of instructions they are for orientation.
"""

from __future__ import annotations

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

from benchmarks.databases import entries, environment
from benchmarks.instructions import counter
from benchmarks.instructions.work import FEW, LISTED, MANY

RESULTS = Path(__file__).parents[1] / "results"


class Row(NamedTuple):
    """One line: a job, in a process with audit and one without, and what was asked for."""

    job: str
    each: int
    what: str
    base: str
    kind: str
    required: float | None
    goal: float | None


ROWS = (
    Row("save", FEW, "save(), in a transaction", "plain", "audited", 1.30, 1.15),
    Row("save without JSON", FEW, "save(), no JSONField", "plain", "audited", 1.30, 1.15),
    Row("create", FEW, "create(), in a transaction", "plain", "audited", 1.40, 1.15),
    Row("delete", FEW, "delete(), in a transaction", "plain", "audited", 1.50, 1.20),
    Row("bulk_create", MANY, f"bulk_create() of {MANY}, a row", "plain", "audited", 1.45, 1.20),
    Row("QuerySet.update", MANY, f"QuerySet.update() of {MANY}, a row", "plain", "audited", 3.0, 2.5),
    Row("QuerySet.delete", MANY, f"QuerySet.delete() of {MANY}, a row", "plain", "audited", 4.0, 2.5),
    Row("list", 1, f"list of {LISTED}, writes audited", "plain", "audited", 1.05, 1.02),
    Row("get", FEW, "get(), writes audited", "plain", "audited", None, None),
    Row("list", 1, f"list of {LISTED}, reads audited", "plain", "reads", 1.15, 1.10),
    Row("get", FEW, "get(), reads audited", "plain", "reads", None, None),
    Row("unaudited", FEW, "get() of a model not audited", "plain", "audited", None, 1.01),
    Row("unaudited", FEW, "the same, reads of others audited", "plain", "reads", None, 1.01),
    Row("POST", 10, "POST that saves one row", "otel", "otel audited", 1.08, 1.05),
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


def measure(rows: Iterable[Row]) -> dict[tuple[str, str], Counted]:
    """Run one process per kind that ``rows`` need; return the counts by kind and job."""
    needed: dict[str, list[str]] = {}
    for row in rows:
        for kind in (row.base, row.kind):
            jobs = needed.setdefault(kind, [])
            if row.job not in jobs:
                jobs.append(row.job)
    result = {}
    with tempfile.TemporaryDirectory(prefix="otel-audit-bench-") as path:
        directory = Path(path)
        library = counter.build(directory)
        for kind, jobs in needed.items():
            with entries("sqlite") as [entry]:
                arguments = ["-m", "benchmarks.instructions.work", kind, *jobs]
                env = {n: v for n, v in environment(entry).items() if not n.startswith("OTEL_")}
                env["OTEL_SERVICE_NAME"] = "bench"
                for job, counts in counter.count(library, directory, arguments, env).items():
                    result[kind, job] = Counted(counts)
            sys.stderr.write(f"{kind}: counted\n")
    return result


def table(rows: Iterable[Row], counted: dict[tuple[str, str], Counted]) -> Table:
    """Lay the counts out, ratio and goals beside each."""
    result = Table(box=None, pad_edge=False)
    result.add_column("thousands of instructions")
    for name in ("without", "with", "ratio", "required", "goal", "repeats within"):
        result.add_column(name, justify="right")
    for row in rows:
        base, with_audit = counted[row.base, row.job], counted[row.kind, row.job]
        ratio = with_audit.median / base.median
        colour = "dim" if row.required is None else "green" if ratio <= row.required else "red"
        result.add_row(
            row.what,
            f"{base.median / row.each / 1000:.1f}",
            f"{with_audit.median / row.each / 1000:.1f}",
            f"[{colour}]{ratio:.3f}[/{colour}]",
            "" if row.required is None else f"{row.required:.2f}",
            "" if row.goal is None else f"{row.goal:.2f}",
            f"{max(base.spread, with_audit.spread):.2%}",
        )
    return result


def main(names: list[str]) -> int:
    known = {row.job for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        sys.stderr.write(f"no count {unknown[0]!r}; there are {', '.join(sorted(known))}\n")
        return 2
    if lacks := counter.missing():
        print(f"skipped: {lacks}")
        return 0
    rows = [row for row in ROWS if not names or row.job in names]
    counted = measure(rows)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(rows, counted))
    console.print("[dim]the ratios are of instructions, the goals of time; the kernel is not counted[/dim]")
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace(":", "")
    result = RESULTS / f"instructions-{now}.json"
    written = {f"{kind}: {job}": found.counts for (kind, job), found in counted.items()}
    result.write_bytes(msgspec.json.format(msgspec.json.encode(written)))
    console.print(f"[dim]written to {os.path.relpath(result)}[/dim]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
