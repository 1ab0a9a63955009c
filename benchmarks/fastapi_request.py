"""A POST to FastAPI that updates one row by SQLAlchemy: OpenTelemetry's instrumentation alone, and with ours.

Two uvicorns serve the same application: see :mod:`benchmarks.pairs`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, report
from benchmarks.pairs import Application, Client, Page, compared, server
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
    client = Client(port, _ROWS)
    with server(command, env, application.path, lambda: client.answers(_PAGE)):
        yield client.post


if __name__ == "__main__":
    report(measure())
