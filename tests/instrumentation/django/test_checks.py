"""`manage.py check` tells whether the application is audited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql import compiler

from otel_audit import startup
from otel_audit.config.model import ModelConfig
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from otel_audit.instrumentation.django.checks import audit_checks, reaches
from otel_audit.pipeline import provider
from tests.instrumentation.django.project import Instrumented


def ids() -> list[str | None]:
    return [message.id for message in audit_checks()]


def test_an_audited_application_has_nothing_to_hear(instrumented: Instrumented) -> None:
    with instrumented(models=["clinic.*", "!nowhere.*"], reads=["clinic.Patient"]):
        assert list(checks.run_checks(tags=["otel_audit"])) == []


def test_no_model_named_is_told(instrumented: Instrumented) -> None:
    with instrumented():
        assert ids() == ["otel_audit.W006"]


def test_a_pattern_that_matches_nothing_is_told_with_the_nearest_model(instrumented: Instrumented) -> None:
    with instrumented(
        models=["clinic.*", "shop.*"], reads=["clinic.Pateint"], model={"clinic.nothing": ModelConfig()}
    ):
        found = audit_checks()
    assert [message.id for message in found] == ["otel_audit.W007"] * 3
    assert "'shop.*'" in found[0].msg
    assert found[1].hint == "Did you mean 'clinic.Patient'?"


def test_auditing_that_never_began_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup._state, "error", None)
    monkeypatch.setattr(startup._state, "running", None)
    before = provider.replace(None)
    try:
        assert ids() == ["otel_audit.W002"]
        monkeypatch.setattr(startup._state, "error", RuntimeError("otel-audit.toml, line 3: no such key"))
        (message,) = audit_checks()
        assert message.id == "otel_audit.E001"
        assert "line 3: no such key" in message.msg
        monkeypatch.setattr(startup._state, "error", None)
        monkeypatch.setattr(startup._state, "off_because", "audit is switched off: enabled = false")
        assert ids() == ["otel_audit.I005"]
    finally:
        provider.replace(before)


def test_a_spool_that_cannot_be_written_is_told(instrumented: Instrumented) -> None:
    with instrumented(models=["clinic.*"]) as audit:
        audit.pipeline.health.spool_failed("/var/spool/audit is not writable")
        assert ids() == ["otel_audit.E004"]


def test_switched_off_is_told_as_information(instrumented: Instrumented) -> None:
    with instrumented(enabled=False):
        assert ids() == ["otel_audit.I005"]


def test_a_start_that_failed_stops_management_commands(
    monkeypatch: pytest.MonkeyPatch, instrumented: Instrumented
) -> None:
    with instrumented(models=["clinic.*"]):
        before = provider.replace(None)
        monkeypatch.setattr(startup._state, "error", RuntimeError("broken"))
        try:
            with pytest.raises(Exception, match=r"otel_audit\.E001.*broken"):
                call_command("check")
        finally:
            provider.replace(before)


def test_checks_come_and_go_with_the_instrumentor(instrumented: Instrumented) -> None:
    assert "otel_audit" not in checks.registry.registry.tags_available()
    with instrumented():
        assert "otel_audit" in checks.registry.registry.tags_available()
    assert "otel_audit" not in checks.registry.registry.tags_available()


def test_they_are_there_even_where_instrumenting_could_not_begin() -> None:
    before = provider.replace(None)
    try:
        DjangoAuditInstrumentor().instrument()
        assert "otel_audit" in checks.registry.registry.tags_available()
    finally:
        DjangoAuditInstrumentor().uninstrument()
        provider.replace(before)


class TestReaching:
    def test_a_backend_that_calls_super_is_reached(self) -> None:
        class Own(compiler.SQLUpdateCompiler):
            def execute_sql(self, *args: Any) -> Any:
                return super().execute_sql(*args)

        assert reaches(Own, "execute_sql", compiler.SQLUpdateCompiler)
        assert reaches(compiler.SQLUpdateCompiler, "execute_sql", compiler.SQLUpdateCompiler)

    def test_one_that_does_not_is_not(self) -> None:
        class Own(compiler.SQLUpdateCompiler):
            def execute_sql(self, *args: Any) -> Any:
                return None

        class Foreign:
            pass

        assert not reaches(Own, "execute_sql", compiler.SQLUpdateCompiler)
        assert not reaches(Foreign, "commit", BaseDatabaseWrapper)

    def test_such_a_backend_is_told(
        self, instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from django.db import connection

        class Own(compiler.SQLUpdateCompiler):
            def execute_sql(self, *args: Any) -> Any:
                return None

        original = connection.ops.compiler
        with instrumented(models=["clinic.*"]):
            monkeypatch.setattr(
                connection.ops, "compiler", lambda name: Own if "Update" in name else original(name)
            )
            (message,) = audit_checks()
        assert message.id == "otel_audit.W008"
        assert "SQLUpdateCompiler.execute_sql" in message.msg


def test_empty_settings_are_told_under_the_agent(tmp_path: Path) -> None:
    """``manage.py`` sets DJANGO_SETTINGS_MODULE when OpenTelemetry has already configured empty settings."""
    (tmp_path / "site_settings.py").write_text(
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django.contrib.contenttypes']\nROOT_URLCONF = 'site_settings'\n"
        "urlpatterns = []\n"
    )
    (tmp_path / "manage.py").write_text(
        "import os, sys\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_settings')\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    (tmp_path / "otel-audit.toml").write_text("[django]\nmodels = ['shop.*']\n")
    agent = Path(sys.executable).with_name("opentelemetry-instrument")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "DJANGO_")) and name != "PYTHONPATH"
    }
    environment |= {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }

    def check() -> subprocess.CompletedProcess[str]:
        command = [str(agent), sys.executable, "manage.py", "check"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    trapped = check()
    assert trapped.returncode == 1, trapped.stdout + trapped.stderr
    assert "otel_audit.E003" in trapped.stderr
    assert "export DJANGO_SETTINGS_MODULE=site_settings" in trapped.stderr

    environment["DJANGO_SETTINGS_MODULE"] = "site_settings"
    environment["PYTHONPATH"] = str(tmp_path)
    exported = check()
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert "otel_audit.E003" not in exported.stderr
    assert "otel_audit.W007" in exported.stderr, "the checks run, and no model matches shop.*"
