"""Code that runs against an engine of its own, in a process of its own: one process has one engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_engine(directory: Path, opening: str, body: str) -> Any:
    """Return the ``result`` of ``body``, run in the ``with`` block that ends ``opening``."""
    script = opening + "".join(f"    {line}\n" for line in body.splitlines())
    script += "print(json.dumps(result))\nengine.close()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory / "engine")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
