"""Servers that keep the headers they were sent, for tests of what leaves the process."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.collector.certificates import Certificates


class Listening:
    """A server on 127.0.0.1; ``headers`` are those of every request, in order.

    ``/to/<address>`` redirects to that address. A request for another host (as a proxy gets it) is answered
    as if it had been forwarded; CONNECT is refused with 502, after its headers were kept.
    """

    def __init__(self, server: ThreadingHTTPServer, scheme: str) -> None:
        self.port = server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.headers: list[dict[str, str]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def baggage(self) -> list[str | None]:
        return [each.get("baggage") for each in self.headers]


@contextmanager
def listening(certificates: Certificates | None = None) -> Iterator[Listening]:
    """Serve until the block ends, over TLS if there are certificates."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            named: dict[str, str] = {}
            for name, value in self.headers.items():
                named[name.lower()] = f"{named[name.lower()]}|{value}" if name.lower() in named else value
            kept.headers.append(named)
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            if self.command == "CONNECT":
                self.send_response(502)
            elif self.path.startswith("/to/"):
                self.send_response(307)
                self.send_header("Location", self.path.removeprefix("/to/"))
            else:
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_CONNECT = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept = Listening(server, "http" if certificates is None else "https")
    if certificates is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates.certificate, certificates.key)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
