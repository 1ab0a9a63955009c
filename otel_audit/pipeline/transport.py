"""One request to the sink and what its answer means: OTLP over HTTP, on the standard library alone.

An answer is a success only if the sink says so in OTLP: a ``partial_success`` that rejects records is a
failure, and so is a friendly 200 from something that does not speak OTLP at all.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - resolving a name would import it, in a thread, when nobody expects it
import enum
import gzip
import http.client
import json
import ssl
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError
from otel_audit.pipeline.backoff import parse_retry_after
from otel_audit.pipeline.endpoint import parse_endpoint
from otel_audit.version import __version__

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_MOST_ANSWER: Final = 1024 * 1024
_MOST_REASON: Final = 300


class Verdict(enum.Enum):
    """What an answer means for the batch."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """By ``partial_success``: some of its records."""
    REFUSED = "refused"
    """The content, as it is: 400, 422."""
    TOO_LARGE = "too large"
    UNAVAILABLE = "unavailable"
    """No connection, or busy, or broken: try again later."""
    MISCONFIGURED = "misconfigured"
    """Someone must change something first: token, address, certificate. Try again later, and say so."""


class Answer(NamedTuple):
    """What the sink said: verdict, a reason for people, how long it wants to be left alone (seconds).

    ``reached`` is False if nobody answered.
    """

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    reached: bool = True


class Transport:
    """A kept-alive connection to the sink; used by one thread at a time.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, or the CA file cannot be read.
    """

    def __init__(self, config: SinkConfig) -> None:
        self.endpoint = config.endpoint
        self.accepted = 0
        """Requests the sink has accepted: evidence that it works at all."""
        self._url = parse_endpoint(config)
        self._timeout = config.timeout or None
        self._compress = config.compression == "gzip"
        self._context = _tls_context(config) if self._url.scheme == "https" else None
        self._headers = {
            "Content-Type": _PROTOBUF,
            "User-Agent": f"otel-audit/{__version__}",
            **config.headers,
        }
        if self._compress:
            self._headers["Content-Encoding"] = "gzip"
        if config.token:
            self._headers["Authorization"] = f"Bearer {config.token}"
        self._path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        self._connection: http.client.HTTPConnection | None = None

    def send(self, body: bytes) -> Answer:
        """POST one export request and judge the answer; never raises."""
        if self._compress:
            body = gzip.compress(body, compresslevel=1, mtime=0)
        with suppress_instrumentation():
            try:
                status, headers, content = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                verdict = Verdict.MISCONFIGURED if isinstance(error, ssl.SSLError) else Verdict.UNAVAILABLE
                return Answer(verdict, f"{self.endpoint} cannot be reached: {_say(error)}", reached=False)
        answer = judge(status, headers, content, self.endpoint)
        if answer.verdict is Verdict.ACCEPTED:
            self.accepted += 1
        return answer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        kept = self._connection
        if kept is not None:
            try:
                return self._exchange(kept, body)
            except (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest):
                # The server closed an idle connection; that says nothing about whether it is there.
                self.close()
        self._connection = self._connect()
        return self._exchange(self._connection, body)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            connection.request("POST", self._path, body, self._headers)
        except (BrokenPipeError, ConnectionResetError):
            # A sink may refuse (413, 401) before it has read everything: look for its answer first.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        content = response.read(_MOST_ANSWER)
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, response.headers, content


def _tls_context(config: SinkConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"sink.ca_file {config.ca_file!r} cannot be read as PEM certificates: {error}"
        ) from error


def _say(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def judge(status: int, headers: http.client.HTTPMessage, content: bytes, endpoint: str) -> Answer:
    """Say what an HTTP answer means for the batch."""
    said = _text_of(content, headers)
    retry_after = parse_retry_after(headers.get("Retry-After"))
    if 200 <= status < 300:
        return _judge_success(content, headers, endpoint)
    reason = f"{endpoint} answered {status}{said}"
    if status == 413:
        return Answer(Verdict.TOO_LARGE, reason)
    if status in (400, 422):
        return Answer(Verdict.REFUSED, reason)
    if status in (401, 403):
        return Answer(Verdict.MISCONFIGURED, f"{reason}: check sink.token", retry_after)
    if status in (404, 405, 415) or 300 <= status < 400:
        location = headers.get("Location")
        hint = f" (it points to {location})" if location else ""
        return Answer(Verdict.MISCONFIGURED, f"{reason}{hint}: check sink.endpoint", retry_after)
    return Answer(Verdict.UNAVAILABLE, reason, retry_after)


def _judge_success(content: bytes, headers: http.client.HTTPMessage, endpoint: str) -> Answer:
    try:
        rejected, message = _partial_success(content, headers.get_content_type())
    except ValueError as error:
        return Answer(
            Verdict.MISCONFIGURED,
            f"{endpoint} answered, but not as an OTLP sink does ({error}): check sink.endpoint",
        )
    if rejected:
        told = f": {message}" if message else ""
        return Answer(Verdict.REJECTED, f"{endpoint} rejected {rejected} records of a batch{told}")
    return Answer(Verdict.ACCEPTED)


def _partial_success(content: bytes, content_type: str) -> tuple[int, str]:
    """Give the number of rejected records and the sink's message.

    Raises:
        ValueError: this is no OTLP answer.
    """
    if not content:
        return 0, ""
    if content_type == _JSON:
        answer = json.loads(content)
        if not isinstance(answer, dict):
            raise ValueError("its JSON is no object")
        partial = answer.get("partialSuccess") or answer.get("partial_success") or {}
        if not isinstance(partial, dict):
            raise ValueError("its partialSuccess is no object")
        rejected = partial.get("rejectedLogRecords") or partial.get("rejected_log_records") or 0
        return int(rejected), str(partial.get("errorMessage") or partial.get("error_message") or "")
    if content_type != _PROTOBUF:
        raise ValueError(f"Content-Type is {content_type}")
    try:
        success = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError as error:
        raise ValueError("its body is no ExportLogsServiceResponse") from error
    return success.rejected_log_records, success.error_message


def _text_of(content: bytes, headers: http.client.HTTPMessage) -> str:
    """Give what the sink says about an error, printable and short, with a leading blank; or nothing."""
    if not content:
        return ""
    text = ""
    if headers.get_content_type() == _PROTOBUF:
        try:
            text = _status_message(content)
        except Exception:  # noqa: BLE001 - a foreign sink's words, for people only
            text = ""
    else:
        text = content[: 4 * _MOST_REASON].decode("utf-8", "replace")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f" ({text[:_MOST_REASON]})" if text else ""


def _status_message(content: bytes) -> str:
    """Read the message of the ``google.rpc.Status`` (1: code, 2: message) that OTLP errors carry."""
    index = 0
    if content[:1] == b"\x08":
        index = _skip_varint(content, 1)
    if content[index : index + 1] != b"\x12":
        return ""
    begin = _skip_varint(content, index + 1)
    return content[begin : begin + _MOST_REASON].decode("utf-8", "replace")


def _skip_varint(content: bytes, index: int) -> int:
    while content[index] & 0x80:
        index += 1
    return index + 1
