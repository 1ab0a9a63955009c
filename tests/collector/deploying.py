"""The deployment files, read by the code of those who run them: the Go program in ``deployment/``.

And the Collector's own word on a set of arguments: ``otelcol-audit validate``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from otel_audit.config.catalog import settings
from tests.collector.running import COLLECTOR, binary
from tests.e2e.running import ROOT, clean_environment


class Refused(Exception):
    """The file was read and is wrong."""


@cache
def reader() -> str:
    """Build what reads the files, if it is not built, and give its path."""
    done = subprocess.run(
        [ROOT / "scripts" / "deployment"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"`scripts/deployment` does not work here:\n{done.stderr}"
    return done.stdout.strip()


def read(kind: str, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Any:
    """Read one file or directory: ``kubernetes``, ``compose``, ``containerfile``."""
    done = subprocess.run(
        [reader(), kind, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stderr)
    return json.loads(done.stdout)


def validate(arguments: Sequence[str], files: Mapping[str, Path], environment: Mapping[str, str]) -> None:
    """Let the Collector check the arguments of a container, where ``files`` says what lies in it."""
    configs = [argument.removeprefix("--config=") for argument in arguments]
    done = subprocess.run(
        [binary(), "validate", *(f"--config={files[config]}" for config in configs)],
        env=clean_environment() | dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def unknown_variables(names: set[str]) -> set[str]:
    """Return those of ``names`` that are ours and that nothing reads."""
    files = [COLLECTOR / "config.yaml", *(COLLECTOR / "profiles").glob("*.yaml")]
    known = {name for path in files for name in re.findall(r"\$\{env:(\w+)", path.read_text())}
    known |= {setting.variable for setting in settings().values()} | {"OTEL_AUDIT_CONFIG"}
    return {name for name in names if name.startswith(("OTELCOL_", "OTEL_AUDIT_"))} - known
