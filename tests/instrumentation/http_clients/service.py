"""A service that tests call, and every client they call it with."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
import urllib3

ANSWER = {"answer": "granted", "password": "s3cret-in-answer"}
PATIENCE = 60.0
"""Seconds that clients wait; a test of a server that does not answer has less."""


class Service:
    """A service on 127.0.0.1; ``requests`` are those it got, ``bodies`` the size of each one's body."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.bodies: list[int] = []
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        self.service.requests.append(f"{self.command} {self.path}")
        self.service.bodies.append(self.take_body())
        kind, _, rest = self.path.partition("?")[0].strip("/").partition("/")
        with suppress(OSError):
            getattr(self, f"answer_{kind}", self.answer_json)(rest)

    do_POST = do_HEAD = do_PUT = do_GET  # noqa: N815

    def take_body(self) -> int:
        if self.headers.get("Transfer-Encoding") != "chunked":
            size = left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                left -= len(self.rfile.read(min(left, 65536)))
            return size
        size = 0
        while length := int(self.rfile.readline(), 16):
            size += len(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return size

    def begin(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer_json(self, rest: str, status: int = 200) -> None:
        body = json.dumps(ANSWER).encode()
        self.begin(status, Content_Type="application/json", Content_Length=len(body), X_Token="s3cret-header")
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_status(self, rest: str) -> None:
        self.answer_json("", int(rest))

    def answer_to(self, rest: str) -> None:
        self.begin(307, Location=f"/{rest}", Content_Length=0)

    def answer_empty(self, rest: str) -> None:
        self.begin(204)

    def answer_gzip(self, rest: str) -> None:
        body = gzip.compress(json.dumps(ANSWER).encode())
        self.begin(200, Content_Type="application/json", Content_Length=len(body), Content_Encoding="gzip")
        self.wfile.write(body)

    def answer_chunked(self, rest: str) -> None:
        self.begin(200, Content_Type="application/json", Transfer_Encoding="chunked")
        for part in (b'{"answer":', b'"granted",', b'"password": "s3cret-in-answer"}'):
            self.chunk(part)
        self.chunk(b"")

    def chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.flush()

    def answer_large(self, rest: str) -> None:
        size = int(rest)
        self.begin(200, Content_Type="text/plain", Content_Length=size)
        while size > 0:
            size -= self.wfile.write((b"more of it " * 6000)[:size])

    def answer_cut(self, rest: str) -> None:
        self.begin(200, Content_Type="text/plain", Content_Length=1000)
        self.wfile.write(b"not all of it")
        self.close_connection = True

    def answer_cutchunks(self, rest: str) -> None:
        self.begin(200, Content_Type="text/plain", Transfer_Encoding="chunked")
        self.chunk(b"not all of it")
        self.close_connection = True

    def answer_hangup(self, rest: str) -> None:
        self.close_connection = True

    def answer_slow(self, rest: str) -> None:
        self.service.over.wait(10)
        self.close_connection = True

    def answer_slowly(self, rest: str) -> None:
        self.begin(200, Content_Type="text/plain", Content_Length=1000)
        self.wfile.write(b"the first part")
        self.wfile.flush()
        self.service.over.wait(10)
        self.close_connection = True

    def answer_events(self, rest: str) -> None:
        self.begin(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        while not self.service.over.wait(0.01):
            self.chunk(b"data: s3cret-event\n\n")

    def answer_endless(self, rest: str) -> None:
        self.begin(200, Content_Type="text/plain", Transfer_Encoding="chunked")
        while not self.service.over.is_set():
            self.chunk(b"x" * 1000)

    def log_message(self, *args: Any) -> None:
        return


@contextmanager
def serving() -> Iterator[Service]:
    """Serve until the block ends."""
    handler = type("BoundHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service = handler.service = Service(server.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Answer(NamedTuple):
    """What a client made of the response: the status, and the body as the application gets it."""

    status: int
    body: bytes


def by_http_client(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        if response.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        if response.status == 307:
            return by_http_client(
                method, f"http://{parts.netloc}{response.headers['Location']}", body, headers
            )
        return Answer(response.status, content)
    finally:
        connection.close()


def by_urllib(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            content = response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            return Answer(response.status, content)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


def by_urllib3(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    retries = urllib3.Retry(3, connect=0, read=0, other=0)
    with urllib3.PoolManager(retries=retries, timeout=PATIENCE) as pool:
        response = pool.request(method, url, body=body, headers=headers)
        return Answer(response.status, response.data)


def by_requests(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(method, url, data=body, headers=headers, timeout=PATIENCE)
        return Answer(response.status_code, response.content)


def by_httpx(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    with httpx.Client(trust_env=False, follow_redirects=True, timeout=PATIENCE) as client:
        response = client.request(method, url, content=body, headers=headers)
        return Answer(response.status_code, response.content)


def by_httpx_async(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    async def call() -> Answer:
        async with httpx.AsyncClient(trust_env=False, follow_redirects=True, timeout=PATIENCE) as client:
            response = await client.request(method, url, content=body, headers=headers)
            return Answer(response.status_code, response.content)

    return asyncio.run(call())


def by_aiohttp(method: str, url: str, body: Any = None, headers: Any = None) -> Answer:
    async def call() -> Answer:
        timeout = aiohttp.ClientTimeout(sock_connect=PATIENCE, sock_read=PATIENCE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=body, headers=headers) as response,
        ):
            return Answer(response.status, await response.read())

    return asyncio.run(call())


Client = Callable[..., Answer]
CLIENTS = [by_http_client, by_urllib, by_urllib3, by_requests, by_httpx, by_httpx_async, by_aiohttp]
