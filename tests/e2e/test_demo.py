"""The demo itself: what it prints, what it leaves behind, and that it can fail."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Process, run

DEMO = str(ROOT / "examples" / "shop" / "demo.py")
STANDARD_PORTS = (4317, 4318, 8000, 8001, 8123)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Settings of somebody's own project, which the demo must not obey, and a place for temporary files."""
    return {"TMPDIR": str(tmp_path), "OTEL_AUDIT_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}


def test_the_demo_ends_by_itself_and_shows_the_trail(tmp_path: Path, environment: dict[str, str]) -> None:
    """With every standard port taken: other ports are found, all of it is printed, nothing is left behind."""
    with ExitStack() as stack:
        for port in STANDARD_PORTS:
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
                listener.listen()
            except OSError:
                pass  # taken already: as good
        output = run(sys.executable, DEMO, "--once", environment=environment, cwd=ROOT)
    assert "things that must be on record are." in output
    assert "Rua das Flores 12, Lisboa" in output
    asked = (
        "explain context otel_audit.context=",
        "query ",
        "show ",
        "trace ",
        "history ",
        "tasks ",
        "explain ",
    )
    for shown in asked:
        assert f"$ otel-audit {shown}" in output
    assert re.search(r"^accepted +yes$", output, re.MULTILINE)
    assert "charge the card" in output
    assert "PUT /orders/{order}/shipment" in output
    assert "run/shop.tasks.send_receipt" in output
    assert "--supplier-token=[redacted]" in output
    assert "Silver Needle: 35 ordered" in output
    assert "CREATE fulfilment.Shipment/1 by shop (service) for 1 [ana]" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack
def test_the_demo_fails_if_something_is_not_on_record(tmp_path: Path, environment: dict[str, str]) -> None:
    """One expectation more than the story fulfils: status 1, and the demo says what is missing."""
    script = tmp_path / "demanding.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(DEMO).parent)!r})\n"
        "import demo\n"
        "from tour import expectations\n"
        "demo.PATIENCE = 1.0\n"
        "usual = expectations.expectations\n"
        "wanted = expectations.Expectation('tea with the Queen', lambda entry: False)\n"
        "expectations.expectations = lambda numbers: [*usual(numbers), wanted]\n"
        "sys.exit(demo.play(once=True))\n"
    )
    output = run(sys.executable, str(script), environment=environment, cwd=ROOT, status=1)
    assert "Missing from the trail: tea with the Queen" in output


def test_ctrl_c_ends_the_demo_and_everything_it_started(tmp_path: Path, environment: dict[str, str]) -> None:
    """It stays up and says what to do next; after Ctrl-C its processes and files are gone."""
    state = tmp_path / "state"
    state.mkdir()
    demo = Process(
        [sys.executable, DEMO], environment | {"TMPDIR": str(state)}, tmp_path / "demo.log", cwd=ROOT
    )
    try:
        demo.wait_until(lambda: "Ctrl-C ends the demo" in demo.output(), "the demo stays up")
        shop = re.search(r"http://127\.0\.0\.1:(\d+)/", demo.output())
        assert shop is not None
        with socket.create_connection(("127.0.0.1", int(shop[1])), timeout=5):
            pass
        assert demo.stop(signal.SIGINT, timeout=60) == 0
        assert "The shop is closed." in demo.output()
        assert list(state.iterdir()) == []
        assert not _processes_of(state)
    finally:
        demo.kill()


def _processes_of(state: Path) -> list[int]:
    """Find processes whose environment names the demo's directory; the dying get a moment."""
    for _ in range(50):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                mine = process.stat().st_uid == os.getuid()
                if mine and f"{state}/".encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found
