"""`otel-audit serve`, on free ports and a new data directory."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.pipelines import directory
from tests.services import free_port, wait_until

_START_TIMEOUT = 60


class Addresses(NamedTuple):
    """Where the server listens, OTLP over HTTP and queries, and its process."""

    otlp: str
    store: str
    pid: int


@contextmanager
def serve(data: Path | None = None) -> Iterator[Addresses]:
    """Run the server for the length of a ``with`` block, over ``data`` or a new directory."""
    ports = {name: free_port() for name in ("HTTP_PORT", "GRPC_PORT", "CLICKHOUSE_PORT")}
    with directory() as path, (path / "log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "otel-audit", "serve", "--no-token"],
            cwd=path,
            env=os.environ
            | {f"OTEL_AUDIT_SERVER_{name}": str(port) for name, port in ports.items()}
            | {"OTEL_AUDIT_SERVER_DATA": str(data or path / "data")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        addresses = Addresses(
            *(f"http://127.0.0.1:{ports[name]}" for name in ("HTTP_PORT", "CLICKHOUSE_PORT")), process.pid
        )
        try:
            wait_until(
                lambda: process.poll() is not None or _answers(f"{addresses.otlp}/ready"),
                _START_TIMEOUT,
                "otel-audit serve is ready",
            )
            if process.poll() is not None:
                raise RuntimeError((path / "log").read_text())
            yield addresses
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
