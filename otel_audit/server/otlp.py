"""OTLP requests: bytes as they came in -> protobuf messages, or a reason why not."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

REQUESTS: Final = {"logs": ExportLogsServiceRequest, "traces": ExportTraceServiceRequest}
RESPONSES: Final = {"logs": ExportLogsServiceResponse, "traces": ExportTraceServiceResponse}

_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


class Malformed(ValueError):
    """The body is not what it claims to be."""


class TooLarge(ValueError):
    """The body is larger than the limit, as it came or decompressed."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo ``Content-Encoding``, giving up as soon as the result exceeds ``limit`` bytes.

    Raises:
        Malformed: the encoding is unknown, or the body is not of it.
        TooLarge: there is more than ``limit``.
    """
    if encoding in ("", "identity"):
        return body
    try:
        if encoding == "zstd":
            return _zstd(body, limit)
        if encoding not in ("gzip", "deflate"):
            raise Malformed(f"Content-Encoding {encoding!r} is unknown; send gzip, deflate, zstd or none")
        parts, size = [], 0
        while body:
            unpack = zlib.decompressobj(47)  # gzip or zlib, told by the header
            parts.append(unpack.decompress(body, limit - size + 1))
            size += len(parts[-1])
            if size > limit:
                raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
            if not unpack.eof:
                raise Malformed("the compressed body ends early")
            body = unpack.unused_data
        return b"".join(parts)
    except zlib.error as error:
        raise Malformed(f"the body is no {encoding}: {error}") from error


def _zstd(body: bytes, limit: int) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(body) as reader:
            data = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is no zstd: {error}") from error
    if len(data) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
    return data


def decode(body: bytes, signal: str, content_type: str = PROTOBUF) -> Any:
    """Decode an export request of ``signal`` (``logs`` or ``traces``).

    Raises:
        Malformed: the body is not of that type.
    """
    message = REQUESTS[signal]()
    if content_type == PROTOBUF:
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            raise Malformed(f"the body is no {type(message).__name__}: {error}") from error
        return message
    try:
        data = json.loads(body)
        _ids_to_base64(data)
        json_format.ParseDict(data, message, ignore_unknown_fields=True)
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error
    except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
        raise Malformed(f"the body is no {type(message).__name__} in JSON: {error}") from error
    return message


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
                    except binascii.Error as error:
                        raise ValueError(f"{name} {value[:80]!r} is not hexadecimal") from error
                elif isinstance(value, list | dict):
                    waiting.append(value)


def response(signal: str, notices: tuple[str, ...]) -> Any:
    """Give the answer to an accepted request; notices go along as a warning with nothing rejected."""
    message = RESPONSES[signal]()
    if notices:
        more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
        message.partial_success.error_message = notices[0] + more
    return message
