"""Ports and child processes: started together, their output kept, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

SHOP = Path(__file__).resolve().parent.parent
FULFILMENT = SHOP.parent / "fulfilment"
BIN = Path(sys.executable).parent


class Service(NamedTuple):
    """Where a service has its files, and what is set for it beside what is set for all."""

    directory: Path
    environment: Mapping[str, str]


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and shows what the process said."""


def free_port(wanted: int, taken: set[int]) -> int:
    """Return ``wanted`` if nobody listens on it, else any free port; remember it in ``taken``."""
    for candidate in (wanted, 0):
        if candidate in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            port = int(probe.getsockname()[1])
        if port in taken:
            return free_port(0, taken)
        taken.add(port)
        return port
    raise DemoFailed("There is no free port on 127.0.0.1.")


def command(name: str) -> str:
    """Find a command of this very installation, not the one that happens to be first on the PATH."""
    found = BIN / name
    if not found.exists():
        raise DemoFailed(f"{found} does not exist. `make install` puts it there.")
    return str(found)


class Processes:
    """The child processes of one demo; use as a context manager."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        # What the user has set for projects of their own must not reach into this one.
        foreign = ("OTEL_", "OTELCOL_", "DJANGO_", "SHOP_", "FULFILMENT_", "GUNICORN_", "UVICORN_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = {**own, **environment}
        self.logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End them, the last one first, so that the shop can still deliver to the store."""
        for _name, process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start(self, name: str, arguments: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start a server and wait until it is ready."""
        process = self.spawn(name, arguments)
        self.wait(name, process, ready)

    def spawn(
        self, name: str, arguments: Sequence[str], service: Service | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in its own group, its output in ``name.log``: Ctrl-C is for the demo alone."""
        with open(self.logs / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                arguments,
                cwd=service.directory if service else SHOP,
                env=self.environment | dict(service.environment if service else {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((name, process))
        return process

    def wait(
        self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool], timeout: float = 60
    ) -> None:
        """Wait until ``ready``; fail with the process's last words if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not ready():
            if process.poll() is not None:
                raise DemoFailed(f"{name} ended with status {process.returncode}:\n{self.last_words(name)}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{name} is not ready after {timeout:g} s:\n{self.last_words(name)}")
            time.sleep(0.05)

    def finish(self, name: str, process: subprocess.Popen[bytes], timeout: float = 60) -> None:
        """Wait for a command to end well."""
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{name} has not ended after {timeout:g} s:\n{self.last_words(name)}") from None
        self._running.remove((name, process))
        if status:
            raise DemoFailed(f"{name} ended with status {status}:\n{self.last_words(name)}")

    def run(self, name: str, arguments: Sequence[str], service: Service | None = None) -> None:
        """Run a command to its end."""
        self.finish(name, self.spawn(name, arguments, service))

    def capture(self, arguments: Sequence[str]) -> str:
        """Run an ``otel-audit`` command and give what it printed; status 1 is "nothing found"."""
        done = subprocess.run(
            arguments, cwd=SHOP, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1):
            raise DemoFailed(f"{' '.join(arguments)} ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout

    def show(self, arguments: Sequence[str], service: Service | None = None) -> None:
        """Run a command with our own terminal."""
        environment = self.environment | dict(service.environment if service else {})
        done = subprocess.run(arguments, cwd=SHOP, env=environment, check=False)
        if done.returncode:
            raise DemoFailed(f"{' '.join(arguments)} ended with status {done.returncode}")

    def alive(self) -> bool:
        """Say whether every server still runs."""
        return not self._ended()

    def obituary(self) -> str:
        """Say which server ended, and how."""
        return "\n".join(
            f"{name} ended with status {status}:\n{self.last_words(name)}" for name, status in self._ended()
        )

    def _ended(self) -> list[tuple[str, int]]:
        return [(name, process.returncode) for name, process in self._running if process.poll() is not None]

    def last_words(self, name: str, lines: int = 20) -> str:
        """Return the end of a process's output."""
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def listening(port: int) -> bool:
    """Say whether something accepts connections on ``port``."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
