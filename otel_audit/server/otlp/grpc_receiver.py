"""OTLP over gRPC: the Export methods of logs, traces and metrics, without generated stubs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any, Final

import grpc

from otel_audit.errors import StoreError
from otel_audit.server.access import presented
from otel_audit.server.bodies import Malformed, TooLarge
from otel_audit.server.engine import native
from otel_audit.server.origin import mark_of_a_page
from otel_audit.server.otlp import messages
from otel_audit.server.otlp.commit import Busy
from otel_audit.server.otlp.http_receiver import Intake, note

_METHODS: Final = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
_WORKERS: Final = 64
"""Requests that may wait for their commit at once; each holds a thread, asleep."""
_MOST_MESSAGE: Final = 16 * 1024 * 1024
"""Of a message as it comes, compressed or not: so many bytes each of the workers may be waiting for."""


def grpc_server(intake: Intake, address: str) -> tuple[grpc.Server, int]:
    """Build a server listening on ``address`` (``host:port``); give it, not started yet, and its port.

    Raises:
        StoreError: the address cannot be listened on.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="otlp-grpc"),
        options=[
            ("grpc.max_receive_message_length", min(intake.limit, _MOST_MESSAGE)),
            # The library decompresses a message as a whole before it looks at its size: so we do it.
            ("grpc.per_message_decompression", 0),
            # There is no deadline for a message that does not arrive as a whole; for its connection there is.
            ("grpc.max_connection_age_ms", 300_000),
            ("grpc.max_connection_age_grace_ms", 60_000),
            # Otherwise a second server could share the port and take half of the records.
            ("grpc.so_reuseport", 0),
        ],
    )
    for service, signal in _METHODS.items():
        method: Any = grpc.unary_unary_rpc_method_handler(_export(intake, signal))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise StoreError(f"cannot listen on {address}")
    return server, port


def _export(intake: Intake, signal: str) -> Callable[[bytes, Any], bytes]:
    def export(body: bytes, context: Any) -> bytes:
        metadata = [(str(name), str(value)) for name, value in context.invocation_metadata()]
        secrets = presented(metadata)
        if not intake.access.allows("write", secrets):
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "missing or invalid bearer token: send authorization: Bearer <token>",
            )
        # No page can speak gRPC by itself; a proxy that translates for pages passes on what marks them.
        if not intake.access.rights(secrets) and (mark := mark_of_a_page(name for name, _ in metadata)):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not accepted without a token: {mark}")
        try:
            with intake.backlog.hold(len(body)) as held:
                parts = intake.rows(signal, body, held, encoding=_encoding(body))
                for written in intake.submit(signal, parts):
                    written.result()
        except Malformed as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooLarge as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except StoreError as error:
            seconds = 1 if isinstance(error, Busy) else 5
            context.set_trailing_metadata((("grpc-status-details-bin", _retry_info(str(error), seconds)),))
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        answer: bytes = messages.response(signal, note(parts)).SerializeToString()
        return answer

    return export


def _encoding(body: bytes) -> str:
    """Say how a message is compressed: gRPC tells the library, which does not pass it on.

    No request begins like that: the first byte of gzip is not a tag of protobuf, that of zlib belongs to a
    field that OTLP does not have.
    """
    if body[:2] == b"\x1f\x8b":
        return "gzip"
    return "deflate" if body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0 else ""


def _retry_info(message: str, seconds: int) -> bytes:
    # google.rpc.Status with a RetryInfo detail, by hand: none of our dependencies has these messages.
    delay = b"\x08" + native.varint(seconds)
    info = b"\x0a" + native.varint(len(delay)) + delay
    detail = b"\x0a" + native.text("type.googleapis.com/google.rpc.RetryInfo")
    detail += b"\x12" + native.varint(len(info)) + info
    return b"\x08\x0e\x12" + native.text(message) + b"\x1a" + native.varint(len(detail)) + detail
