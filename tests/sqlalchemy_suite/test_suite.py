"""G7, by SQLAlchemy's own word: its tests of what writes pass with all tables captured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy


@pytest.mark.timeout(900)
def test_sqlalchemy_behaves_as_without_us() -> None:
    """The tests of what writes: 2.0 on PostgreSQL, 2.1 on SQLite; ``make sqlalchemy-suite`` runs all."""
    database = "postgresql" if sqlalchemy.__version__.startswith("2.0.") else "sqlite"
    done = subprocess.run(
        [sys.executable, "-m", "tests.sqlalchemy_suite.run", "--database", database],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "failures of ours that are expected" in done.stdout
