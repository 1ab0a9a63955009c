"""OTLP requests: bytes as they came in -> protobuf messages, or a reason why not."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otel_audit.server.bodies import Malformed
from otel_audit.server.otlp.limits import Limits, check_messages, check_nodes

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

REQUESTS: Final[dict[str, Any]] = {
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
RESPONSES: Final = {
    "logs": ExportLogsServiceResponse,
    "traces": ExportTraceServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def check_size(body: bytes, signal: str, limits: Limits) -> None:
    """Return if decoding a request in protobuf takes no more than the limits say.

    Raises:
        TooLarge: it has too many messages.
    """
    check_messages(body, REQUESTS[signal].DESCRIPTOR, limits.messages)


def checked(body: bytes, signal: str, content_type: str = PROTOBUF, limits: Limits | None = None) -> bytes:
    """Return an export request as protobuf that is known to be well-formed.

    Args:
        body: the request as it came, decompressed.
        signal: ``logs``, ``traces`` or ``metrics``.
        content_type: ``PROTOBUF`` or ``JSON``.
        limits: what a request in JSON may have in it.

    Raises:
        Malformed: the body is not of that type.
        TooLarge: in JSON, it has more in it than the limits say.
    """
    message = REQUESTS[signal]()
    if content_type == PROTOBUF:
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            raise Malformed(f"the body is not a valid {type(message).__name__}: {error}") from error
        return body
    if limits is not None:
        check_nodes(body, limits.nodes)
    try:
        data = json.loads(body)
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, found {type(data).__name__}")
        _ids_to_base64(data)
        json_format.ParseDict(data, message, ignore_unknown_fields=True)
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error
    except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
        raise Malformed(f"the body is not a valid {type(message).__name__} in JSON: {error}") from error
    encoded: bytes = message.SerializeToString()
    return encoded


def _ids_to_base64(data: Any) -> None:
    # OTLP/JSON writes trace and span ids in hex, where protobuf's JSON expects base64. Iterative, because
    # the depth is the sender's choice.
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            for name, value in item.items():
                if name in _IDS and isinstance(value, str):
                    try:
                        item[name] = base64.b64encode(bytes.fromhex(value)).decode("ascii")
                    except ValueError as error:
                        raise ValueError(f"{name} {value[:80]!r} is not hexadecimal") from error
                elif isinstance(value, list | dict):
                    waiting.append(value)


def response(signal: str, notices: tuple[str, ...]) -> Any:
    """Return the answer to an accepted request; notices go along as a warning with nothing rejected."""
    message = RESPONSES[signal]()
    if notices:
        more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
        message.partial_success.error_message = notices[0] + more
    return message
