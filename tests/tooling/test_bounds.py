"""The lowest OpenTelemetry we allow is one that was tried: docs/beside.md was filled with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BETA_BEHIND = 21  # core 1.N goes with 0.(N+21)b0 of what is not yet stable


def lower_bounds() -> dict[str, str]:
    """Return the lowest version of each OpenTelemetry package that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted = [*project["dependencies"], *extras]
    found = [re.fullmatch(r"(opentelemetry-[a-z-]+)>=([\w.]+)", each) for each in wanted]
    return {match[1]: match[2] for match in found if match}


def test_all_packages_of_opentelemetry_are_bounded_by_one_release() -> None:
    bounds = lower_bounds()
    assert len(bounds) >= 6
    minor = int(bounds["opentelemetry-sdk"].split(".")[1])
    core = {f"opentelemetry-{name}" for name in ("api", "sdk", "proto", "exporter-otlp")}
    for package, bound in bounds.items():
        assert bound == (f"1.{minor}" if package in core else f"0.{minor + BETA_BEHIND}b0"), package


def test_the_lowest_release_is_the_oldest_that_was_run_beside_others() -> None:
    lowest = lower_bounds()["opentelemetry-sdk"]
    page = (ROOT / "docs" / "beside.md").read_text("utf-8")
    ran = [tuple(map(int, each.split("."))) for each in re.findall(r"SDK (\d+\.\d+\.\d+)", page)]
    assert ".".join(map(str, min(ran)[:2])) == lowest
