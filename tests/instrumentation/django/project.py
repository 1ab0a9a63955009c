"""The clinic: a Django project for tests, on SQLite, instrumented by the real instrumentor.

Importing this configures Django for the process. Tests elsewhere take the fixtures by
``pytest_plugins = ["tests.instrumentation.django.project"]``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import django
import pytest

from otel_audit.config.model import AuditConfig, ContextConfig, DjangoConfig, RedactionConfig
from otel_audit.testing import CapturedAudit
from tests.audited import audited

_directory = tempfile.mkdtemp(prefix="otel-audit-clinic-")
os.environ["CLINIC_TEST_DIRECTORY"] = _directory
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.instrumentation.django.clinic.settings"
django.setup()

_EMPTIED = ("admin", "auth", "authtoken", "clinic", "impersonate", "sessions", "vault")

Instrumented = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.fixture(scope="session")
def clinic_database() -> Iterator[None]:
    """The clinic's tables."""
    import shutil

    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", run_syncdb=True, verbosity=0)
    yield
    connections.close_all()
    shutil.rmtree(_directory, ignore_errors=True)


@pytest.fixture
def clinic(clinic_database: None) -> Iterator[None]:
    """An empty clinic; what the test leaves is removed."""
    from django.apps import apps
    from django.db import connection

    yield
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_keys = OFF")
        for model in apps.get_models(include_auto_created=True):
            meta = model._meta
            if meta.app_label in _EMPTIED and not meta.proxy and meta.label != "auth.Permission":
                cursor.execute(f'DELETE FROM "{meta.db_table}"')
        cursor.execute("PRAGMA foreign_keys = ON")


@pytest.fixture
def instrumented(clinic: None) -> Instrumented:
    """Instrument Django with a configuration of the test's own, for a ``with`` block."""

    @contextmanager
    def instrument(
        *,
        context: ContextConfig | None = None,
        redaction: RedactionConfig | None = None,
        config: dict[str, Any] | None = None,
        **django_options: Any,
    ) -> Iterator[CapturedAudit]:
        from otel_audit.instrumentation.django import DjangoAuditInstrumentor

        whole = AuditConfig(
            django=DjangoConfig(**django_options),
            context=context or ContextConfig(),
            redaction=redaction or RedactionConfig(),
            **(config or {}),
        )
        with audited(DjangoAuditInstrumentor(), whole) as captured:
            yield captured

    return instrument


@pytest.fixture
def audit(instrumented: Instrumented) -> Iterator[CapturedAudit]:
    """Django instrumented with nothing but the defaults."""
    with instrumented() as captured:
        yield captured


@pytest.fixture
def alice(clinic: None) -> Any:
    """A user of the clinic, made before anything is recorded."""
    from django.contrib.auth.models import User

    return User.objects.create_superuser("alice", "alice@clinic.example", "correct horse")
