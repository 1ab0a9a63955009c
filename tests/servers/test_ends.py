"""Each server is ended as a deployment ends it: nothing stays in the spool, its exit status is its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers.site import Site, small_site

_WSGI = "tests.servers.small.wsgi:application"
_ASGI = "tests.servers.small.asgi:application"


class Server(NamedTuple):
    """A command line, the status it ends with on SIGTERM, variables."""

    arguments: tuple[str, ...]
    status: int = 0
    environment: dict[str, str] = {}


_GUNICORN = ("gunicorn", "--bind=127.0.0.1:{port}", "--workers=2", "--no-control-socket")
_UVICORN = ("uvicorn", _ASGI, "--port={port}")
SERVERS = {
    "gunicorn": Server((*_GUNICORN, _WSGI)),
    "gunicorn --preload": Server((*_GUNICORN, "--preload", "--threads=2", _WSGI)),
    "gunicorn, gevent": Server(
        (*_GUNICORN, "--worker-class=gevent", _WSGI),
        environment={"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all"},
    ),
    "gunicorn, uvicorn": Server((*_GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker", _ASGI)),
    "gunicorn --preload, uvicorn": Server(
        (*_GUNICORN, "--preload", "--worker-class=uvicorn_worker.UvicornWorker", _ASGI)
    ),
    "uvicorn": Server(_UVICORN, -15),
    "uvicorn --lifespan off": Server((*_UVICORN, "--lifespan=off"), -15),
    "uvicorn --workers": Server((*_UVICORN, "--workers=2")),
    "daphne": Server(("daphne", "--port={port}", _ASGI)),
    "hypercorn": Server(("hypercorn", "--bind=127.0.0.1:{port}", "--workers=2", _ASGI)),
    "runserver --noreload": Server(("django-admin", "runserver", "{port}", "--noreload"), -15),
}
LONG = {"gunicorn --preload", "gunicorn --preload, uvicorn", "uvicorn --lifespan off"}
"""Siblings of others: `make attack` runs them."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all servers, one after the other."""
    with small_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.attack) if name in LONG else name for name in SERVERS],
)
def test_nothing_is_left_when_a_server_is_ended(prepared: Site, name: str) -> None:
    """By SIGTERM; each stream has its end."""
    site, server = prepared, SERVERS[name]
    before = len(site.rows)
    site.serve(*server.arguments, environment=server.environment)
    site.get(times=5)
    assert site.stop() == server.status, site.process and site.process.output()
    assert len(site.rows) >= before + 6
    site.expect_nothing_left()


def test_nothing_is_left_after_ctrl_c_in_the_development_server(prepared: Site) -> None:
    """The terminal interrupts both processes: the one that serves, and the one that watches the files."""
    prepared.serve("django-admin", "runserver", "{port}")
    assert prepared.process is not None
    os.killpg(prepared.process.pid, signal.SIGINT)
    assert prepared.process.wait() == 0
    prepared.expect_nothing_left()


def test_the_lifespan_of_asgi_is_answered(tmp_path: Path) -> None:
    """Without audit Django refuses it, and a server that insists on it does not start."""
    with small_site(tmp_path) as site:
        site.serve(*_UVICORN, "--lifespan=on")
        assert site.stop() == -15
        site.expect_nothing_left()
