"""How much later the process starts: `import otel_audit` after OpenTelemetry.

`opentelemetry.sdk` itself is an empty package: after it alone even `typing` and `logging` count as ours,
which every application under OpenTelemetry has loaded anyway. So both are told.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figures import Figure, report

_ROUNDS = 15
_GOAL_MS = 60
_SCRIPT = """
from time import perf_counter
import %s
start = perf_counter()
import otel_audit
print(perf_counter() - start, len(__import__("sys").modules))
"""


def measure() -> Iterator[Figure]:
    for baseline, goal in (("opentelemetry.sdk", _GOAL_MS), ("opentelemetry.sdk.trace", None)):
        samples = []
        for _ in range(_ROUNDS):
            done = subprocess.run(
                [sys.executable, "-c", _SCRIPT % baseline],
                check=True,
                capture_output=True,
                text=True,
                # Compiling every module anew at each start is nobody's normal case.
                env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            )
            seconds, modules = done.stdout.split()
            samples.append(float(seconds) * 1e3)
        yield Figure(
            name=f"import otel_audit, after {baseline}",
            value=statistics.median(samples),
            unit="ms",
            goal=goal,
            note=f"{_ROUNDS} processes, {modules} modules in the end",
        )


if __name__ == "__main__":
    report(measure())
