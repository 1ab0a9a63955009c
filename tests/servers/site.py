"""The smallest site behind a real server, with a sink in this process: what was written, what arrived."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline.spool import directory as layout
from tests.e2e.running import ROOT, Process, answers, command, eventually, run
from tests.pipeline.otlp_sink import Sink
from tests.services import free_port


class Site:
    """A directory with a database and a spool, and what runs there under ``opentelemetry-instrument``."""

    def __init__(self, directory: Path, sink: Sink) -> None:
        self.directory = directory
        self.sink = sink
        self.spool = directory / "spool"
        self.database = directory / "small.sqlite3"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = directory / "server.log"
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tests.servers.small.settings",
            "PYTHONPATH": str(ROOT),
            "SMALL_DATABASE": str(self.database),
            "OTEL_SERVICE_NAME": "small",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_AUDIT_DJANGO_MODELS": "auth.*",
            "OTEL_AUDIT_SPOOL_DIRECTORY": str(self.spool),
            "OTEL_AUDIT_SINK_ENDPOINT": sink.url,
        }
        self.process: Process | None = None

    def prepare(self) -> None:
        """Make the tables."""
        run(command("django-admin"), "migrate", "--verbosity=0", environment=self.environment, cwd=ROOT)

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program; ``{port}`` in an argument stands for the site's port."""
        program, *rest = [argument.replace("{port}", str(self.port)) for argument in arguments]
        self.process = Process(
            [command("opentelemetry-instrument"), command(program), *rest],
            self.environment | dict(environment or {}),
            self.log,
            cwd=self.directory,
        )
        return self.process

    def serve(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a server and wait until it answers, which creates a group as each request does."""
        process = self.start(*arguments, environment=environment)
        process.wait_until(lambda: answers(self.url), f"{arguments[0]} serves the site")

    def get(self, path: str = "", times: int = 1) -> None:
        """Send requests, each over a connection of its own."""
        for _ in range(times):
            httpx.get(self.url + path, timeout=30).raise_for_status()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the program as a deployment would; return its exit status."""
        assert self.process is not None
        return self.process.stop(how, timeout=60)

    @property
    def rows(self) -> list[str]:
        """The names of all groups."""
        with closing(sqlite3.connect(self.database)) as connection:
            return sorted(name for (name,) in connection.execute("SELECT name FROM auth_group"))

    @property
    def recorded(self) -> list[str]:
        """The names of all groups whose creation is on record at the sink."""
        return sorted(
            str(change.new)
            for record in self.creations
            for change in record.changes
            if change.field == "name"
        )

    @property
    def creations(self) -> list[AuditRecord]:
        """The records of groups created."""
        return [record for record in self.sink.records if record.event_name == "auth.group.create"]

    def expect_all_recorded(self, at_least: int) -> None:
        """Wait until each row has its record at the sink."""
        try:
            eventually(lambda: self.recorded == self.rows, "each row has its record")
        except AssertionError as error:
            raise AssertionError(self._differences()) from error
        assert len(self.rows) >= at_least

    def _differences(self) -> str:
        """Say which rows have no record at the sink, and which of those wait in the spool: lost, or late."""
        recorded, rows = self.recorded, self.rows
        waiting = b"".join(path.read_bytes() for path in self.spool.rglob("*") if path.is_file())
        missing = {name: name.encode() in waiting for name in rows if name not in recorded}
        return "\n".join(
            [
                f"rows without a record at the sink (True: it waits in the spool): {missing}",
                f"records without a row, or twice: {sorted((Counter(recorded) - Counter(rows)).elements())}",
                f"spool: {sorted(str(path.relative_to(self.spool)) for path in self.spool.rglob('*'))}",
                f"log: {self.log.read_text(errors='replace')[-4000:]}",
            ]
        )

    def expect_nothing_left(self) -> None:
        """The sink has every record, each stream its end, and the spool is empty."""
        assert self.recorded == self.rows
        eventually(lambda: not layout.list_incarnations(self.spool), f"the spool is empty; {self.log}", 15)
        ends: dict[str, set[str]] = defaultdict(set)
        for record in self.sink.records:
            if record.target is not None and record.target.type == "audit.stream":
                ends[record.target.id].add(record.action)
        assert ends
        assert all(found == {"START", "STOP"} for found in ends.values()), ends


@contextmanager
def small_site(directory: Path) -> Iterator[Site]:
    """Make a site whose tables are made; what it runs in the end is killed."""
    with Sink() as sink:
        site = Site(directory, sink)
        site.prepare()
        try:
            yield site
        finally:
            if site.process is not None:
                site.process.kill()
