"""`otel-audit serve`: one process with the engine, the OTLP receivers and the query port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn

from otel_audit.config.model import AuditConfig, ServerConfig
from otel_audit.errors import ConfigurationError, StoreError
from otel_audit.named_tuples import NamedTuple
from otel_audit.server.access import Access, check_access, configured, is_loopback
from otel_audit.server.clickhouse.gate import readable
from otel_audit.server.clickhouse.query_port import QueryPort
from otel_audit.server.clickhouse.questions import Questions
from otel_audit.server.engine.datadir import DataDirectory
from otel_audit.server.engine.engine import Engine
from otel_audit.server.engine.upkeep import Upkeep
from otel_audit.server.origin import Hosts, NoPages
from otel_audit.server.otlp.commit import Backlog, Committer
from otel_audit.server.otlp.engine_rows import FORMATS
from otel_audit.server.otlp.grpc_receiver import grpc_server
from otel_audit.server.otlp.http_receiver import QUESTIONS, Intake, no_entry, receiver
from otel_audit.server.otlp.journal import Journal
from otel_audit.store import schema
from otel_audit.store.local_tokens import Published
from otel_audit.store.migrations import migrate
from otel_audit.store.retention import Retention

_logger: Final = logging.getLogger(__name__)
_STOP_SECONDS: Final = 30


class Endpoints(NamedTuple):
    """Where a running server listens, and where its data is."""

    http: str
    grpc: str
    clickhouse: str
    data: Path
    token: str = ""
    """The read token, if this server generated it; it is kept in ``token_file``."""
    token_file: Path | None = None


class _Listener(uvicorn.Server):
    """A uvicorn server that leaves the signals to us, as two share this process, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """Everything of one `otel-audit serve`, from the data directory to the ports."""

    def __init__(self, config: AuditConfig) -> None:
        options = config.server
        check_access(options)
        self._database = config.store.database
        with contextlib.ExitStack() as undo:
            sockets = [
                undo.enter_context(_listen(options.host, options.http_port, "http_port", "OTLP over HTTP")),
                undo.enter_context(
                    _listen(options.host, options.clickhouse_port, "clickhouse_port", "queries")
                ),
            ]
            directory = DataDirectory.acquire(options.data)
            undo.callback(directory.release)
            made = _made_token(options, directory)
            self._engine = Engine(
                directory.engine,
                memory_bytes=options.memory_bytes,
                fsync=options.fsync,
                formats=FORMATS,
                readable=readable(self._database),
            )
            undo.callback(self._engine.close)
            with self._engine.connection() as connection:
                retention = Retention.configured(config.store)
                for name in migrate(connection.rows, self._database, retention, config.store.indexes):
                    _logger.info("database %s: applied %s", self._database, name)
            self._journal = Journal(directory.journal, self._engine, self._database, fsync=options.fsync)
            undo.callback(self._journal.close)
            self._logs = Committer(self._engine, self._database, schema.LANDING, self._journal)
            undo.callback(self._logs.close)
            self._spans = Committer(self._engine, self._database, schema.TRACES)
            undo.callback(self._spans.close)
            self._upkeep = Upkeep(self._engine, self._database)
            undo.callback(self._upkeep.close)
            self._questions = (
                _questions(config, directory.path, sockets[0]) if options.record_queries else None
            )
            self._assemble(options, sockets, made)
            undo.callback(self._queries.close)
            self._grpc, grpc_port = _grpc(self._intake, options)
            if made:
                port = sockets[1].getsockname()[1]
                undo.callback(Published(options.host, port, made).close)
            self._undo = undo.pop_all()
        http, clickhouse = (sock.getsockname()[1] for sock in sockets)
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.endpoints = Endpoints(
            f"http://{host}:{http}",
            f"{host}:{grpc_port}",
            f"http://{host}:{clickhouse}",
            directory.path,
            made,
            directory.token_file if made else None,
        )

    def _assemble(self, options: ServerConfig, sockets: list[socket.socket], made: str) -> None:
        tokens = configured(options)
        access = Access(tokens | {"read": tokens["read"] or made})
        backlog = Backlog(max(options.memory_bytes // 8, options.max_request_bytes))
        limit = options.max_request_bytes
        self._intake = Intake(self._logs, self._spans, backlog, access, limit)
        self._queries = QueryPort(
            self._engine,
            self._database,
            access=access,
            backlog=backlog,
            limit=limit,
            memory_bytes=options.memory_bytes,
            questions=self._questions,
            settle=self._journal.settle,
        )
        hosts = Hosts(options.host, options.hosts)
        apps = (
            NoPages(receiver(self._intake, self._ready), access, ["write"], hosts, no_entry),
            NoPages(self._queries.app(), access, ["read", "write"], hosts, self._queries.no_entry),
        )
        self._listeners = [(_listener(app), sock) for app, sock in zip(apps, sockets, strict=True)]

    def _ready(self) -> None:
        if not (self._intake.alive and self._journal.alive):
            raise StoreError("rows are not being written; see the server's log and restart it")
        with self._engine.connection() as connection:
            connection.query("SELECT 1")

    async def serve(self, started: Callable[[Endpoints], None]) -> None:
        """Serve until SIGTERM or SIGINT, then finish what was accepted and stop."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        tasks = [asyncio.create_task(server.serve([sock])) for server, sock in self._listeners]
        self._grpc.start()
        for server, _ in self._listeners:
            await server.listening.wait()
        if self._questions is not None:
            self._questions.start()
        self._upkeep.start()
        started(self.endpoints)
        await stop.wait()
        grpc_stopped = self._grpc.stop(_STOP_SECONDS)
        # No more questions, then what was asked is written, as long as there is somebody to write it.
        otlp, queries = (server for server, _ in self._listeners)
        queries.should_exit = True
        await tasks[1]
        if self._questions is not None:
            await asyncio.to_thread(self._questions.close)
        otlp.should_exit = True
        await tasks[0]
        await asyncio.to_thread(grpc_stopped.wait)

    def close(self) -> None:
        """Write what is waiting, stop the engine, release the data directory."""
        self._undo.close()


def new_token(options: ServerConfig) -> None:
    """Replace the generated read token in the data directory of a server that does not run."""
    if options.no_token or configured(options)["read"]:
        raise ConfigurationError(
            "there is no generated token to replace: [server] sets token, read_token or no_token"
        )
    directory = DataDirectory.acquire(options.data)
    try:
        directory.token(renew=True)
    finally:
        directory.release()


def serve(config: AuditConfig, started: Callable[[Endpoints], None]) -> None:
    """Run a server until it is told to stop; see :func:`otel_audit.server.run`."""
    server = Server(config)
    try:
        asyncio.run(server.serve(started))
    finally:
        server.close()


def _made_token(options: ServerConfig, directory: DataDirectory) -> str:
    """Return the generated read token of this server; empty if it has none."""
    if options.no_token or configured(options)["read"]:
        return ""
    token = directory.token(make=not is_loopback(options.host))
    if not token:
        _logger.warning(
            "every user of this machine can read this store: its data directory %s was made by a "
            "version without tokens. `otel-audit serve --new-token` generates one, --no-token confirms "
            "that none is wanted; a later version will generate one",
            directory.path,
        )
    return token


def _questions(config: AuditConfig, data: Path, sock: socket.socket) -> Questions:
    address, port = sock.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        address = "::1" if ":" in address else "127.0.0.1"
    host = f"[{address}]" if ":" in address else address
    endpoint = f"http://{host}:{port}{QUESTIONS}"
    return Questions(config, data / "questions", endpoint, configured(config.server)["write"])


def _listener(app: Any) -> _Listener:
    return _Listener(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )


def _listen(host: str, port: int, option: str, purpose: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise StoreError(_taken(host, port, option, purpose, error)) from error
    # Connections inherit it. asyncio sets it only on sockets made with a protocol's number, and this one has
    # none: an answer of two writes then waited for the client's delayed acknowledgement, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _grpc(intake: Intake, options: ServerConfig) -> tuple[Any, int]:
    # grpc says only that it failed; asking for the port first gives the reason.
    _listen(options.host, options.grpc_port, "grpc_port", "OTLP over gRPC").close()
    host = f"[{options.host}]" if ":" in options.host else options.host
    return grpc_server(intake, f"{host}:{options.grpc_port}")


def _taken(host: str, port: int, option: str, purpose: str, error: OSError) -> str:
    in_use = error.errno == errno.EADDRINUSE
    reason = "the port is already in use" if in_use else error.strerror or str(error)
    return (
        f"cannot listen on {host}:{port} for {purpose}: {reason}; set `{option}` in [server] "
        f"(or OTEL_AUDIT_SERVER_{option.upper()}) to a free port, 0 for any"
    )
