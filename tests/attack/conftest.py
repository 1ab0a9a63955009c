"""Print what was tried."""

from __future__ import annotations

import pytest

from tests.attack.effort import COUNTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line for each kind of attack, when attacks were asked for."""
    if COUNTS and "attack" in (config.option.markexpr or "").split() and "not" not in config.option.markexpr:
        terminalreporter.section("attacks")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{number:>10,}  {what}")
