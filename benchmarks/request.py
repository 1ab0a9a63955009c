"""A POST that updates one row: OpenTelemetry's Django instrumentation alone, and with ours beside it.

Twice: a page that does hardly anything but save, and a form of ten fields with its CSRF token.

Two gunicorns of one worker each serve the same project: see :mod:`benchmarks.pairs`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.figures import Figure, report
from benchmarks.pairs import Application, Client, Page, compared, server
from tests.services import free_port

_ROWS = 100
_GOAL = 1.05
_BIN = Path(sys.executable).parent
_CSRF = "c" * 32


def _filled_in(number: int) -> str:
    minutes, seconds = divmod(number % 3600, 60)
    return urlencode(
        {
            "csrfmiddlewaretoken": _CSRF,
            "name": "an article",
            "sku": "A-000001",
            "description": "A thing one can buy. " * 5,
            "category": "things",
            "price": f"{number % 1000}.99",
            "stock": number,
            "weight": "1.5",
            "active": "on",
            "released": "2026-11-23",
            "updated": f"2026-11-23 12:{minutes:02}:{seconds:02}",
        }
    )


_PAGES = (
    Page("a POST that updates one row", "/articles/{row}/"),
    Page("a form that updates one row", "/forms/{row}/", 302, _filled_in),
)

_PREPARE = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from benchmarks.bench import models, rows
rows.fill([models.Article], int({rows}))
user = get_user_model().objects.create(username="ana", password="!")
session = SessionStore()
session.update({{
    SESSION_KEY: str(user.pk),
    BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
    HASH_SESSION_KEY: user.get_session_auth_hash(),
}})
session.save()
print(session.session_key)
"""


def measure() -> Iterator[Figure]:
    return compared(_PAGES, _serve, _GOAL)


@contextmanager
def _serve(application: Application) -> Iterator[Callable[[Page], None]]:
    env = application.environment() | {"OTEL_AUDIT_DJANGO_MODELS": "bench.*"}
    quiet = {"OTEL_SDK_DISABLED": "true", "OTEL_AUDIT_ENABLED": "false"}
    prepared = subprocess.run(
        [sys.executable, "-c", _PREPARE.format(rows=_ROWS)],
        check=True,
        env=env | quiet,
        stdout=subprocess.PIPE,
        text=True,
    )
    port = free_port()
    command = [
        *(_BIN / "opentelemetry-instrument", _BIN / "gunicorn", "benchmarks.bench.wsgi"),
        *("--workers=1", "--worker-class=gthread", "--threads=1", "--keep-alive=60"),
        f"--bind=127.0.0.1:{port}",
    ]
    client = Client(
        port,
        _ROWS,
        {
            "Cookie": f"sessionid={prepared.stdout.strip()}; csrftoken={_CSRF}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    with server(command, env, application.path, lambda: client.answers(_PAGES[0])):
        yield client.post


if __name__ == "__main__":
    report(measure())
