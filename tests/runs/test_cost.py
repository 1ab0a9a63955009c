"""What it costs to see what is printed, in instructions: they repeat where times do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from otel_audit.runs.streams import Listening
made = Listening(16384)
if {listens}:
    made.begin()
for _ in range({lines}):
    print({line!r})
if {listens}:
    made.end()
"""
_LINE = "a line of output of a command that has much to say and says it all, line by line, on and on"


def _instructions(directory: Path, **values: object) -> int:
    (directory / "program.py").write_text(_PROGRAM.format(**values))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))
    }
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--log-file=counts",
            sys.executable,
            "program.py",
        ],
        cwd=directory,
        env=environment | {"PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = re.search(r"Collected : (\d+)", (directory / "counts").read_text())
    assert counted is not None
    return int(counted[1])


def test_a_command_that_prints_much_is_slowed_by_less_than_five_per_cent(tmp_path: Path) -> None:
    few, many = 3_000, 33_000  # what comes once, and what each further line costs
    _instructions(tmp_path, listens=True, lines=0, line=_LINE)  # compiles what nobody has imported so far

    def per_lines(listens: bool) -> int:
        less, more = (
            _instructions(tmp_path, listens=listens, lines=lines, line=_LINE) for lines in (few, many)
        )
        return more - less

    plain, seen = per_lines(False), per_lines(True)
    assert seen / plain < 1.05, f"{seen / plain - 1:.1%}"
