"""Each table of figures says how noisy it was."""

from __future__ import annotations

from rich.console import Console

from benchmarks.__main__ import table
from benchmarks.figures import Figure, noise


def test_noise_is_how_far_the_middle_half_of_the_rounds_lies_apart() -> None:
    assert noise([1.0] * 8, [1.0] * 8) == 0
    assert noise([1, 1, 1, 2, 2, 3, 3, 3], [1.0] * 8) == 1.0


def test_a_table_says_how_noisy_it_was_where_that_is_known() -> None:
    console = Console(width=150, record=True)
    known = [Figure(name="a", value=1, unit="x", noise=0.1), Figure(name="b", value=1, unit="x", noise=0.3)]
    console.print(table({"first": known, "second": [Figure(name="c", value=1, unit="x")]}))
    text = console.export_text()
    assert text.count("noise:") == 1
    assert "within 20% of a figure, at most 30%" in text
