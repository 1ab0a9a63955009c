"""What is counted and measured of SQLAlchemy: each job by a name that no other has."""

from __future__ import annotations

from collections import Counter

from benchmarks.instructions.__main__ import ROWS
from benchmarks.sqlalchemy_jobs import JOBS
from benchmarks.sqlalchemy_writes import GOALS


def test_no_two_modules_count_a_job_of_the_same_name() -> None:
    """Counts are kept by kind and name: one would be shown for the other."""
    modules = Counter(job for job, _ in {(row.job, row.module) for row in ROWS})
    assert [job for job, count in modules.items() if count > 1] == []


def test_each_goal_is_of_a_job() -> None:
    assert set(GOALS) <= set(JOBS)
