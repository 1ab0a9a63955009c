"""A POST that updates one row: OpenTelemetry's Django instrumentation alone, and with ours beside it.

Twice: a page that does hardly anything but save, and a form of ten fields with its CSRF token.

Two gunicorns of one worker each serve the same project, each with a database of its own; every round sends
the same requests to both, in random order. This is done with several such pairs: how a process happens to lie
in memory makes it some per cent faster or slower for as long as it lives.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from benchmarks.databases import VENDORS, entries, environment
from benchmarks.figures import Figure, interleaved, noise, ratio, report, spread
from benchmarks.pipelines import directory
from benchmarks.sink import require_posts, sink
from tests.services import free_port, wait_until

_PAIRS = 5
_ROUNDS = 30
_REQUESTS = 10
_ROWS = 100
_GOAL = 1.05
_BIN = Path(sys.executable).parent
_CSRF = "c" * 32


class _Page(NamedTuple):
    """A page to post to: its name, its path, the status of success, and the body of the n-th post."""

    name: str
    path: str
    status: int
    body: Callable[[int], str]


def _filled_in(number: int) -> str:
    minutes, seconds = divmod(number % 3600, 60)
    return urlencode(
        {
            "csrfmiddlewaretoken": _CSRF,
            "name": "an article",
            "sku": "A-000001",
            "description": "A thing one can buy. " * 5,
            "category": "things",
            "price": f"{number % 1000}.99",
            "stock": number,
            "weight": "1.5",
            "active": "on",
            "released": "2026-11-23",
            "updated": f"2026-11-23 12:{minutes:02}:{seconds:02}",
        }
    )


_PAGES = (
    _Page("a POST that updates one row", "/articles/{row}/", 200, lambda _: ""),
    _Page("a form that updates one row", "/forms/{row}/", 302, _filled_in),
)

_PREPARE = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from benchmarks.bench import models, rows
rows.fill([models.Article], int({rows}))
user = get_user_model().objects.create(username="ana", password="!")
session = SessionStore()
session.update({{
    SESSION_KEY: str(user.pk),
    BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
    HASH_SESSION_KEY: user.get_session_auth_hash(),
}})
session.save()
print(session.session_key)
"""


def measure() -> Iterator[Figure]:
    for vendor in VENDORS:
        times = {page: {"alone": list[float](), "beside": list[float]()} for page in _PAGES}
        for _ in range(_PAIRS):
            for page, measured in _pair(vendor).items():
                for mode, samples in measured.items():
                    times[page][mode] += samples
        for page, measured in times.items():
            alone, beside = measured["alone"], measured["beside"]
            yield Figure(
                name=f"{page.name}, {vendor}",
                value=ratio(beside, alone),
                unit="x OpenTelemetry alone",
                noise=noise(beside, alone),
                goal=_GOAL,
                note=f"middle half {spread(beside, alone)}; alone {statistics.median(alone) * 1e3:.2f} ms",
            )


def _pair(vendor: str) -> dict[_Page, dict[str, list[float]]]:
    """Measure one server without and one with audit, page by page and round by round."""
    with entries(vendor, 2) as [first, second], sink() as address:
        with ExitStack() as stack:
            alone = stack.enter_context(_application(first, address, audit=False))
            beside = stack.enter_context(_application(second, address, audit=True))
            times = {}
            for page in _PAGES:
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


@contextmanager
def _application(
    entry: dict[str, Any], sink_address: str, *, audit: bool
) -> Iterator[Callable[[_Page], None]]:
    """Serve the project; give a call that posts once to a page, for the next row."""
    env = environment(entry) | {
        "OTEL_SERVICE_NAME": "bench",
        # Ours is installed as well; both applications shall start the same way.
        "OTEL_PYTHON_DISTRO": "distro",
        "OTEL_PYTHON_CONFIGURATOR": "configurator",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink_address,
        "OTEL_AUDIT_ENABLED": "true" if audit else "false",
        "OTEL_AUDIT_DJANGO_MODELS": "bench.*",
        "OTEL_AUDIT_SINK_ENDPOINT": f"{sink_address}/v1/audit",
    }
    port = free_port()
    with directory() as path, (path / "log").open("w") as log:
        env["OTEL_AUDIT_SPOOL_DIRECTORY"] = str(path / "spool")
        quiet = {"OTEL_SDK_DISABLED": "true", "OTEL_AUDIT_ENABLED": "false"}
        prepared = subprocess.run(
            [sys.executable, "-c", _PREPARE.format(rows=_ROWS)],
            check=True,
            env=env | quiet,
            stdout=subprocess.PIPE,
            text=True,
        )
        process = subprocess.Popen(
            [
                *(_BIN / "opentelemetry-instrument", _BIN / "gunicorn", "benchmarks.bench.wsgi"),
                *("--workers=1", "--worker-class=gthread", "--threads=1", "--keep-alive=60"),
                f"--bind=127.0.0.1:{port}",
            ],
            env=env | {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
            stdout=log,
            stderr=log,
        )
        try:
            client = _Client(port, prepared.stdout.strip())
            wait_until(lambda: process.poll() is not None or client.answers(), 60, "gunicorn answers")
            if process.poll() is not None:
                raise RuntimeError((path / "log").read_text())
            yield client.post
        finally:
            process.terminate()
            process.wait(30)


class _Client:
    """One keep-alive connection of one user who is logged in."""

    def __init__(self, port: int, session: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {
            "Cookie": f"sessionid={session}; csrftoken={_CSRF}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        self._posts = 0

    def answers(self) -> bool:
        try:
            self.post(_PAGES[0])
        except OSError:
            self._connection.close()
            return False
        return True

    def post(self, page: _Page) -> None:
        path = page.path.format(row=self._posts % _ROWS + 1)
        self._posts += 1
        self._connection.request("POST", path, page.body(self._posts), self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != page.status:
            raise RuntimeError(f"{response.status}: {body[:500]!r}")


if __name__ == "__main__":
    report(measure())
