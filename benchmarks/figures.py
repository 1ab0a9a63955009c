"""A measured figure beside its goal, and the few statistics figures are made with."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

Verdict = Literal["met", "missed", ""]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value. ``goal`` is what it should not exceed, or not fall below if ``at_least``."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    note: str = ""
    noise: float | None = None
    """How far the middle half of the rounds lies apart, as a part of the value."""

    @property
    def verdict(self) -> Verdict:
        if self.goal is None:
            return ""
        return "met" if (self.value >= self.goal if self.at_least else self.value <= self.goal) else "missed"


def report(figures: Iterable[Figure]) -> None:
    """Write figures to standard output, one JSON object a line, as soon as each is known."""
    for figure in figures:
        sys.stdout.write(msgspec.json.encode(figure).decode() + "\n")
        sys.stdout.flush()


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Return the sample below which ``fraction`` of the samples lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def each(call: Callable[[], object], times: int) -> list[float]:
    """Return how long each of ``times`` calls took, in seconds."""
    clock = time.perf_counter
    samples = []
    for _ in range(times):
        start = clock()
        call()
        samples.append(clock() - start)
    return samples


def interleaved(modes: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every mode once a round, in random order; return the times of each mode, round by round.

    A machine's speed drifts; within one round it hardly does. So compare modes round by round.
    """
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    order = list(modes)
    shuffle = random.Random(20_26).shuffle
    for _ in range(rounds):
        shuffle(order)
        for mode in order:
            times[mode].append(modes[mode]())
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Return the median over the rounds of ``times`` to ``base``."""
    return statistics.median(time / plain for time, plain in zip(times, base, strict=True))


def noise(times: Sequence[float], base: Sequence[float]) -> float:
    """Return how far the middle half of the rounds' ratios lies apart, as a part of their median."""
    ratios = [time / plain for time, plain in zip(times, base, strict=True)]
    return (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / statistics.median(ratios)


def beside_plain(
    name: str, times: Mapping[str, Sequence[float]], plain: str, goal: float | None
) -> Iterator[Figure]:
    """Yield each mode's times relative to those of ``plain``; ``goal`` is that of ``otel-audit``."""
    base = times[plain]
    notes = {
        "otel-audit": f"plain {statistics.median(base) * 1e6:.0f} µs",
        f"{plain} again": "the same against itself",
    }
    for mode, taken in times.items():
        if mode != plain:
            ours = mode == "otel-audit"
            note = notes.get(mode, "for comparison")
            yield Figure(
                name=f"{name}: {mode}",
                value=ratio(taken, base),
                unit="x plain",
                noise=noise(taken, base),
                goal=goal if ours else None,
                note=f"middle half {spread(taken, base)}; {note}" if ours else note,
            )


def spread(times: Sequence[float], base: Sequence[float]) -> str:
    """Say between what the middle half of the rounds' ratios lies."""
    ratios = [time / plain for time, plain in zip(times, base, strict=True)]
    return f"{quantile(ratios, 0.25):.3f}–{quantile(ratios, 0.75):.3f}"
