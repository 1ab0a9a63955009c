"""Run Django's own test suite with everything captured, and what fails there once more without, and compare.

::

    python -m tests.django_suite.run                      # a subset, on SQLite
    python -m tests.django_suite.run --database postgresql basic delete queries
    python -m tests.django_suite.run --whole --database sqlite --database postgresql      # make django-suite

The tests come from Django's source distribution of the installed version, fetched by pip. Captured are all
models, their reads and logins. The result is good if

* no test fails that passes without capture. Tests that look at the SQL itself are named in ``expected.py``,
  each with what it sees. An assertion on the *number* of queries does not end its test where there are more
  of them (a save in doubt asks for its row): they are listed, and what the test checks afterwards counts;
* capture had no failure of its own that it kept from the application, other than those named there.

Records that are less than whole are listed by kind.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.django_suite.expected import FAILURES_OF_OURS, LOOKS_AT_SQL
from tests.django_suite.watch import Kind, Report

SUBSET = [
    "basic",
    "bulk_create",
    "composite_pk",
    "delete",
    "delete_regress",
    "expressions_case",
    "force_insert_update",
    "from_db_value",
    "generic_relations",
    "get_or_create",
    "m2m_through",
    "many_to_many",
    "many_to_one_null",
    "model_inheritance",
    "order_with_respect_to",
    "proxy_models",
    "queries.test_bulk_update",
    "save_delete_hooks",
    "select_for_update",
    "transactions",
    "update",
    "update_only_fields",
]


class Run(NamedTuple):
    """One run: the ids of the tests that failed with what they say, the summary, what capture noted."""

    failed: Mapping[str, str]
    summary: str
    report: Report


def sources(directory: Path) -> Path:
    """Fetch and unpack the source distribution of the installed Django; return where it is."""
    import django

    unpacked = directory / f"django-{django.__version__}"
    if not unpacked.exists():
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"),
                *("-d", str(directory), f"Django=={django.__version__}"),
            ],
            check=True,
        )
        archive = next(directory.glob(f"[dD]jango-{django.__version__}.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
    return unpacked


def run(source: Path, database: str, labels: list[str], how: str, log: Path) -> Run:
    """Run ``labels`` (all tests, if there are none) ``plain`` or ``captured``; the output goes to ``log``."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"django-suite-{how}-")))
        # Each run has its own: some tests write beside themselves.
        tests = Path(shutil.copytree(source, directory / "django")) / "tests"
        settings = settings_for(database, directory, stack)
        report = log / f"{database}-{how}.json"
        output = log / f"{database}-{how}.log"
        command = [sys.executable, "-m", "tests.django_suite.watch", how, str(report)]
        command += [str(tests / "runtests.py"), "--settings", settings.stem, "--parallel", "1", *labels]
        with output.open("wb") as file:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                env={
                    "PYTHONPATH": f"{settings.parent}:{Path(__file__).parents[2]}",
                    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                    "HOME": str(directory),
                    "TMPDIR": str(directory),
                    "LANG": "C.UTF-8",
                },
                cwd=tests,
            )
        text = output.read_text("utf-8", "replace")
        summary = re.findall(r"^(?:Ran \d+ tests?.*|OK.*|FAILED.*)$", text, re.M)
        if len(summary) < 2:
            raise SystemExit(f"Django's suite did not end:\n{text[-3000:]}")
        noted = Report()
        if how == "captured":
            noted = msgspec.json.decode(report.read_bytes(), type=Report)
        return Run(failures(text), ", ".join(summary), noted)


def both(source: Path, database: str, labels: list[str], log: Path) -> tuple[Run, Run]:
    """Run ``labels`` captured, and what failed there plain."""
    captured = run(source, database, labels, "captured", log)
    failed = sorted({label(test) for test in captured.failed})
    plain = run(source, database, failed, "plain", log) if failed else Run({}, "nothing to compare", Report())
    return captured, plain


def label(test: str) -> str:
    """Return what ``runtests.py`` calls a test, or its class, of which the output says that it failed."""
    found = re.search(r"\((?:unittest\.loader\._FailedTest\.)?([\w.]+)\)", test)
    return found[1] if found else test.split(" ", maxsplit=1)[0]


def failures(output: str) -> dict[str, str]:
    """Read from the output of a run which tests failed, and what each says."""
    found = {}
    for text in re.split(r"^={70}$", output, flags=re.M)[1:]:
        head = re.match(r"\s*(?:FAIL|ERROR): (.+)", text)
        if head is not None:
            found[head[1]] = text
    return found


def settings_for(database: str, directory: Path, stack: ExitStack) -> Path:
    """Write the settings module Django's suite runs with."""
    if database == "sqlite":
        databases = {alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")}
    else:
        from tests import services

        server = stack.enter_context(getattr(services, database)())
        databases = {alias: server.django(server.create_database()) for alias in ("default", "other")}
    path = directory / "suite_settings.py"
    path.write_text(
        f"DATABASES = {databases!r}\nSECRET_KEY = 'django_tests_secret_key'\nUSE_TZ = False\n"
        "PASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'\n"
    )
    return path


def show(title: str, kinds: Mapping[str, Kind], *, detail: bool = False) -> None:
    """Print what there was of each kind, the most frequent first."""
    print(f"{title}: {sum(kind.count for kind in kinds.values())}")
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1].count):
        print(f"  {kind.count:6} {name}  [{kind.tests[0]}]")
        if detail:
            print(kind.detail.rstrip())


def compare(database: str, captured: Run, plain: Run) -> bool:
    """Print how the runs differ; say whether everything was as expected."""
    print(f"== {database}: {captured.summary}; what failed, without capture: {plain.summary}")
    caused = {test: text for test, text in captured.failed.items() if test not in plain.failed}
    harm = {test: text for test, text in caused.items() if label(test) not in LOOKS_AT_SQL}
    for test in sorted(caused.keys() - harm.keys()):
        print(f"  looks at SQL: {label(test)}: {LOOKS_AT_SQL[label(test)]}")
    report = captured.report
    print(f"tests that see more queries than they expect: {len(report.queries)}")
    for test, numbers in sorted(report.queries.items()):
        print(f"  {test}: {', '.join(f'{executed} for {expected}' for executed, expected in numbers)}")
    recorded = report.records.get("full", 0) > 0
    print("records:", ", ".join(f"{count} {name}" for name, count in sorted(report.records.items())))
    show("records that are less than whole", report.lessened)
    ours = {
        kind: noted
        for kind, noted in report.lines.items()
        if any(test not in FAILURES_OF_OURS for test in noted.tests)
    }
    show("failures of ours that are expected", {k: v for k, v in report.lines.items() if k not in ours})
    show("FAILURES of ours", ours, detail=True)
    print(f"HARM: {len(harm)} tests")
    for test, text in sorted(harm.items()):
        print(f"  {test}\n{text[-2500:]}")
    if not recorded:
        print("NOTHING was recorded")
    return recorded and not (harm or ours)


def main() -> int:
    """Run captured, then plain, compare; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", nargs="*", help="packages or tests; default those that write most")
    parser.add_argument("--whole", action="store_true", help="all of Django's tests")
    parser.add_argument(
        "--database", choices=["sqlite", "postgresql", "mariadb"], action="append", help="default sqlite"
    )
    parser.add_argument(
        "--sources", type=Path, help="where to keep Django's sources; default a temporary directory"
    )
    parser.add_argument("--log", type=Path, help="a directory for the output of each run")
    options = parser.parse_args()
    if options.whole and options.labels:
        parser.error("--whole runs all tests: name none")
    labels = options.labels or ([] if options.whole else SUBSET)
    with tempfile.TemporaryDirectory(prefix="django-sources-") as temporary:
        directories = [options.sources or Path(temporary), options.log or Path(temporary)]
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
        source, log = sources(directories[0]), directories[1]
        databases = options.database or ["sqlite"]
        with ThreadPoolExecutor(2) as pool:
            runs = pool.map(lambda database: both(source, database, labels, log), databases)
            good = [compare(database, *pair) for database, pair in zip(databases, runs, strict=True)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
