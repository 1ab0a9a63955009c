"""Run Django's own test suite with everything captured, and what fails there once more without, and compare.

::

    python -m tests.library_suites.django.run                      # a subset, on SQLite
    python -m tests.library_suites.django.run --database postgresql basic delete queries
    python -m tests.library_suites.django.run --whole --database sqlite --database postgresql

The tests come from Django's source distribution of the installed version, fetched by pip. Captured are all
models, their reads and logins. ``make django-suite`` runs all tests on both. The result is good if

* no test fails that passes without capture. Tests that look at the SQL itself are named in ``expected.py``,
  each with what it sees. An assertion on the *number* of queries does not end its test where there are more
  of them (a save in doubt asks for its row): they are listed, and what the test checks afterwards counts;
* capture had no failure of its own that it kept from the application, other than those named there.

Records that are less than whole are listed by kind.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.library_suites.django.expected import FAILURES_OF_OURS, LOOKS_AT_SQL
from tests.library_suites.django.watch import DjangoReport
from tests.library_suites.runs import ROOT, Suite, environment

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
    report: DjangoReport


class DjangoSuite(Suite[Run]):
    """Django's ``tests`` directory, by its ``runtests.py``."""

    distribution = "Django"
    subset = SUBSET
    databases = ("sqlite", "postgresql", "mariadb")
    whole = "all of Django's tests"
    expected_failures = FAILURES_OF_OURS

    def run(self, source: Path, database: str, tests: list[str], how: str, log: Path) -> Run:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"django-suite-{how}-")))
            # Each run has its own: some tests write beside themselves.
            copy = Path(shutil.copytree(source, directory / "django")) / "tests"
            settings = settings_for(database, directory, stack)
            report = log / f"{database}-{how}.json"
            output = log / f"{database}-{how}.log"
            command = [sys.executable, "-m", "tests.library_suites.django.watch", how, str(report)]
            command += [str(copy / "runtests.py"), "--settings", settings.stem, "--parallel", "1", *tests]
            with output.open("wb") as file:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                    env=environment(directory, PYTHONPATH=f"{settings.parent}:{ROOT}"),
                    cwd=copy,
                )
            text = output.read_text("utf-8", "replace")
            summary = re.findall(r"^(?:Ran \d+ tests?.*|OK.*|FAILED.*)$", text, re.M)
            if len(summary) < 2:
                raise SystemExit(f"Django's suite did not end:\n{text[-3000:]}")
            noted = DjangoReport()
            if how == "captured":
                noted = msgspec.json.decode(report.read_bytes(), type=DjangoReport)
            return Run(failures(text), ", ".join(summary), noted)

    def both(self, source: Path, database: str, tests: list[str], log: Path) -> tuple[Run, Run]:
        captured = self.run(source, database, tests, "captured", log)
        failed = sorted({label(test) for test in captured.failed})
        if not failed:
            return captured, Run({}, "nothing to compare", DjangoReport())
        return captured, self.run(source, database, failed, "plain", log)

    def compare(self, database: str, captured: Run, plain: Run, *, whole: bool) -> bool:
        print(f"== {database}: {captured.summary}; what failed, without capture: {plain.summary}")
        caused = {test: text for test, text in captured.failed.items() if test not in plain.failed}
        harm = {test: text for test, text in caused.items() if label(test) not in LOOKS_AT_SQL}
        for test in sorted(caused.keys() - harm.keys()):
            print(f"  looks at SQL: {label(test)}: {LOOKS_AT_SQL[label(test)]}")
        report = captured.report
        print(f"tests that see more queries than they expect: {len(report.queries)}")
        for test, numbers in sorted(report.queries.items()):
            print(f"  {test}: {', '.join(f'{executed} for {expected}' for executed, expected in numbers)}")
        return self.judge(report, harm)


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


if __name__ == "__main__":
    raise SystemExit(DjangoSuite().main(__doc__))
