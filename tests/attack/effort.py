"""How much an attack tries: short in each test run, long under ``make attack``, which prints counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COUNTS: dict[str, int] = {}
"""What was tried, and how often: printed at the end."""


def effort(short: int, long: int) -> pytest.MarkDecorator:
    """Run a test with ``rounds``: ``short`` always, ``long`` only as an attack."""
    return pytest.mark.parametrize(
        "rounds",
        [
            pytest.param(short, id="short"),
            pytest.param(long, id="long", marks=[pytest.mark.attack, pytest.mark.timeout(7200)]),
        ],
    )


def counted(what: str, number: int = 1) -> None:
    """Count what was tried."""
    COUNTS[what] = COUNTS.get(what, 0) + number


def examples(what: str, rounds: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call ``check`` with so many different examples of a strategy; the smallest that fails is shown."""

    @settings(
        max_examples=rounds,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=rounds < 10_000,
    )
    @given(strategy)
    def run(example: Any) -> None:
        counted(what)
        check(example)

    run()
