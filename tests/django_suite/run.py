"""Run Django's own test suite, plain or with everything captured, and compare.

::

    python -m tests.django_suite.run                      # a subset, SQLite, plain and captured, compared
    python -m tests.django_suite.run --database postgresql basic delete queries

The tests come from Django's source distribution of the installed version, fetched by pip. Only assertions on
the number or the text of queries may differ: a save in doubt asks for its row, and statements are extended
to return rows.
"""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

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

_COUNTS = re.compile(r"AssertionError: \d+ != \d+ : \d+ queries executed, \d+ expected")
_TEXT = re.compile(
    r"AssertionError: .*(RETURNING|__otel_audit|FOR (NO KEY )?UPDATE|(DELETE|UPDATE|INSERT) .* WHERE 0)"
    r"|sql\.count\(",
    re.S,
)


def sources(directory: Path) -> Path:
    """Fetch and unpack the source distribution of the installed Django; give its ``tests`` directory."""
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
    return unpacked / "tests"


def inside(arguments: list[str]) -> None:
    """Instrument for all models if asked to, then become Django's ``runtests.py``."""
    captured, runtests, *rest = arguments
    sys.path.insert(0, str(Path(runtests).parent))
    sys.argv = [runtests, *rest]
    with ExitStack() as stack:
        if captured == "captured":
            from otel_audit.config.model import AuditConfig, DjangoConfig
            from otel_audit.instrumentation.django import DjangoAuditInstrumentor
            from otel_audit.testing import capture_audit

            config = AuditConfig(django=DjangoConfig(models=["*"], auth_events=False))
            stack.enter_context(capture_audit(config))
            DjangoAuditInstrumentor().instrument(config=config)
        runpy.run_path(runtests, run_name="__main__")


def run(tests: Path, settings: Path, packages: list[str], how: str) -> tuple[set[str], str]:
    """Run ``packages``; give the ids of the tests that failed, and all output."""
    command = [sys.executable, "-m", "tests.django_suite.run", "--inside", how, str(tests / "runtests.py")]
    command += ["--settings", settings.stem, "--parallel", "1", "--verbosity", "1", *packages]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PYTHONPATH": f"{settings.parent}:{Path(__file__).parents[2]}",
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
        },
        cwd=tests,
    )
    output = done.stdout + done.stderr
    if "Ran " not in output:
        raise SystemExit(f"Django's suite did not run:\n{output[-3000:]}")
    return set(re.findall(r"^(?:FAIL|ERROR): (.+)$", output, re.M)), output


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
        f"DATABASES = {databases!r}\nSECRET_KEY = 'suite'\nUSE_TZ = False\n"
        "PASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'\n"
    )
    return path


def unexpected(output: str, failed: set[str]) -> set[str]:
    """Leave only failures that are not about the number or the text of queries."""
    rest = set()
    for report in re.split(r"^={70}$", output, flags=re.M)[1:]:
        head = re.match(r"\s*(?:FAIL|ERROR): (.+)", report)
        if head is None or head[1] not in failed:
            continue
        if not _COUNTS.search(report) and not _TEXT.search(report):
            rest.add(head[1])
    return rest


def main() -> int:
    """Run plain, run captured, compare; give the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", default=SUBSET)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mariadb"], default="sqlite")
    parser.add_argument(
        "--sources", type=Path, help="where to keep Django's sources; default a temporary place"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="django-suite-")))
        tests = sources(options.sources or directory)
        settings = settings_for(options.database, directory, stack)
        before, plain = run(tests, settings, options.packages, "plain")
        after, captured = run(tests, settings, options.packages, "captured")
    for output in (plain, captured):
        print(*re.findall(r"^(?:Ran .*|OK.*|FAILED.*)$", output, re.M), sep="\n")
    caused = after - before
    harm = unexpected(captured, caused)
    print(f"{len(caused)} tests differ, {len(caused - harm)} of them because they look at queries themselves")
    for name in sorted(caused - harm):
        print(f"  looks at queries: {name}")
    for name in sorted(harm):
        print(f"  HARM: {name}")
        print(next(r for r in re.split(r"^={70}$", captured, flags=re.M) if name in r)[-2500:])
    return 1 if harm else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2:])
    else:
        raise SystemExit(main())
