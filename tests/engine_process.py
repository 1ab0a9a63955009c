"""Code that runs against an engine of its own, in a process of its own: one process has one engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_AS_LEFT: Final = """
import json, sys
from pathlib import Path
from otel_audit.server.engine.datadir import DataDirectory
from otel_audit.server.engine.engine import Engine
data = DataDirectory.acquire(Path(sys.argv[1]))
engine = Engine(data.engine, memory_bytes=2**30, fsync=False)
with engine.connection() as connection:
    result = []
"""


def in_engine(directory: Path, opening: str, body: str) -> Any:
    """Return the ``result`` of ``body``, run in the ``with`` block that ends ``opening``."""
    return _run(directory / "engine", opening, body)


def in_stopped_server(directory: Path, body: str) -> Any:
    """Return the ``result`` of ``body``, which does what clients may not, to what ``serving`` has left."""
    return _run(directory / "data", _AS_LEFT, body)


def _run(data: Path, opening: str, body: str) -> Any:
    script = opening + "".join(f"    {line}\n" for line in body.splitlines())
    script += "print(json.dumps(result))\nengine.close()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, str(data)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
