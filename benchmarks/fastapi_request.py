"""A POST to FastAPI that updates one row by SQLAlchemy: OpenTelemetry's instrumentation alone, and with ours.

Two uvicorns serve the same application: see :mod:`benchmarks.pairs`.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, report
from benchmarks.pairs import Application, Page, compared, server
from benchmarks.sqlalchemy_tables import Article, Base, connect, fill
from tests.services import free_port

_ROWS = 100
_GOAL = 1.10
_BIN = Path(sys.executable).parent
_PAGE = Page("FastAPI: a POST that updates one row", "/articles/{row}")


def measure() -> Iterator[Figure]:
    return compared([_PAGE], _serve, _GOAL)


@contextmanager
def _serve(application: Application) -> Iterator[Callable[[Page], None]]:
    engine = connect(application.entry)
    Base.metadata.create_all(engine)
    fill(engine, Article, _ROWS)
    engine.dispose()
    env = application.environment() | {"OTEL_AUDIT_SQLALCHEMY_MODELS": "bench_article"}
    port = free_port()
    command = [
        *(_BIN / "opentelemetry-instrument", _BIN / "uvicorn", "--factory"),
        *("benchmarks.fastapi_application:application", "--log-level=warning", f"--port={port}"),
        "--timeout-keep-alive=60",
    ]
    client = _Client(port)
    with server(command, env, application.path, client.answers):
        yield client.post


class _Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._posts = 0

    def answers(self) -> bool:
        try:
            self.post(_PAGE)
        except OSError:
            self._connection.close()
            return False
        return True

    def post(self, page: Page) -> None:
        path = page.path.format(row=self._posts % _ROWS + 1)
        self._posts += 1
        self._connection.request("POST", path, page.body(self._posts))
        response = self._connection.getresponse()
        body = response.read()
        if response.status != page.status:
            raise RuntimeError(f"{response.status}: {body[:500]!r}")


if __name__ == "__main__":
    report(measure())
