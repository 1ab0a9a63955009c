"""On PostgreSQL through psycopg2 everything is recorded as through psycopg 3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLUGIN = "tests.psycopg2_only"
SHORT = ("of_psycopg2.py", "test_raw_sql.py", "test_transactions.py", "test_told_is_what_is_stored.py")


def run_on_psycopg2(*arguments: str) -> str:
    """Run tests in a process of their own, where Django has no other driver; return what pytest says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", PLUGIN, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=HERE.parents[3],
        env=environ,
        text=True,
        capture_output=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_outcomes_values_and_raw_sql() -> None:
    assert " passed" in run_on_psycopg2(*(str(HERE / name) for name in SHORT))


@pytest.mark.attack
@pytest.mark.timeout(1800)
def test_everything_else() -> None:
    assert " passed" in run_on_psycopg2(str(HERE), "tests/capture/test_interrupted_at_any_moment.py")
