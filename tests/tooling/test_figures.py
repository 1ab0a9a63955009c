"""Figures are compared with their goals, and modes with each other round by round."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, interleaved, quantile, ratio


@pytest.mark.parametrize(
    ("value", "goal", "at_least", "verdict"),
    [
        (8.0, 8.0, False, "met"),
        (8.1, 8.0, False, "missed"),
        (8.1, 8.0, True, "met"),
        (7.9, 8.0, True, "missed"),
    ],
)
def test_a_goal_is_a_bound_from_above_unless_it_says_at_least(
    value: float, goal: float, at_least: bool, verdict: str
) -> None:
    assert Figure(name="", value=value, unit="", goal=goal, at_least=at_least).verdict == verdict


def test_a_figure_without_a_goal_has_no_verdict() -> None:
    assert Figure(name="", value=1, unit="").verdict == ""


def test_every_round_measures_every_mode_once() -> None:
    """The order differs between rounds, so that nobody always comes after the same one."""
    seen: list[str] = []
    modes = {name: lambda name=name: float(seen.append(name) or 1) for name in "abc"}
    times = interleaved(modes, rounds=8)
    rounds = [seen[start : start + 3] for start in range(0, len(seen), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1
    assert all(len(taken) == 8 for taken in times.values())


def test_a_ratio_is_taken_within_rounds() -> None:
    """A machine that slows down tenfold in the middle changes no ratio."""
    assert ratio([1.1, 1.1, 11.0], [1.0, 1.0, 10.0]) == pytest.approx(1.1)


def test_a_quantile_is_one_of_the_samples() -> None:
    assert quantile(range(1, 101), 0.95) == 96
    assert quantile([3.0], 0.95) == 3.0
