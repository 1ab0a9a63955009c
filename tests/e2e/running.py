"""What an end-to-end test runs: the store, the shop and its warehouse under ``opentelemetry-instrument``.

Everything is started by the commands a user types, in processes of their own, and ended by process id.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from otel_audit.audit_record import AuditRecord
from otel_audit.semconv import RECORD_ID, from_attributes
from otel_audit.store.client import StoreClient
from tests.services import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SHOP = ROOT / "examples" / "shop"
FULFILMENT = ROOT / "examples" / "fulfilment"
BIN = Path(sys.executable).parent
START_TIMEOUT = 180.0


class Process:
    """A child process in a group of its own, its output in a file."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path = SHOP
    ) -> None:
        self.log = log
        if (setpriv := shutil.which("setpriv")) is not None:
            arguments = [setpriv, "--pdeathsig", "KILL", *arguments]  # never outlive the tests
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                cwd=cwd,
                env=clean_environment() | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], object], what: str) -> None:
        """Wait for ``ready``; fail with the output if the process ends first or takes too long."""

        def alive_and_ready() -> object:
            if self._process.poll() is not None:
                raise AssertionError(f"{what}: ended with {self._process.returncode}:\n{self.output()}")
            return ready()

        try:
            wait_until(alive_and_ready, START_TIMEOUT, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.output()}") from error

    def wait(self, timeout: float = START_TIMEOUT) -> int:
        """Wait until it ends by itself, and return its status."""
        return self._process.wait(timeout)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """End it, and return its status; a process that does not end in time is a failure."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"not ended {timeout:g} s after {how.name}:\n{self.output()}") from None

    def kill(self) -> None:
        """Kill it and all its children, at once."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def output(self) -> str:
        """Return the last of what it printed."""
        return self.log.read_text("utf-8", "replace")[-6000:]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings that would change what is under test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("OTEL_", "OTELCOL_", "DJANGO_", "SHOP_", "FULFILMENT_", "PYTEST_", "GUNICORN_", "UVICORN_")
        )
    }


def command(name: str) -> str:
    """Return the path of a command of this installation."""
    return str(BIN / name)


def run(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path = SHOP, status: int | None = 0
) -> str:
    """Run a command to its end, give its output; any other exit status than ``status`` is a failure.

    ``None`` takes 0 and 1: `otel-audit` answers 1 if nothing was found.
    """
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=clean_environment() | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        check=False,
    )
    assert done.returncode in ((0, 1) if status is None else (status,)), (
        f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout + done.stderr


def answers(url: str) -> bool:
    """Say whether an HTTP server answers there, whatever it answers."""
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True


class Store:
    """``otel-audit serve`` with its data in one directory; it can be stopped, killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.http_port, self.grpc_port, self.clickhouse_port = free_port(), free_port(), free_port()
        self.sink = f"http://127.0.0.1:{self.http_port}"
        self.url = f"http://127.0.0.1:{self.clickhouse_port}"
        self.arguments = [command("otel-audit"), "serve"]
        self.process: Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What ``otel-audit`` commands need to find this store."""
        return {
            "OTEL_AUDIT_SERVER_DATA": str(self.directory / "store"),
            "OTEL_AUDIT_SERVER_HTTP_PORT": str(self.http_port),
            "OTEL_AUDIT_SERVER_GRPC_PORT": str(self.grpc_port),
            "OTEL_AUDIT_SERVER_CLICKHOUSE_PORT": str(self.clickhouse_port),
            "OTEL_AUDIT_STORE_URL": self.url,
        }

    def start(self) -> None:
        """Start it and wait until it takes records and answers queries."""
        self.process = Process(self.arguments, self.environment, self.directory / "serve.log", cwd=ROOT)
        client = StoreClient(self.url)

        def ready() -> bool:
            try:
                client.query("SELECT count() FROM otel.audit_events")
            except Exception:  # noqa: BLE001  (not yet)
                return False
            return answers(self.sink)

        self.process.wait_until(ready, "otel-audit serve is ready")
        client.close()

    def stop(self) -> None:
        """Stop it as an operator would."""
        assert self.process is not None
        status = self.process.stop()
        assert status == 0, f"otel-audit serve ended with {status}:\n{self.process.output()}"

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a SELECT."""
        client = StoreClient(self.url)
        try:
            return client.query(sql)
        finally:
            client.close()

    def records(self, *, table: str = "audit_events", **where: str) -> list[AuditRecord]:
        """Rebuild every record, each once, the oldest first; only those whose columns equal ``where``."""
        view = table.replace("_events", "_trail")  # which shows all attributes
        conditions = "".join(f" AND {name} = '{value}'" for name, value in where.items())
        rows = self.query(
            "SELECT toUnixTimestamp64Nano(timestamp) AS nanoseconds, trace_id, span_id, message, attributes "
            f"FROM otel.{view} WHERE ordinal = 0{conditions} ORDER BY timestamp, record_id"
        )
        assert len({row["attributes"][RECORD_ID] for row in rows}) == len(rows)
        return [
            from_attributes(
                row["attributes"],
                timestamp=int(row["nanoseconds"]),
                trace_id=row["trace_id"],
                span_id=row["span_id"],
                message=row["message"],
            )
            for row in rows
        ]

    def cli(self, *arguments: str, status: int | None = 0) -> str:
        """Run an ``otel-audit`` command against this store."""
        return run(command("otel-audit"), *arguments, environment=self.environment, status=status)

    def ask(self, *arguments: str) -> list[dict[str, Any]]:
        """Run ``otel-audit query --json``, give what it found."""
        output = self.cli("query", "--json", "--limit=500", *arguments, status=None)
        return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def agent_settings(service: str, example: Path, sink: str, spool: Path) -> dict[str, str]:
    """Return what sends a service's records and spans to a store, quickly."""
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_AUDIT_CONFIG": str(example / "otel-audit.toml"),
        "OTEL_AUDIT_SPOOL_DIRECTORY": str(spool),
        "OTEL_AUDIT_SINK_ENDPOINT": f"{sink}/v1/audit",
        "OTEL_AUDIT_SINK_MAX_BACKOFF": "1",
        "OTEL_AUDIT_CONTEXT_TRUSTED_PROXIES": "1",
    }


class Shop:
    """The example shop under ``opentelemetry-instrument``, behind gunicorn (WSGI) or uvicorn (ASGI)."""

    def __init__(
        self,
        directory: Path,
        sink: str,
        *,
        database: str = "",
        settings: str = "shop.settings",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Process | None = None
        self.environment = {
            "DJANGO_SETTINGS_MODULE": settings,
            "PYTHONPATH": os.pathsep.join([str(SHOP), str(Path(__file__).parent / "sites")]),
            "SHOP_DATABASE": database or f"sqlite://{directory / 'shop.sqlite3'}",
            **agent_settings("shop", SHOP, sink, self.spool),
            **(environment or {}),
        }

    def manage(self, *arguments: str, audited: bool = False) -> str:
        """Run a command of ``manage.py``."""
        before = [command("opentelemetry-instrument")] if audited else []
        return run(*before, sys.executable, "manage.py", *arguments, environment=self.environment)

    def start(self, server: str = "gunicorn", *options: str) -> None:
        """Serve, with two workers under gunicorn, and wait for the first page."""
        arguments = {
            "gunicorn": ["shop.wsgi", "--workers=2", f"--bind=127.0.0.1:{self.port}", "--no-control-socket"],
            "uvicorn": ["shop.asgi:application", f"--port={self.port}", "--lifespan=off"],
        }[server]
        self.process = Process(
            [command("opentelemetry-instrument"), command(server), *arguments, *options],
            self.environment,
            self.directory / f"{server}.log",
        )
        self.process.wait_until(lambda: answers(f"{self.url}/"), f"{server} serves the shop")

    def stop(self) -> None:
        """Stop serving, as a deployment would."""
        assert self.process is not None
        self.process.stop()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def spool_status(self) -> dict[str, Any]:
        """Ask ``otel-audit spool status``."""
        output = run(command("otel-audit"), "spool", "status", "--json", environment=self.environment)
        status: dict[str, Any] = json.loads(output)
        return status

    def drain(self) -> str:
        """Send what waits in the spool, with ``otel-audit spool drain``."""
        return run(command("otel-audit"), "spool", "drain", environment=self.environment)


class Fulfilment:
    """The example's warehouse under ``opentelemetry-instrument``, behind uvicorn.

    Attributes:
        key: signs for it: put it into the configuration of a service that calls.
        shop_settings: what the shop needs to call it.
    """

    def __init__(self, directory: Path, sink: str, *, database: str = "") -> None:
        self._log = directory / "fulfilment.log"
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.key = secrets.token_hex(32)
        keys = {"OTEL_AUDIT_CONTEXT_KEYS": f"test={self.key}"}
        self.environment = {
            "FULFILMENT_DATABASE": database or f"sqlite+aiosqlite:///{directory / 'fulfilment.sqlite3'}",
            **agent_settings("fulfilment", FULFILMENT, sink, directory / "fulfilment-spool"),
            "OTEL_AUDIT_CONTEXT_AUDIENCE": self.host,
            **keys,
        }
        self.shop_settings = {
            "SHOP_FULFILMENT_URL": self.url,
            "OTEL_AUDIT_CONTEXT_PROPAGATE_TO": self.host,
            **keys,
        }
        self.process: Process | None = None

    def start(self) -> None:
        """Serve, and wait for the first answer."""
        self.process = Process(
            [
                *map(command, ("opentelemetry-instrument", "uvicorn")),
                "fulfilment.main:app",
                f"--port={self.port}",
            ],
            self.environment,
            self._log,
            cwd=FULFILMENT,
        )
        self.process.wait_until(lambda: answers(self.url), "uvicorn serves the warehouse")

    def stop(self) -> None:
        """Stop serving, as a deployment would."""
        assert self.process is not None
        self.process.stop()


def postgresql_address(settings: Mapping[str, Any]) -> str:
    """Return the address of a private PostgreSQL database, as the shop's settings take it."""
    return f"postgresql://{settings['USER']}@/{settings['NAME']}?host={quote(str(settings['HOST']))}"


@contextmanager
def running_store(directory: Path) -> Iterator[Store]:
    """Run a store for the length of a ``with`` block."""
    store = Store(directory)
    store.start()
    try:
        yield store
    finally:
        if store.process is not None:
            store.process.kill()


@contextmanager
def running_fulfilment(directory: Path, sink: str, *, database: str = "") -> Iterator[Fulfilment]:
    """Run the warehouse for the length of a ``with`` block."""
    fulfilment = Fulfilment(directory, sink, database=database)
    try:
        fulfilment.start()
        yield fulfilment
    finally:
        if fulfilment.process is not None:
            fulfilment.process.kill()


@contextmanager
def prepared_shop(directory: Path, sink: str, **options: Any) -> Iterator[Shop]:
    """Return a shop with its tables made and its shelf filled; whatever it runs in the end is killed."""
    shop = Shop(directory, sink, **options)
    shop.manage("migrate", "--verbosity=0")
    shop.manage("seed")
    try:
        yield shop
    finally:
        if shop.process is not None:
            shop.process.kill()


def eventually(check: Callable[[], object], what: str, timeout: float = 30) -> None:
    """Poll ``check`` until it is true."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"{what}: not so after {timeout:g} s"
        time.sleep(0.05)
