"""Counting instructions: only the part that is to be counted, the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.instructions import counter

_SCRIPT = """
from itertools import repeat

from benchmarks.instructions.counter import Counter

def work(times):
    for _ in repeat(None, times):
        "a text".upper()

counter = Counter()
work(10_000)
for times in (100, 1100, 2100, 2100):
    counter(f"{times} times", lambda: work(times))
"""


def test_only_the_named_part_is_counted_and_repeats(tmp_path: Path) -> None:
    if missing := counter.missing():
        pytest.fail(missing)
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    counts = counter.count(counter.build(tmp_path), tmp_path, [str(script)], env)
    assert list(counts) == ["100 times", "1100 times", "2100 times"]
    [few], [more], [most, again] = counts.values()
    assert most - more == pytest.approx(more - few, rel=0.1)  # the first has what Python does once
    assert again == pytest.approx(most, rel=0.01)


def test_a_machine_without_valgrind_is_told_what_installs_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions", "save"],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "skipped: valgrind is not installed; scripts/packages installs it\n"


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions", "saev"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no count 'saev'; there are Django request, FastAPI POST, " in done.stderr
