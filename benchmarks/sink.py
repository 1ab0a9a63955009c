"""A sink that accepts everything and keeps nothing, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class _Accept(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    posts: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self._answer(str(self.posts[self.path]).encode())

    def do_POST(self) -> None:
        self.posts[self.path] += 1
        remaining = int(self.headers["Content-Length"])
        while remaining:
            remaining -= len(self.rfile.read(min(remaining, 65536)))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def sink() -> Iterator[str]:
    """Run the sink; give its address, without a path."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def require_posts(url: str) -> None:
    """Raise unless something was posted to ``url``: what records nothing is quick, and no figure."""
    with urllib.request.urlopen(url, timeout=10) as response:
        if not int(response.read()):
            raise RuntimeError(f"nothing was sent to {url}: what was measured recorded nothing")


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accept) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
