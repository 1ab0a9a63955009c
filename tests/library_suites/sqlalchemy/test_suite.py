"""G7, by SQLAlchemy's own word: its tests of what writes pass with all tables captured."""

from __future__ import annotations

import pytest
import sqlalchemy

from tests.library_suites.runs import assert_good


@pytest.mark.timeout(900)
def test_sqlalchemy_behaves_as_without_us() -> None:
    """The tests of what writes: 2.0 on PostgreSQL, 2.1 on SQLite; ``make sqlalchemy-suite`` runs all."""
    database = "postgresql" if sqlalchemy.__version__.startswith("2.0.") else "sqlite"
    assert_good("tests.library_suites.sqlalchemy.run", "--database", database)
