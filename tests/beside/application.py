"""The application that each neighbour gets: one model, one view, one request by a user. Its own settings.

Run as ``application.py NEIGHBOUR`` (see :mod:`tests.beside.neighbours`), in the neighbour's environment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

SECRET_KEY = "beside"
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "application"

CANARY, SECRET = "canary-4711", "hunter2"


def work(request: Any) -> Any:
    """Make a group for a user, in a span that says too much."""
    from django.contrib.auth.models import Group
    from django.http import HttpResponse
    from opentelemetry import trace

    assert request.user.username == "alice"
    with trace.get_tracer("beside").start_as_current_span("work") as span:
        span.set_attributes({"canary": CANARY, "password": SECRET})
        Group.objects.create(name="nurses")
    return HttpResponse("done")


def _urls() -> list[Any]:
    from django.urls import path

    return [path("work/", work)]


def __getattr__(name: str) -> Any:  # Django's URLs, once it has been set up
    if name == "urlpatterns":
        return _urls()
    raise AttributeError(name)


def _logfire() -> None:
    import logfire

    logfire.configure(send_to_logfire=False, console=False)
    logfire.instrument_django()


def _azure() -> None:
    from azure.monitor.opentelemetry import configure_azure_monitor

    configure_azure_monitor(logger_name="application", enable_live_metrics=False)


def _sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.otlp import OTLPIntegration

    sentry_sdk.init(dsn=os.environ["SENTRY_DSN"], integrations=[OTLPIntegration()])


START = {"logfire": _logfire, "azure": _azure, "sentry": _sentry}


def main() -> None:
    """Start, serve one request, and end as a server does that was asked to."""
    import django
    from django.core.management import call_command

    neighbour = sys.argv[1]
    START.get(neighbour, lambda: None)()
    django.setup()
    import otel_audit
    from otel_audit import startup

    if not startup.is_running() and os.environ.get("OTEL_AUDIT_ENABLED") != "false":
        otel_audit.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.test import Client

    user = User.objects.create_user("alice", password="correct horse")
    client = Client()
    client.force_login(user)
    response = client.get(f"/work/?password={SECRET}")
    assert response.content == b"done", response.content
    from opentelemetry import trace

    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush()
    if neighbour == "datadog":
        from ddtrace.trace import tracer

        tracer.shutdown()
    otel_audit.shutdown()


if __name__ == "__main__":
    sys.modules["application"] = sys.modules["__main__"]
    main()
