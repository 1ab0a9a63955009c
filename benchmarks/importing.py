"""How much later the process starts: `import otel_audit` after `import opentelemetry.sdk`."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figures import Figure, report

_ROUNDS = 15
_GOAL_MS = 60
_SCRIPT = """
from time import perf_counter
import opentelemetry.sdk
start = perf_counter()
import otel_audit
print(perf_counter() - start, len(__import__("sys").modules))
"""


def measure() -> Iterator[Figure]:
    samples = []
    for _ in range(_ROUNDS):
        done = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
        seconds, modules = done.stdout.split()
        samples.append(float(seconds) * 1e3)
    yield Figure(
        name="import otel_audit, after opentelemetry.sdk",
        value=statistics.median(samples),
        unit="ms",
        goal=_GOAL_MS,
        note=f"{_ROUNDS} processes, {modules} modules in the end",
    )


if __name__ == "__main__":
    report(measure())
