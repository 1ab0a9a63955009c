"""What a process that serves Django loads because of us, before it has recorded anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PACKAGES = ("msgspec",)
_PROCESS = """
import json, sys
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="tests only",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
DjangoInstrumentor().instrument()
if AUDITED:
    import otel_audit
    from otel_audit.config.model import AuditConfig, DjangoConfig
    assert otel_audit.setup(AuditConfig(django=DjangoConfig(models=["auth.*"]))) is not None
django.setup()
from django.core.wsgi import get_wsgi_application
get_wsgi_application()
json.dump(sorted(sys.modules), sys.stdout)
"""


def _modules(directory: Path, *, audited: bool) -> set[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-c", f"AUDITED = {audited}\n{_PROCESS}"],
        cwd=directory,
        env=env | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        check=True,
        text=True,
    )
    return set(json.loads(done.stdout))


def test_a_server_loads_few_modules_because_of_us(tmp_path: Path) -> None:
    plain, audited = (_modules(tmp_path, audited=audited) for audited in (False, True))
    added = audited - plain
    ours = {name for name in added if name.startswith("otel_audit")}
    foreign = {name for name in added - ours if not name.startswith(_PACKAGES)}
    # Each costs some half a millisecond, and some 30 KB of each worker process.
    assert len(ours) <= 200, sorted(ours)
    assert foreign <= {
        "django.db.models.sql.compiler",  # the first query would load it
        "django.shortcuts",  # any view loads it
        "mmap",  # tells a forked child: a quarter of a millisecond
        "opentelemetry.sdk.trace.export",
        "opentelemetry.sdk._shared_internal",
        "opentelemetry.sdk._shared_internal._processor_metrics",
    }


def test_what_only_some_processes_need_is_loaded_by_them(tmp_path: Path) -> None:
    loaded = _modules(tmp_path, audited=True)
    for heavy in (
        "sqlalchemy",
        "starlette",
        "sqlglot",
        "django.core.management.commands.migrate",
        "django.db.migrations.executor",
        "django.test.utils",
        "otel_audit.store",
        "otel_audit.server",
        "otel_audit.cli",
        "otel_audit.contrib",  # off by default, like the next two
        "otel_audit.instrumentation.celery",
        "otel_audit.instrumentation.rq",
        "otel_audit.pipeline.delivery",  # the sender's thread loads it, with the first record
        "google.protobuf",
        "typer",
        "rich",
    ):
        assert heavy not in loaded
