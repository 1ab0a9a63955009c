"""Write the corpus to a file, or compare two such files."""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

from benchmarks.databases import VENDORS, entries, environment

_ROUNDS = 50
_SHOWN = 200


def write(file: Path, vendor: str, rounds: int) -> None:
    """Make the records in a process of their own, where no text has a hash by chance."""
    with entries(vendor) as [entry]:
        env = {name: value for name, value in environment(entry).items() if not name.startswith("OTEL_")}
        env |= {
            "DJANGO_SETTINGS_MODULE": "benchmarks.corpus.settings",
            "OTEL_SERVICE_NAME": "corpus",
            "PYTHONHASHSEED": "0",
            "TZ": "UTC",
        }
        command = [sys.executable, "-m", "benchmarks.corpus.made", str(file.absolute()), str(rounds)]
        subprocess.run(command, check=True, env=env)


def differences(first: Path, second: Path) -> list[tuple[int, str, str]]:
    """Return the lines in which two files differ: their number, and both as they are, empty where missing."""
    with first.open(encoding="utf-8") as left, second.open(encoding="utf-8") as right:
        pairs = enumerate(zip_longest(left, right, fillvalue=""), 1)
        return [(number, one, other) for number, (one, other) in pairs if one != other]


def _around(one: str, other: str) -> tuple[str, str]:
    """Return the part of two lines in which they begin to differ, and a little before it."""
    both = zip(one, other, strict=False)
    at = next((place for place, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))
    start = max(0, at - _SHOWN // 2)
    return one[start : at + _SHOWN].rstrip("\n"), other[start : at + _SHOWN].rstrip("\n")


def compare(first: Path, second: Path, limit: int) -> int:
    """Print the first ``limit`` differences; return 0 if there is none, 1 if there are some."""
    found = differences(first, second)
    for number, one, other in found[:limit]:
        left, right = _around(one, other)
        print(f"line {number}:\n  {first}: {left or 'missing'}\n  {second}: {right or 'missing'}")
    print(f"{len(found)} lines differ" if found else "the same")
    return 1 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="make the records and write them to a file")
    writing.add_argument("file", type=Path)
    writing.add_argument("--database", choices=VENDORS, default=VENDORS[0])
    writing.add_argument("--rounds", type=int, default=_ROUNDS, help="how often all the work is done")
    comparing = commands.add_parser("compare", help="print the first differences of two files")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    comparing.add_argument("--limit", type=int, default=10, help="how many differences are printed")
    given = parser.parse_args()
    if given.command == "write":
        write(given.file, given.database, given.rounds)
        return 0
    return compare(given.first, given.second, given.limit)


if __name__ == "__main__":
    sys.exit(main())
