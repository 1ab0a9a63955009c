"""Run a library's own tests with everything captured, what fails there once more without, and compare."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from tests.library_suites.watch import Kind, Report

ROOT = Path(__file__).parents[2]
_Run = TypeVar("_Run")


class Suite(ABC, Generic[_Run]):
    """The tests of one library: how they are run, and what is right.

    Attributes:
        distribution: the library's name on the package index.
        subset: what runs by default, as the library's runner calls it.
        databases: on which they can run.
        whole: what all of them are, for the help.
        expected_failures: why capture must fail in a test, by test without its parameters.
    """

    distribution: ClassVar[str]
    subset: ClassVar[Sequence[str]]
    databases: ClassVar[Sequence[str]]
    whole: ClassVar[str]
    expected_failures: ClassVar[Mapping[str, str]]

    @abstractmethod
    def run(self, source: Path, database: str, tests: list[str], how: str, log: Path) -> _Run:
        """Run ``tests`` (all, if there are none) ``plain`` or ``captured``; the output goes to ``log``."""

    @abstractmethod
    def both(self, source: Path, database: str, tests: list[str], log: Path) -> tuple[_Run, _Run]:
        """Run ``tests`` captured, and plain what has to be compared."""

    @abstractmethod
    def compare(self, database: str, captured: _Run, plain: _Run, *, whole: bool) -> bool:
        """Print how the runs differ; say whether everything was as expected."""

    def judge(self, report: Report, harm: Mapping[str, str]) -> bool:
        """Print what was recorded, where capture failed, and whom it harmed; say whether all is well."""
        print("records:", ", ".join(f"{count} {name}" for name, count in sorted(report.records.items())))
        show("records that are less than whole", report.lessened)
        ours = {
            kind: noted
            for kind, noted in report.lines.items()
            if any(test.split("[")[0] not in self.expected_failures for test in noted.tests)
        }
        show("failures of ours that are expected", {k: v for k, v in report.lines.items() if k not in ours})
        show("FAILURES of ours", ours, detail=True)
        print(f"HARM: {len(harm)} tests")
        for test, text in sorted(harm.items()):
            print(f"  {test}\n{text[-2500:]}")
        recorded = report.records.get("full", 0) > 0
        if not recorded:
            print("NOTHING was recorded")
        return recorded and not (harm or ours)

    def sources(self, directory: Path) -> Path:
        """Fetch and unpack the source distribution of the installed version; return where it is."""
        release = f"{self.distribution}-{version(self.distribution)}".lower()
        unpacked = directory / release
        if not unpacked.exists():
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "-q", "--no-deps"),
                    # Not :all:, or what it is built with would be built as well.
                    *("--no-binary", self.distribution),
                    *("-d", str(directory), f"{self.distribution}=={version(self.distribution)}"),
                ],
                check=True,
            )
            archive = next(each for each in directory.iterdir() if each.name.lower() == f"{release}.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(directory, filter="data")
        return unpacked

    def main(self, description: str | None) -> int:
        """Run captured, then plain, compare; return the exit status."""
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("tests", nargs="*", help="which tests; default those that write most")
        parser.add_argument("--whole", action="store_true", help=self.whole)
        parser.add_argument("--database", choices=self.databases, action="append", help="default sqlite")
        parser.add_argument(
            "--sources", type=Path, help="where to keep the library's sources; default a temporary directory"
        )
        parser.add_argument("--log", type=Path, help="a directory for the output of each run")
        options = parser.parse_args()
        if options.whole and options.tests:
            parser.error("--whole runs all tests: name none")
        tests = options.tests or ([] if options.whole else list(self.subset))
        with tempfile.TemporaryDirectory(prefix="library-sources-") as temporary:
            directories = [options.sources or Path(temporary), options.log or Path(temporary)]
            for directory in directories:
                directory.mkdir(parents=True, exist_ok=True)
            source, log = self.sources(directories[0].absolute()), directories[1].absolute()
            databases = options.database or ["sqlite"]
            with ThreadPoolExecutor(2) as pool:
                runs = pool.map(lambda database: self.both(source, database, tests, log), databases)
                good = [
                    self.compare(database, *pair, whole=options.whole)
                    for database, pair in zip(databases, runs, strict=True)
                ]
        return 0 if all(good) else 1


def assert_good(module: str, *arguments: str) -> None:
    """Run a module of this package as a user would, and look at what it says."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "failures of ours that are expected" in done.stdout


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a run: nothing of the one around it but where programs are."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        **more,
    }


def show(title: str, kinds: Mapping[str, Kind], *, detail: bool = False) -> None:
    """Print what there was of each kind, the most frequent first."""
    print(f"{title}: {sum(kind.count for kind in kinds.values())}")
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1].count):
        print(f"  {kind.count:6} {name}  [{kind.tests[0]}]")
        if detail:
            print(kind.detail.rstrip())
