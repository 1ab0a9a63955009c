"""The data directory: ours or not, whose, and of which version."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from otel_audit.errors import StoreError
from otel_audit.server.engine.datadir import FORMAT, DataDirectory

MARKER = "otel-audit-store.json"
HOLD = """
import sys
from otel_audit.server.engine.datadir import DataDirectory
held = DataDirectory.acquire(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_directory_becomes_ours(tmp_path: Path) -> None:
    """With its parents, closed to others, marked with its format."""
    directory = DataDirectory.acquire(tmp_path / "a" / "b")
    assert json.loads((directory.path / MARKER).read_text())["format"] == FORMAT
    assert directory.path.stat().st_mode & 0o077 == 0
    assert directory.engine.parent == directory.path
    directory.release()
    DataDirectory.acquire(tmp_path / "a" / "b").release()


def test_a_directory_in_use_says_who_holds_it(tmp_path: Path) -> None:
    """Process, host and since when; once that process is dead, however it died, it is free."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError) as refused:
            DataDirectory.acquire(tmp_path)
        holder.kill()
        holder.wait(10)
    message = str(refused.value)
    assert f"process {holder.pid} on host {socket.gethostname()} since 20" in message
    assert "stop that `otel-audit serve`" in message
    directory = DataDirectory.acquire(tmp_path)
    held = json.loads((tmp_path / "otel-audit-store.lock").read_text())
    assert held["pid"] == os.getpid()
    directory.release()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written into it."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not otel-audit's \(thesis\.tex\)"):
        DataDirectory.acquire(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """The message says what to install; and it is not held afterwards."""
    (tmp_path / MARKER).write_text(json.dumps({"format": FORMAT + 1}))
    for _ in range(2):
        with pytest.raises(StoreError, match="install the newer otel-audit"):
            DataDirectory.acquire(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "x"}', "{}"])
def test_an_unreadable_marker_is_told(tmp_path: Path, content: str) -> None:
    """With the text that restores it."""
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(StoreError, match=r"cannot be read .* restore the file"):
        DataDirectory.acquire(tmp_path)


def test_a_path_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    """Also for a user who may write everywhere."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot be used: .* directory that this user can write"):
        DataDirectory.acquire(tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Before the engine fails with something nobody understands."""
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        DataDirectory.acquire(tmp_path)
