"""What the Collector's tests run: the real binary, applications that record at a rate, and the store.

Everything is a process of its own, started by the command an operator types, and can be stopped, killed and
started again at the same addresses and over the same directories.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from otel_audit.errors import StoreError
from tests.e2e.running import ROOT, Process, Store, command, eventually, run
from tests.services import free_port

COLLECTOR = ROOT / "collector"
TOKEN = "token-of-the-tests"
PATIENCE = 120.0
"""How long what must happen may take on a busy machine."""
POLICY = 20.0
"""No call to record may take this long, though policies say 0.25 s: the machine may be busy, but an outage
would show."""
OUTAGES = pytest.mark.parametrize(
    "outage", [25.0, pytest.param(60.0, marks=pytest.mark.attack)], ids=["short", "a minute"]
)
"""Seconds, more than ``POLICY``."""


@cache
def _build() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "collector"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def binary() -> str:
    """Build the Collector, if it is not built, and give its path.

    It cannot be built: the test fails with what the script says.
    """
    done = _build()
    assert done.returncode == 0, f"`make collector` does not work here:\n{done.stderr}"
    return done.stdout.strip()


class Collector:
    """``otelcol-audit`` with one set of ports, one queue and one mirror directory for all its lives."""

    def __init__(
        self,
        directory: Path,
        store: str = "",
        configs: Sequence[str] = ("config.yaml",),
        environment: Mapping[str, str] | None = None,
        name: str = "collector",
    ) -> None:
        self.queue = directory / f"{name}-queue"
        self.mirror = directory / f"{name}-mirror"
        self.configs = list(configs)
        self.process: Process | None = None
        self._log = directory / f"{name}.log"
        ports = {name: free_port() for name in ("AUDIT", "HTTP", "GRPC", "HEALTH", "METRICS", "MIRROR")}
        self.environment = {
            **{f"OTELCOL_{name}_PORT": str(port) for name, port in ports.items()},
            "OTELCOL_AUDIT_TOKEN": TOKEN,
            "OTELCOL_QUEUE_DIR": str(self.queue),
            "OTELCOL_MIRROR_DIR": str(self.mirror),
            "OTELCOL_STORE_URL": store,
            **(environment or {}),
        }
        scheme = "https" if "profiles/tls.yaml" in configs else "http"
        self.base = f"{scheme}://127.0.0.1:{ports['AUDIT']}"
        self.sink = f"{self.base}/v1/audit"
        self.otlp = f"{scheme}://127.0.0.1:{ports['HTTP']}"
        self.health = f"http://127.0.0.1:{ports['HEALTH']}"
        self.telemetry = f"http://127.0.0.1:{ports['METRICS']}/metrics"

    def arguments(self) -> list[str]:
        """Return the arguments that name its configuration."""
        return [f"--config={COLLECTOR / config}" for config in self.configs]

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it says that it is healthy."""
        self.process = Process([binary(), *self.arguments()], self.environment, self._log)
        if wait:
            self.process.wait_until(self.is_healthy, "the Collector is healthy")

    def is_healthy(self) -> bool:
        """Ask the health check."""
        try:
            return httpx.get(self.health, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Stop it as an operator would."""
        assert self.process is not None
        status = self.process.stop(timeout=60)
        assert status == 0, f"the Collector ended with {status}:\n{self.process.output()}"

    def kill(self) -> None:
        """Kill it at once."""
        assert self.process is not None
        self.process.kill()

    def output(self) -> str:
        """Return all that it logged, in all its lives."""
        return self._log.read_text("utf-8", "replace")

    def metrics(self) -> Counter[str]:
        """Scrape its own metrics: the sum of each by name, and by name and exporter or receiver."""
        found: Counter[str] = Counter()
        for line in httpx.get(self.telemetry, timeout=10).text.splitlines():
            if match := re.fullmatch(r"(otelcol_\w+?)(_total)?(?:__\w+)?(?:\{(.*)\})? (\S+)", line):
                name, _, labels, value = match.groups()
                found[name] += int(float(value))
                for component in re.findall(r'(?:exporter|receiver)="([^"]*)"', labels or ""):
                    found[f"{name} {component}"] += int(float(value))
        return found

    def mirrored(self) -> list[str]:
        """Return the lines of the mirror's files: each an OTLP/JSON request."""
        return [
            line
            for path in sorted(self.mirror.glob("*.jsonl"))
            for line in path.read_text().splitlines()
            if line
        ]

    def post(
        self,
        body: bytes,
        content_type: str = "application/x-protobuf",
        token: str = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Post to the audit receiver."""
        given = {"Content-Type": content_type, **(headers or {})}
        if token:
            given["Authorization"] = f"Bearer {token}"
        return httpx.post(self.sink, content=body, headers=given, timeout=60)


def mirrored_ids(lines: Sequence[str]) -> Counter[str]:
    """Count the record ids in lines of the mirror."""
    return Counter(
        attribute["value"]["stringValue"]
        for line in lines
        for resource in json.loads(line)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
        for attribute in record["attributes"]
        if attribute["key"] == "audit.record.id"
    )


class Told(NamedTuple):
    """What an application says: the ids of what it recorded, and the seconds its slowest call took."""

    ids: list[str]
    slowest: float


class Application:
    """A process that uses ``otel_audit.setup()`` and records at a rate: the producer, spool and sender."""

    def __init__(
        self,
        directory: Path,
        sink: str,
        *,
        service: str = "billing",
        name: str = "application",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.spool = directory / f"{name}-spool"
        self.process: Process | None = None
        self._directory = directory
        self._name = name
        self._lives = 0
        self.environment = {
            "OTEL_SERVICE_NAME": service,
            "OTEL_AUDIT_SPOOL_DIRECTORY": str(self.spool),
            "OTEL_AUDIT_SINK_ENDPOINT": sink,
            "OTEL_AUDIT_SINK_TOKEN": TOKEN,
            "OTEL_AUDIT_SINK_MAX_BACKOFF": "1",
            **(environment or {}),
        }

    def start(self, *, rate: int, logs: str = "audit") -> None:
        """Start recording, ``rate`` records a second of each kind in turn, until it is stopped."""
        self._lives += 1
        self.process = Process(
            [sys.executable, "-m", "tests.collector.application", str(self._out), str(rate), logs],
            self.environment,
            self._directory / f"{self._name}.log",
            cwd=ROOT,
        )
        self.process.wait_until(lambda: self._out.exists() and self._out.stat().st_size, "it records")

    @property
    def _out(self) -> Path:
        return self._directory / f"{self._name}-{self._lives}.told"

    def stop(self) -> None:
        """End it as a deployment would; what its sender cannot deliver stays in the spool."""
        assert self.process is not None
        status = self.process.stop(timeout=120)
        assert status == 0, self.process.output()

    def kill(self) -> None:
        """Kill it at once."""
        assert self.process is not None
        self.process.kill()

    def told(self) -> Told:
        """Read what it said it recorded, in all its lives: a line is written when the call has returned."""
        ids, slowest = [], 0.0
        for path in self._directory.glob(f"{self._name}-*.told"):
            for line in path.read_text().split("\n")[:-1]:
                identifier, seconds = line.split()
                ids.append(identifier)
                slowest = max(slowest, float(seconds))
        return Told(ids, slowest)

    def waiting(self) -> int:
        """Say how many records wait in its spool."""
        output = run(
            command("otel-audit"), "spool", "status", "--json", environment=self.environment, status=None
        )
        return int(json.loads(output)["waiting"])

    def drain(self) -> None:
        """Send what a process that ended left, with ``otel-audit spool drain``."""
        run(command("otel-audit"), "spool", "drain", environment=self.environment)

    def doctor(self, **variables: str) -> dict[str, dict[str, str]]:
        """Ask ``otel-audit doctor``: one finding a subject, the worst if there are several."""
        output = run(
            command("otel-audit"), "doctor", "--json", environment=self.environment | variables, status=None
        )
        found: dict[str, dict[str, str]] = {}
        for line in output.splitlines():
            each = json.loads(line)
            if each["subject"] not in found or each["state"] == "bad":
                found[each["subject"]] = each
        return found


class Trail:
    """What the store shows of the trail, whatever was sent how often."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ids(self, table: str = "audit_events", event_name: str = "") -> Counter[str]:
        """Count how often each record is seen; 1 is right."""
        named = f" AND event_name = '{event_name}'" if event_name else ""
        rows = self._store.query(
            f"SELECT toString(record_id) AS id, count() AS times FROM otel.{table} FINAL "
            f"WHERE ordinal = 0{named} GROUP BY record_id"
        )
        return Counter({row["id"]: int(row["times"]) for row in rows})

    def count(self, table: str = "audit_events") -> int:
        """Count records, each once; 0 if the store does not answer."""
        try:
            rows = self._store.query(f"SELECT uniqExact(record_id) AS n FROM otel.{table} WHERE ordinal = 0")
        except StoreError:
            return 0
        return int(rows[0]["n"])

    def wait_for(self, expected: set[str] | list[str], timeout: float = PATIENCE) -> None:
        """Wait until all these records are there; fail with how many are not."""
        wanted = set(expected)
        deadline = time.monotonic() + timeout
        missing = wanted
        while missing:
            if self.count() >= len(wanted):
                missing = wanted - set(self.ids())
            if missing and time.monotonic() > deadline:
                missing = wanted - set(self.ids())
                raise AssertionError(
                    f"{len(missing)} of {len(wanted)} records are not there: {sorted(missing)[:3]}"
                )
            if missing:
                time.sleep(0.2)

    def check(self, told: Told) -> None:
        """Nothing lost, nothing seen twice, every stream whole, and the application was never held up."""
        assert told.ids, "nothing was recorded"
        seen = self.ids()
        assert set(told.ids) <= set(seen), "lost"
        assert set(seen.values()) == {1}, "seen twice"
        assert self.gaps() == [], "a stream has gaps"
        assert told.slowest < POLICY

    def gaps(self, table: str = "audit_events") -> list[dict[str, Any]]:
        """Return the streams whose numbers are not 1, 2, 3 … without a gap, each once."""
        return self._store.query(
            "SELECT stream, count() AS records, uniqExact(sequence) AS numbers, max(sequence) AS last "
            f"FROM otel.{table} FINAL WHERE ordinal = 0 GROUP BY stream "
            "HAVING NOT (records = numbers AND records = last)"
        )


class Site(NamedTuple):
    """Store, Collector and one application, none of them started."""

    store: Store
    collector: Collector
    application: Application
    trail: Trail


@contextmanager
def site(
    directory: Path,
    configs: Sequence[str] = ("config.yaml",),
    environment: Mapping[str, str] | None = None,
    application: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """Lay out a site; whatever of it runs in the end is killed."""
    store = Store(directory)
    collector = Collector(directory, store.url, configs, environment)
    producer = Application(directory, collector.sink, environment=application)
    with ExitStack() as stack:
        for part in (store, collector, producer):
            stack.callback(kill, part)
        yield Site(store, collector, producer, Trail(store))


def kill(part: Store | Collector | Application) -> None:
    """Kill a part that may run."""
    if part.process is not None:
        part.process.kill()


def delivered(application: Application) -> None:
    """Wait until the application's spool is empty."""
    eventually(lambda: application.waiting() == 0, "the spool is empty", PATIENCE)
