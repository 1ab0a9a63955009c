"""What of the Collector is written in Go has its tests in Go."""

from __future__ import annotations

import subprocess

from tests.e2e.running import ROOT


def test_the_router_and_the_patches_do_what_they_are_for() -> None:
    """Formatted, vetted, tested: collector/router, and the tests that come with a patch."""
    done = subprocess.run(
        [ROOT / "scripts" / "collector", "test"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
