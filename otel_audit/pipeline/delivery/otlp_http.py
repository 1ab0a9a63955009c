"""One request to the sink and what its answer means: OTLP over HTTP, on the standard library alone.

An answer is a success only if the sink says so in OTLP: a ``partial_success`` that rejects records is a
failure, and so is a friendly answer from something that does not speak OTLP at all (OTLP: success is 200).
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - resolving a name would import it, in a thread, when nobody expects it
import enum
import gzip
import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, cast

from google.protobuf.message import DecodeError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel_audit.config.headers import sink_headers
from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.delivery.backoff import parse_retry_after
from otel_audit.pipeline.delivery.proxies import Proxy, proxy_for
from otel_audit.pipeline.endpoint import parse_endpoint, shown
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

    Args:
        config: where to and how; headers that HTTP cannot carry are left out.
        clock: monotonic seconds, by which ``sink.timeout`` limits each exchange as a whole.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, or the CA file cannot be read.
    """

    def __init__(self, config: SinkConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = parse_endpoint(config)
        self.endpoint = shown(self._url)
        self.accepted = 0
        """Requests the sink has accepted: evidence that it works at all."""
        self._timeout = config.timeout or None
        self._clock = clock
        self._deadline: float | None = None
        self._compress = config.compression == "gzip"
        self._context = _tls_context(config) if self._url.scheme == "https" else None
        self._headers = {
            "Content-Type": _PROTOBUF,
            "User-Agent": f"otel-audit/{__version__}",
            **sink_headers(config),
        }
        if self._compress:
            self._headers["Content-Encoding"] = "gzip"
        self._path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        self._connection: http.client.HTTPConnection | None = None
        self._proxy: Proxy | None = None
        self._target = self._path
        self._extra: dict[str, str] = {}
        self._limited: _Limited | None = None

    def send(self, body: bytes) -> Answer:
        """POST one export request and judge the answer; never raises."""
        if self._compress:
            body = gzip.compress(body, compresslevel=1, mtime=0)
        with suppress_instrumentation():
            try:
                status, headers, content = self._post(body)
            except ConfigurationError as error:  # of a proxy
                return Answer(Verdict.MISCONFIGURED, str(error), reached=False)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                verdict = Verdict.MISCONFIGURED if isinstance(error, ssl.SSLError) else Verdict.UNAVAILABLE
                reason = f"{self.endpoint} cannot be reached{self._through}: {_say(error)}"
                return Answer(verdict, reason, reached=False)
        answer = judge(status, headers, content, self.endpoint)
        if answer.verdict is Verdict.ACCEPTED:
            self.accepted += 1
        return answer

    def probe(self) -> int:
        """POST an empty request, which is a valid one of no records, and return the status of the answer.

        Raises:
            OSError, http.client.HTTPException: nobody answers.
            ConfigurationError: the proxy of the environment is none that we can use.
        """
        with suppress_instrumentation():
            return self._post(b"")[0]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._deadline = None if self._timeout is None else self._clock() + self._timeout
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
        proxy = self._proxy = proxy_for(self._url)
        self._target, self._extra = self._path, {}
        if proxy is not None:
            connection = self._connect_through(proxy, host, port)
        elif self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        connection.response_class = self._response  # type: ignore[assignment]
        return connection

    def _connect_through(self, proxy: Proxy, host: str, port: int | None) -> http.client.HTTPConnection:
        authorization = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        if self._context is None:
            self._target = f"http://{self._url.netloc.rpartition('@')[2]}{self._path}"
            self._extra = authorization
            if proxy.scheme == "https":
                return http.client.HTTPSConnection(proxy.host, proxy.port, timeout=self._timeout)
            return http.client.HTTPConnection(proxy.host, proxy.port, timeout=self._timeout)
        if proxy.scheme == "https":
            raise ConfigurationError(
                f"the proxy {proxy.where} from the environment has an https:// address, which is not "
                f"supported for an https sink: use its http:// address, or add {host} to NO_PROXY"
            )
        connection = http.client.HTTPSConnection(
            proxy.host, proxy.port, timeout=self._timeout, context=self._context
        )
        connection.set_tunnel(host, port or 443, headers=authorization)
        return connection

    @property
    def _through(self) -> str:
        return f" through the proxy {self._proxy.where} from the environment" if self._proxy else ""

    def _response(self, sock: socket.socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        self._limited = limited = _Limited(sock, self._rest)
        return http.client.HTTPResponse(cast("Any", limited), *arguments, **options)

    def _rest(self) -> float | None:
        """Return the seconds this exchange may still take, None if it may take any.

        Raises:
            TimeoutError: none are left.
        """
        if self._deadline is None:
            return None
        rest = self._deadline - self._clock()
        if rest <= 0:
            raise TimeoutError
        return rest

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        if connection.sock is not None:
            connection.sock.settimeout(self._rest())
        try:
            connection.request("POST", self._target, body, self._headers | self._extra)
        except (BrokenPipeError, ConnectionResetError):
            # A sink may refuse (413, 401) before it has read everything: look for its answer first.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        if self._limited is None or self._limited.lines.last not in (b"\r\n", b"\n"):
            raise http.client.HTTPException("the response headers are incomplete")
        content = response.read(_MOST_ANSWER)
        if response.length:  # closed before its end: what came must not pass for the whole of it
            raise http.client.IncompleteRead(content, response.length)
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, response.headers, content


class _Limited:
    """A socket whose reads take no longer than is left, however the bytes trickle in."""

    def __init__(self, sock: socket.socket, rest: Callable[[], float | None]) -> None:
        self._sock = sock
        self._rest = rest

    def makefile(self, mode: str) -> _Lines:
        self.lines = _Lines(_LimitedReads(self._sock, self._rest))
        return self.lines


class _Lines(io.BufferedReader):
    """Remembers the last line read: http.client takes the end of the connection for that of the headers."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last


class _LimitedReads(io.RawIOBase):
    def __init__(self, sock: socket.socket, rest: Callable[[], float | None]) -> None:
        self._sock = sock
        self._rest = rest
        # Of the socket's own, which stays open as long as this is: a closed connection is read to its end.
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._rest())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


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
    if status == 200:
        return _judge_success(content, headers, endpoint)
    reason = f"{endpoint} answered {status}{said}"
    if status == 413:
        return Answer(Verdict.TOO_LARGE, reason)
    if status in (400, 422):
        return Answer(Verdict.REFUSED, reason)
    if 200 < status < 300:
        return Answer(Verdict.MISCONFIGURED, f"{reason}, but an OTLP sink answers 200: check sink.endpoint")
    if status == 407:
        return Answer(Verdict.MISCONFIGURED, f"{reason}: check the proxy's user and password")
    if status in (401, 403):
        return Answer(Verdict.MISCONFIGURED, f"{reason}: check sink.token", retry_after)
    if status in (404, 405, 415) or 300 <= status < 400:
        location = headers.get("Location")
        hint = f" (it points to {location})" if location else ""
        return Answer(Verdict.MISCONFIGURED, f"{reason}{hint}: check sink.endpoint", retry_after)
    return Answer(Verdict.UNAVAILABLE, reason, retry_after)


def _judge_success(content: bytes, headers: http.client.HTTPMessage, endpoint: str) -> Answer:
    try:
        rejected, message = _partial_success(content, headers)
    except ValueError as error:
        return Answer(
            Verdict.MISCONFIGURED,
            f"{endpoint} did not answer as an OTLP sink does ({error}): check sink.endpoint",
        )
    if rejected:
        told = f": {message}" if message else ""
        return Answer(Verdict.REJECTED, f"{endpoint} rejected {rejected} records of a batch{told}")
    return Answer(Verdict.ACCEPTED)


def _partial_success(content: bytes, headers: http.client.HTTPMessage) -> tuple[int, str]:
    """Return the number of rejected records and the sink's message.

    Raises:
        ValueError: this is no OTLP answer.
    """
    content_type = headers.get_content_type() if "Content-Type" in headers else ""
    if not content:
        # The empty message of protobuf; no sink needs to say what type nothing has.
        if content_type in ("", _PROTOBUF, _JSON):
            return 0, ""
        raise ValueError(f"an empty response with Content-Type {content_type}")
    if content_type == _JSON:
        answer = json.loads(content)
        if not isinstance(answer, dict):
            raise ValueError("its JSON is not an object")
        partial = answer.get("partialSuccess") or answer.get("partial_success") or {}
        if not isinstance(partial, dict):
            raise ValueError("its partialSuccess is not an object")
        rejected = partial.get("rejectedLogRecords") or partial.get("rejected_log_records") or 0
        return int(rejected), str(partial.get("errorMessage") or partial.get("error_message") or "")
    if content_type != _PROTOBUF:
        raise ValueError(f"Content-Type is {content_type or 'missing'}")
    try:
        success = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError as error:
        raise ValueError("its body is not an ExportLogsServiceResponse") from error
    return success.rejected_log_records, success.error_message


def _text_of(content: bytes, headers: http.client.HTTPMessage) -> str:
    """Return what the sink says about an error, printable and short, with a leading blank; or nothing."""
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
