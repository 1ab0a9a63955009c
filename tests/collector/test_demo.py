"""The demo with the Collector in the middle, as ``make demo-collector DEMO_ONCE=1`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.collector.running import binary
from tests.e2e.running import ROOT, run


def test_the_afternoon_in_the_shop_is_on_record_behind_the_collector(tmp_path: Path) -> None:
    """All of it, and the Collector's own counts agree that nothing was refused, failed or left behind."""
    demo = str(ROOT / "examples" / "shop" / "demo.py")
    output = run(
        *(sys.executable, demo, "--once", "--collector", binary()),
        environment={"TMPDIR": str(tmp_path), "OTEL_AUDIT_ENABLED": "false", "OTELCOL_LOG_LEVEL": "nonsense"},
        cwd=ROOT,
    )
    assert "things that must be on record are." in output
    assert "otelcol-audit --config config.yaml" in output
    assert "charge the card" in output
    assert list(tmp_path.iterdir()) == []
