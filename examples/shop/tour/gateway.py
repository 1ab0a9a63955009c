"""The gateway in front of the warehouse: forwards requests, and keeps their headers to show them."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

PASSED_ON = ("content-type", "content-length", "www-authenticate")


class Call(NamedTuple):
    """One request that passed; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Gateway:
    """Forwards from one port of 127.0.0.1 to another; use as a context manager.

    Attributes:
        calls: every request that passed, in order.
    """

    def __init__(self, port: int, to: int) -> None:
        self.calls: list[Call] = []
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                calls.append(Call(self.command, self.path, headers))
                connection = http.client.HTTPConnection("127.0.0.1", to, timeout=30)
                try:
                    connection.request(self.command, self.path, body, dict(self.headers.items()))
                    response = connection.getresponse()
                    content = response.read()
                except OSError:
                    self.send_error(502)
                    return
                finally:
                    connection.close()
                self.send_response_only(response.status)
                for name, value in response.headers.items():
                    if name.lower() in PASSED_ON:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def newest(self, method: str) -> Call:
        """Return the newest request of a method."""
        return next(each for each in reversed(self.calls) if each.method == method)
