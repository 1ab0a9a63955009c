"""A sink for tests: a real HTTP server that decodes what it is sent, and answers as it is told to."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord


class Reply(NamedTuple):
    """An HTTP answer; 200 without content is OTLP's plain success."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = {}
    kept: bool | None = None
    """Whether the sink keeps the records; default: it does when the status is 200."""


def partial_success(rejected: int, message: str = "no") -> Reply:
    """The answer that looks like success and is none."""
    success = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
    content = ExportLogsServiceResponse(partial_success=success).SerializeToString()
    return Reply(200, content, {"Content-Type": "application/x-protobuf"}, kept=False)


Respond = Callable[[list[LogRecord]], Reply]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is nothing to print."""

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Sink:
    """Listens on a free port until closed. ``respond`` decides each answer and may be changed at any time."""

    def __init__(self, respond: Respond = lambda records: Reply(), port: int = 0) -> None:
        self.respond = respond
        self.requests: list[ExportLogsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.kept: list[LogRecord] = []
        """Records acknowledged, in the order they came."""
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            wbufsize = -1

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                reply = sink._take(raw, dict(self.headers))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1/audit"
        self._mutex = threading.Lock()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _take(self, raw: bytes, headers: dict[str, str]) -> Reply:
        body = gzip.decompress(raw) if headers.get("Content-Encoding") == "gzip" else raw
        request = ExportLogsServiceRequest.FromString(body)
        records = log_records(request)
        with self._mutex:
            self.requests.append(request)
            self.headers.append(headers)
        reply = self.respond(records)
        with self._mutex:
            if reply.kept if reply.kept is not None else reply.status == 200:
                self.kept.extend(records)
        return reply

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def records(self) -> list[AuditRecord]:
        """The acknowledged records, rebuilt, each id once, in the order they first came."""
        return list({record_id(record): rebuild(record) for record in self.kept}.values())

    @property
    def events(self) -> list[str]:
        """Their event names."""
        return [record.event_name for record in self.records]

    def close(self) -> None:
        """Stop listening, and close the connections that are open."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def log_records(request: ExportLogsServiceRequest) -> list[LogRecord]:
    """All log records of a request."""
    return [
        record
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def attributes(record: LogRecord) -> dict[str, Any]:
    """The attributes of a log record as plain values."""
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in record.attributes}


def record_id(record: LogRecord) -> str:
    """The audit record id of a log record."""
    return str(attributes(record)[semconv.RECORD_ID])


def rebuild(record: LogRecord) -> AuditRecord:
    """The audit record of a log record."""
    return semconv.from_attributes(
        attributes(record),
        timestamp=record.time_unix_nano,
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        message=record.body.string_value,
    )
