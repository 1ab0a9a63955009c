"""What an HTTP answer means, and that waiting is bounded and spread."""

from __future__ import annotations

import contextlib
import email.utils
import shutil
import socket
import ssl
import threading
import time
from http.client import HTTPMessage
from pathlib import Path

import pytest

from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError
from otel_audit.pipeline.delivery import backoff
from otel_audit.pipeline.delivery.otlp_http import Transport, Verdict, judge
from tests.pipeline.otlp_sink import Reply, Sink, partial_success


def headers(**values: str) -> HTTPMessage:
    message = HTTPMessage()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


PROTOBUF = headers(Content_Type="application/x-protobuf")
JSON = headers(Content_Type="application/json; charset=utf-8")


@pytest.mark.parametrize(
    ("status", "headers_", "content", "verdict"),
    [
        (200, PROTOBUF, b"", Verdict.ACCEPTED),
        (200, headers(), b"", Verdict.ACCEPTED),
        (200, JSON, b"", Verdict.ACCEPTED),
        (200, headers(Content_Type="text/html"), b"", Verdict.MISCONFIGURED),
        (200, headers(Content_Type="application/octet-stream"), b"", Verdict.MISCONFIGURED),
        (200, headers(), b"ok", Verdict.MISCONFIGURED),
        (201, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (202, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (204, headers(), b"", Verdict.MISCONFIGURED),
        (206, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (407, headers(), b"", Verdict.MISCONFIGURED),
        (200, JSON, b"{}", Verdict.ACCEPTED),
        (200, JSON, b'{"partialSuccess": {}}', Verdict.ACCEPTED),
        (200, JSON, b'{"partialSuccess": {"rejectedLogRecords": "0"}}', Verdict.ACCEPTED),
        (200, JSON, b'{"partialSuccess": {"rejectedLogRecords": 3}}', Verdict.REJECTED),
        (200, JSON, b'{"partial_success": {"rejected_log_records": "3"}}', Verdict.REJECTED),
        (200, PROTOBUF, partial_success(0, "a warning").content, Verdict.ACCEPTED),
        (200, PROTOBUF, partial_success(1).content, Verdict.REJECTED),
        (200, PROTOBUF, b"\xff\xff", Verdict.MISCONFIGURED),
        (200, JSON, b"[]", Verdict.MISCONFIGURED),
        (200, JSON, b'{"partialSuccess": 3}', Verdict.MISCONFIGURED),
        (200, JSON, b"not json", Verdict.MISCONFIGURED),
        (200, headers(Content_Type="text/html"), b"<html>", Verdict.MISCONFIGURED),
        (301, headers(Location="https://x/"), b"", Verdict.MISCONFIGURED),
        (400, PROTOBUF, b"", Verdict.REFUSED),
        (422, PROTOBUF, b"", Verdict.REFUSED),
        (401, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (403, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (404, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (405, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (415, PROTOBUF, b"", Verdict.MISCONFIGURED),
        (413, PROTOBUF, b"", Verdict.TOO_LARGE),
        (408, PROTOBUF, b"", Verdict.UNAVAILABLE),
        (429, PROTOBUF, b"", Verdict.UNAVAILABLE),
        (500, PROTOBUF, b"", Verdict.UNAVAILABLE),
        (503, PROTOBUF, b"", Verdict.UNAVAILABLE),
        (599, PROTOBUF, b"", Verdict.UNAVAILABLE),
    ],
)
def test_an_answer_means_what_it_says(
    status: int, headers_: HTTPMessage, content: bytes, verdict: Verdict
) -> None:
    """Only OTLP's own success is one."""
    assert judge(status, headers_, content, "http://sink").verdict is verdict


def test_what_a_sink_says_reaches_the_log_short_and_printable() -> None:
    """Its words are foreign: no escape sequence, no novel."""
    answer = judge(400, headers(Content_Type="text/plain"), b"\x1b[31mbad\nline" + b"x" * 9000, "http://sink")
    assert "\x1b" not in answer.reason
    assert "bad line" in answer.reason
    assert len(answer.reason) < 400
    status = b"\x08\x03\x12\x0ano such id"
    assert "no such id" in judge(400, PROTOBUF, status, "http://sink").reason
    assert judge(400, PROTOBUF, b"\x08\xff", "http://sink").reason.endswith("400")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("999999999", backoff.LONGEST_RETRY_AFTER),
        (email.utils.formatdate(1_000_060, usegmt=True), 60.0),
        (email.utils.formatdate(999_000, usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str | None, seconds: float | None) -> None:
    """And never waits for ever."""
    assert backoff.parse_retry_after(text, now=1_000_000) == seconds


def test_pauses_grow_are_bounded_and_spread() -> None:
    """Full jitter: clients that failed together do not come back together."""
    for attempt in (1, 2, 5, 10, 10_000):
        pauses = [backoff.delay(attempt, 30.0) for _ in range(300)]
        ceiling = min(30.0, backoff.FIRST * 2.0 ** min(attempt - 1, 30))
        assert all(0 <= pause <= ceiling for pause in pauses)
        assert max(pauses) - min(pauses) > ceiling / 2
    assert all(7.0 <= backoff.delay(1, 30.0, retry_after=7.0) <= 7.25 for _ in range(50))


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost:4318", "ftp://x/", "http://", "http://x:notaport/", "http://[::1/", "http://x:0/"],
)
def test_a_wrong_endpoint_is_said_at_once(endpoint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match=r"sink\.endpoint.*http://127\.0\.0\.1:4318/v1/audit"):
        Transport(SinkConfig(endpoint=endpoint))


def test_a_wrong_ca_file_is_said_at_once(tmp_path: Path) -> None:
    """Missing, or no certificate."""
    with pytest.raises(ConfigurationError, match=r"sink\.ca_file"):
        Transport(SinkConfig(endpoint="https://x/", ca_file=str(tmp_path / "none.pem")))
    (tmp_path / "bad.pem").write_text("bad")
    with pytest.raises(ConfigurationError, match=r"sink\.ca_file"):
        Transport(SinkConfig(endpoint="https://x/", ca_file=str(tmp_path / "bad.pem")))


def test_nobody_there_is_told_from_somebody_who_refuses() -> None:
    """An exit waits for the one and not for the other."""
    assert not Transport(SinkConfig(endpoint="http://127.0.0.1:9/")).send(b"").reached
    with Sink(lambda records: Reply(503)) as sink:
        assert Transport(SinkConfig(endpoint=sink.url)).send(b"").reached


def test_a_sink_that_never_answers_is_given_up_after_the_timeout() -> None:
    """The thread must not hang for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = Transport(SinkConfig(endpoint=f"http://127.0.0.1:{port}/", timeout=0.2)).send(b"")
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "timed out" in answer.reason


class Clock:
    """A second passes at each look, whatever the machine's load."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize(
    ("before", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_an_answer_that_trickles_in_is_given_up(before: bytes, drop: bytes) -> None:
    """``sink.timeout`` limits the whole exchange: a byte now and then must not hold the sender."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(before)
                while not stop.is_set():
                    connection.sendall(drop)
                    time.sleep(0.001)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        config = SinkConfig(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=50)
        clock = Clock()
        answer = Transport(config, clock=clock).send(b"x")
        stop.set()
        thread.join(5)
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "timed out" in answer.reason or "100" in answer.reason, answer.reason
    assert clock.now <= 60


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\n\n\x02",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Ty",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_an_answer_cut_off_acknowledges_nothing(answer: bytes) -> None:
    """What was to come may have rejected records."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # it is tried again only where no answer was begun
                for _ in range(2):
                    connection, _ = server.accept()
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        said = Transport(SinkConfig(endpoint=url, timeout=5)).send(b"x")
    assert said.verdict in (Verdict.UNAVAILABLE, Verdict.MISCONFIGURED)


@pytest.mark.parametrize("noise", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 banana\r\n\r\n", b"\0" * 100])
def test_something_that_speaks_no_http_harms_nobody(noise: bytes) -> None:
    """Any port may be somebody else's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            connection.recv(10)
            connection.sendall(noise)
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        answer = Transport(SinkConfig(endpoint=f"http://127.0.0.1:{port}/", timeout=5)).send(b"x")
        thread.join(5)
    assert answer.verdict is Verdict.UNAVAILABLE


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_nobody_trusts_is_no_sink(tmp_path: Path) -> None:
    """TLS is verified, and the message says it is the certificate."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Sink() as sink:
        sink.use_tls(context)
        url = sink.url.replace("http://", "https://").replace("127.0.0.1", "localhost")
        refused = Transport(SinkConfig(endpoint=url, timeout=5)).send(b"")
        assert refused.verdict is Verdict.MISCONFIGURED
        assert "certificate" in refused.reason
        trusted = Transport(SinkConfig(endpoint=url, timeout=5, ca_file=str(certificate))).send(b"")
        assert trusted.verdict is Verdict.ACCEPTED


def self_signed(place: Path) -> tuple[Path, Path]:
    import subprocess

    certificate, key = place / "cert.pem", place / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
