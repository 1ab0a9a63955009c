"""G7, by Django's own word: its tests of everything that writes pass with all models captured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(900)
def test_django_behaves_as_without_us() -> None:
    """The tests of what writes, on SQLite; ``make django-suite`` runs all of them, on PostgreSQL too."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.django_suite.run"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "failures of ours that are expected" in done.stdout
