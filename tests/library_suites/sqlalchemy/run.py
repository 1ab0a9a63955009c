"""Run SQLAlchemy's own tests with everything captured, and what fails there once more without, and compare.

::

    python -m tests.library_suites.sqlalchemy.run                      # a subset, on SQLite
    python -m tests.library_suites.sqlalchemy.run --database postgresql test/orm/dml
    python -m tests.library_suites.sqlalchemy.run --whole --database sqlite --database postgresql

The tests come from SQLAlchemy's source distribution of the installed version, fetched by pip; the library is
the installed one. Captured are all tables. ``make sqlalchemy-suite`` runs all tests, with the oldest and the
newest SQLAlchemy. The result is good if

* no test fails that passes without capture, but for those of a kind or a name in ``expected.py``, each with
  the reason;
* as many tests ran as without capture (``--whole``: both run all of them);
* capture had no failure of its own that it kept from the application, other than those named there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.library_suites.runs import ROOT, Suite, environment
from tests.library_suites.sqlalchemy.expected import BY_NAME, FAILURES_OF_OURS, KINDS
from tests.library_suites.sqlalchemy.watch import SQLAlchemyReport, read

PARTS = ["test/orm", "test/engine", "test/sql", "test/dialect", "test/ext"]
NOT_RUN = [
    "test/ext/mypy",  # reads source files
    "test/dialect/mssql",
    "test/dialect/mysql",
    "test/dialect/oracle",
]
SUBSET = [
    "test/engine/test_execute.py",
    "test/engine/test_transaction.py",
    "test/ext/asyncio",
    "test/ext/test_horizontal_shard.py",
    "test/ext/test_mutable.py",
    "test/orm/dml",
    "test/orm/inheritance/test_basic.py",
    "test/orm/test_cascade.py",
    "test/orm/test_composites.py",
    "test/orm/test_cycles.py",
    "test/orm/test_defaults.py",
    "test/orm/test_manytomany.py",
    "test/orm/test_naturalpks.py",
    "test/orm/test_session.py",
    "test/orm/test_transaction.py",
    "test/orm/test_unitofwork.py",
    "test/orm/test_unitofworkv2.py",
    "test/orm/test_versioning.py",
    "test/sql/test_defaults.py",
    "test/sql/test_delete.py",
    "test/sql/test_returning.py",
    "test/sql/test_update.py",
]


class Run(NamedTuple):
    """One run: what the plugin noted, and the last line."""

    report: SQLAlchemyReport
    summary: str


class SQLAlchemySuite(Suite[Run]):
    """SQLAlchemy's ``test`` directory, by pytest and SQLAlchemy's plugin of it."""

    distribution = "SQLAlchemy"
    subset = SUBSET
    databases = ("sqlite", "postgresql", "asyncpg")
    whole = "ORM, engine, SQL, dialects and extensions"
    expected_failures = FAILURES_OF_OURS

    def run(self, source: Path, database: str, tests: list[str], how: str, log: Path) -> Run:
        with (
            tempfile.TemporaryDirectory(prefix=f"sqlalchemy-suite-{how}-") as temporary,
            database_url(database) as url,
        ):
            directory = Path(temporary) / "suite"
            # Without the library: the installed one is tested. The tests start their plugin from the sources.
            for part in ("test", "setup.cfg", "pyproject.toml", "lib/sqlalchemy/testing/plugin"):
                target = directory / part
                target.parent.mkdir(parents=True, exist_ok=True)
                if (source / part).is_dir():
                    shutil.copytree(source / part, target)
                else:
                    shutil.copy(source / part, target)
            report = log / f"{database}-{how}.json"
            output = log / f"{database}-{how}.log"
            arguments = Path(temporary) / "arguments"
            arguments.write_text("\n".join(tests) + "\n")
            command = [sys.executable, "-s", "-m", "pytest", "-q", "--tb=native", "--maxfail=100000"]
            command += ["-o", "addopts=", "--strict-markers", "--timeout=300", "--timeout-method=signal"]
            command += ["-p", "warnings", "-p", "logging", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
            command += ["-p", "tests.library_suites.sqlalchemy.watch", "--dburi", url]
            command += [f"--ignore={path}" for path in NOT_RUN]
            with output.open("wb") as file:
                done = subprocess.run(
                    [*command, *([f"@{arguments}"] if tests else PARTS)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                    env=environment(
                        Path(temporary),
                        PYTHONPATH=str(ROOT),
                        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
                        SUITE_HOW=how,
                        SUITE_REPORT=str(report),
                    ),
                    cwd=directory,
                )
            text = output.read_text("utf-8", "replace")
            summary = re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s.*?)\s*=*$", text, re.M)
            if done.returncode not in (0, 1) or not summary or not report.exists():
                raise SystemExit(f"SQLAlchemy's suite did not end:\n{text[-3000:]}")
            return Run(read(report), summary[-1])

    def both(self, source: Path, database: str, tests: list[str], log: Path) -> tuple[Run, Run]:
        captured = self.run(source, database, tests, "captured", log)
        failed = sorted(in_files(captured.report.failed)) if tests else []
        if tests and not failed:
            return captured, Run(SQLAlchemyReport(), "nothing to compare")
        return captured, self.run(source, database, failed, "plain", log)

    def compare(self, database: str, captured: Run, plain: Run, *, whole: bool) -> bool:
        import sqlalchemy

        print(
            f"== SQLAlchemy {sqlalchemy.__version__}, {database}: {captured.summary}; plain: {plain.summary}"
        )
        report = captured.report
        caused = {test: text for test, text in report.failed.items() if test not in plain.report.failed}
        harm, kinds, names = {}, dict[str, list[str]](), []
        for test, text in sorted(caused.items()):
            kind = next((kind for kind, pattern in KINDS.items() if pattern.search(text)), None)
            if test in BY_NAME:
                names.append(test)
            elif kind is not None:
                kinds.setdefault(kind, []).append(test)
            else:
                harm[test] = text
        for kind, tests in kinds.items():
            print(f"{kind}: {len(tests)}")
            for test in tests:
                print(f"  {test}")
        for test in names:
            print(f"  by name: {test}: {BY_NAME[test]}")
        missing = set(plain.report.passed) - set(report.passed) - set(report.failed) if whole else set()
        print(f"tests that removed the listeners of all engines, ours too: {len(report.unlistened)}")
        good = self.judge(report, harm)
        if missing:
            print(f"NOT RUN with capture: {len(missing)} tests: {', '.join(sorted(missing)[:20])}")
        return good and not missing


@contextmanager
def database_url(database: str) -> Iterator[str]:
    """Return the URL of a new database, set up as SQLAlchemy's tests expect it."""
    if database == "sqlite":
        yield "sqlite:///:memory:"
        return
    from tests import services

    with services.postgresql("default_text_search_config=pg_catalog.english") as server:
        name = server.create_database()
        schemas = [f"CREATE SCHEMA {schema}" for schema in ("test_schema", "test_schema_2")]
        extensions = [f"CREATE EXTENSION {extension}" for extension in ("hstore", "citext")]
        server.execute(*schemas, *extensions, database=name)
        driver = {"postgresql": "psycopg"}.get(database, database)
        yield f"postgresql+{driver}://{server.user}@/{name}?host={server.host}&port={server.port}"


def in_files(tests: dict[str, str]) -> set[str]:
    """Return the files of tests: their ids have the database's version in them, and any characters."""
    return {test.split("::")[0] for test in tests}


if __name__ == "__main__":
    raise SystemExit(SQLAlchemySuite().main(__doc__))
