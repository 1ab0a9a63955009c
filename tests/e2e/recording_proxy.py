"""An HTTP proxy that keeps every body that passes, and can refuse a path for a while."""

from __future__ import annotations

import gzip
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RecordingProxy:
    """Forwards to 127.0.0.1:``port``.

    Attributes:
        url: where it listens.
        bodies: path and decompressed body of every request that came, refused ones included.
        refused: paths that are answered with 503 instead of being forwarded.
    """

    def __init__(self, port: int) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.refused: set[str] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                packed = self.headers.get("Content-Encoding") == "gzip"
                proxy.bodies.append((self.path, gzip.decompress(body) if packed else body))
                if self.path in proxy.refused:
                    self.answer(503, {}, b"")
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request("POST", self.path, body, dict(self.headers.items()))
                response = upstream.getresponse()
                content = response.read()
                self.answer(response.status, dict(response.headers.items()), content)
                upstream.close()

            def do_GET(self) -> None:
                self.answer(404, {}, b"")

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                if "content-type" in headers:
                    self.send_header("Content-Type", headers["content-type"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def wire(self, path: str = "") -> bytes:
        """Return all that came over the wire, or what came to one path, as one piece."""
        return b"\n".join(body for where, body in self.bodies if where == path or not path)

    @contextmanager
    def running(self) -> Iterator[RecordingProxy]:
        """Serve for the length of a ``with`` block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
