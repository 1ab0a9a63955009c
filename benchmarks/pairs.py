"""An application served twice, with OpenTelemetry alone and with ours beside it, and sent the same requests.

Each of the two has a database of its own; every round sends the same requests to both, in random order. This
is done with several such pairs: how a process happens to lie in memory makes it some per cent faster or
slower for as long as it lives.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.databases import VENDORS, entries, environment
from benchmarks.figures import Figure, interleaved, noise, ratio, spread
from benchmarks.pipelines import directory
from benchmarks.sink import require_posts, sink
from tests.services import wait_until

_PAIRS = 5
_ROUNDS = 30
_REQUESTS = 10


class Page(NamedTuple):
    """A page to post to: its name, its path, the status of success, and the body of the n-th post."""

    name: str
    path: str
    status: int = 200
    body: Callable[[int], str] = lambda _: ""


class Application(NamedTuple):
    """What serves one of a pair: ``entry`` is its database; its spool goes into ``path``."""

    entry: dict[str, Any]
    sink_address: str
    audit: bool
    path: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of its server, that has OpenTelemetry's instrumentation."""
        return environment(self.entry) | {
            "OTEL_SERVICE_NAME": "bench",
            # Ours is installed as well; both applications shall start the same way.
            "OTEL_PYTHON_DISTRO": "distro",
            "OTEL_PYTHON_CONFIGURATOR": "configurator",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.sink_address,
            "OTEL_AUDIT_ENABLED": "true" if self.audit else "false",
            "OTEL_AUDIT_SINK_ENDPOINT": f"{self.sink_address}/v1/audit",
            "OTEL_AUDIT_SPOOL_DIRECTORY": str(self.path / "spool"),
            "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]),
        }


Serve = Callable[[Application], AbstractContextManager[Callable[[Page], None]]]
"""Serves an application; gives a call that posts once to a page, for the next row."""


def compared(pages: Sequence[Page], serve: Serve, goal: float) -> Iterator[Figure]:
    """Measure both of several pairs on each database."""
    for vendor in VENDORS:
        times = {page: {"alone": list[float](), "beside": list[float]()} for page in pages}
        for _ in range(_PAIRS):
            for page, measured in _pair(pages, serve, vendor).items():
                for mode, samples in measured.items():
                    times[page][mode] += samples
        for page, measured in times.items():
            alone, beside = measured["alone"], measured["beside"]
            yield Figure(
                name=f"{page.name}, {vendor}",
                value=ratio(beside, alone),
                unit="x OpenTelemetry alone",
                noise=noise(beside, alone),
                goal=goal,
                note=f"middle half {spread(beside, alone)}; alone {statistics.median(alone) * 1e3:.2f} ms",
            )


def _pair(pages: Sequence[Page], serve: Serve, vendor: str) -> dict[Page, dict[str, list[float]]]:
    """Measure one server without and one with audit, page by page and round by round."""
    with entries(vendor, 2) as both, sink() as address:
        with ExitStack() as stack:
            alone, beside = [
                stack.enter_context(
                    serve(Application(entry, address, audit, stack.enter_context(directory())))
                )
                for entry, audit in zip(both, (False, True), strict=True)
            ]
            times = {}
            for page in pages:
                modes = {
                    "alone": partial(_median, partial(alone, page)),
                    "beside": partial(_median, partial(beside, page)),
                }
                for mode in list(modes.values()) * 5:
                    mode()
                times[page] = interleaved(modes, _ROUNDS)
        # Spans are sent every five seconds, and at the end.
        require_posts(f"{address}/v1/traces")
        require_posts(f"{address}/v1/audit")
        return times


def _median(post: Callable[[], None]) -> float:
    samples = []
    for _ in range(_REQUESTS):
        start = time.perf_counter()
        post()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


class Client:
    """One keep-alive connection, which posts to one of ``rows`` rows after the other."""

    def __init__(self, port: int, rows: int, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._rows = rows
        self._headers = dict(headers)
        self._posts = 0

    def answers(self, page: Page) -> bool:
        try:
            self.post(page)
        except OSError:
            self._connection.close()
            return False
        return True

    def post(self, page: Page) -> None:
        path = page.path.format(row=self._posts % self._rows + 1)
        self._posts += 1
        self._connection.request("POST", path, page.body(self._posts), self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != page.status:
            raise RuntimeError(f"{response.status}: {body[:500]!r}")


@contextmanager
def server(
    command: Sequence[str | Path], env: Mapping[str, str], path: Path, answers: Callable[[], bool]
) -> Iterator[None]:
    """Run a server until the end of the block, which begins when it answers."""
    log = path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(list(command), env=dict(env), stdout=output, stderr=output)
        try:
            wait_until(lambda: process.poll() is not None or answers(), 60, f"{command[1]} answers")
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield
        finally:
            process.terminate()
            process.wait(90)
