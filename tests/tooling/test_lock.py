"""constraints.txt serves two Pythons from one file."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "lock.py"))


def pinned(lines: list[str], python: str) -> dict[str, str]:
    """Return what a constraints file pins on one Python."""
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python})
    }


def test_each_python_gets_what_was_resolved_on_it() -> None:
    """Versions that differ get a line a Python, others one for all."""
    resolved = {
        "3.11": {"Django": "5.2.19", "wrapt": "2.5.2"},
        "3.14": {"Django": "6.1.3", "wrapt": "2.5.2"},
    }
    lines = LOCK["merged"](resolved)
    assert len(lines) == 3
    for python, versions in resolved.items():
        assert pinned(lines, python) == {name: f"=={version}" for name, version in versions.items()}


def test_a_python_in_between_gets_the_newer_versions() -> None:
    """A machine whose newest Python is 3.12 still tests the newest Django."""
    lines = LOCK["merged"]({"3.11": {"Django": "5.2.19"}, "3.14": {"Django": "6.1.3"}})
    assert pinned(lines, "3.12") == {"Django": "==6.1.3"}


def test_every_dependency_is_pinned() -> None:
    """What pyproject.toml names stands in constraints.txt, on the oldest Python and above it."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for python in ("3.11", "3.13"):
        pins = {LOCK["canonical"](name) for name in pinned(lines, python)}
        assert not LOCK["named"]() - pins
