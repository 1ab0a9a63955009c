"""How much an attack tries: short in each test run, long under ``make attack``, which prints counts.

Each input has a seed of its own: a failure names it, and shows the smallest input that fails in the same
place. ``ATTACK_SEED=…`` tries the same inputs again.
"""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attack.chance import Chance
from tests.attack.smallest import smallest

T = TypeVar("T")

COUNTS: dict[str, int] = {}
"""What was tried, and how often: printed at the end."""

_LONG: Final = 10_000
"""Rounds from which on inputs differ from run to run."""
_BY_HYPOTHESIS: Final = 2_000
"""It makes and keeps account of 30 to 100 inputs in a second, however quickly they are tried."""
_SEED: Final = os.environ.get("ATTACK_SEED", "")


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


def examples(
    what: str, rounds: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], object]
) -> None:
    """Call ``check`` with so many different examples of a strategy; the smallest that fails is shown."""

    @settings(
        max_examples=min(rounds, _BY_HYPOTHESIS),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=rounds < _LONG,
    )
    @given(strategy)
    def run(example: Any) -> None:
        counted(f"{what}: by hypothesis")
        check(example)

    run()


def inputs(
    what: str, rounds: int, make: Callable[[Chance], T], check: Callable[[T], str], *, whole: str = ""
) -> None:
    """Call ``check`` with so many inputs; what it says became of each is counted.

    Without a text that contains ``whole`` an input would be another one.

    Raises:
        AssertionError: one fails; says how to try it again, and the smallest that fails in the same place.
    """
    seed = _SEED or (str(random.SystemRandom().randrange(10**9)) if rounds >= _LONG else "0")
    for number in range(rounds):
        made = make(Chance(f"{seed}/{number}"))
        try:
            became = check(made)
        except Exception as error:
            place = _place(error)
            least = smallest(made, lambda other: _fails(check, other) == place, whole)  # noqa: B023 - at once
            raise AssertionError(
                f"{what}: input {number} of ATTACK_SEED={seed}: {type(error).__name__}: {str(error)[:500]}\n"
                f"the smallest that fails in the same place: {least!r}"
            ) from error
        counted(f"{what}: {became}")
    counted(f"{what} (ATTACK_SEED={seed})", rounds)


def _fails(check: Callable[[T], str], given: T) -> tuple[Any, ...] | None:
    try:
        check(given)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return _place(error)
    return None


def _place(error: BaseException) -> tuple[Any, ...]:
    """Say what failed and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return type(error), last.filename, last.lineno
