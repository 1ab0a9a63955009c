"""A project with management commands, run by ``manage.py`` in processes of its own, as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from otel_audit.audit_record import AuditRecord
from tests.pipeline.spooling import spooled_records, wait_until

_MANAGE = """
import logging, os, sys
for log in ("otel_audit", "opentelemetry"):  # which would be printed, to stderr
    logging.getLogger(log).addHandler(logging.NullHandler())
    logging.getLogger(log).propagate = False
os.environ["DJANGO_SETTINGS_MODULE"] = "ops_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
_SETTINGS = """
SECRET_KEY = "tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "ops"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "ops.sqlite3"}}
USE_TZ = True
"""
_MODELS = """
from django.db import models
class Berth(models.Model):
    name = models.CharField(max_length=50)
    class Meta:
        app_label = "ops"
"""
_CONFIG = """
[django]
models = ["ops.*"]
[commands]
enabled = {enabled}
flush = {flush}
[spool]
directory = "spool"
[sink]
endpoint = "http://127.0.0.1:9/v1/audit"
shutdown_timeout = 0.0
[redaction]
personal_numbers = true
[[policy]]
command = "*"
level = "{level}"
"""
_COMMAND = """
import os, signal, sys, threading, time
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from ops.models import Berth
class Command(BaseCommand):
    requires_system_checks = []
    def add_arguments(self, parser):
        parser.add_argument("given", nargs="*")
        parser.add_argument("--password")
    def handle(self, *args, **options):
{body}
"""


class Project:
    """A project in a directory; each command has a body of the test's own."""

    def __init__(
        self, directory: Path, *, flush: float = 0.2, level: str = "request_response", enabled: bool = True
    ) -> None:
        self.directory = directory
        self._commands = directory / "ops" / "management" / "commands"
        self._commands.mkdir(parents=True)
        for package in (self._commands, self._commands.parent, directory / "ops"):
            (package / "__init__.py").touch()
        (directory / "ops" / "models.py").write_text(_MODELS)
        (directory / "ops_settings.py").write_text(_SETTINGS)
        (directory / "manage.py").write_text(_MANAGE)
        config = _CONFIG.format(flush=flush, level=level, enabled=str(enabled).lower())
        (directory / "otel-audit.toml").write_text(config)

    def command(self, name: str, body: str) -> None:
        """Write a command."""
        indented = textwrap.indent(textwrap.dedent(body), " " * 8)
        (self._commands / f"{name}.py").write_text(_COMMAND.format(body=indented))

    def start(self, *arguments: str, agent: bool = True, **options: Any) -> subprocess.Popen[bytes]:
        """Begin ``manage.py``, under ``opentelemetry-instrument`` or without."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "DJANGO_", "PYTHON"))
        }
        environment |= {
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "django",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "DJANGO_SETTINGS_MODULE": "ops_settings",
        } | options.pop("environment", {})
        under = [str(Path(sys.executable).parent / "opentelemetry-instrument")] if agent else []
        streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        command = [*under, sys.executable, "manage.py", *arguments]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, cwd=self.directory, env=environment, **streams
        )
        return process

    def run(self, *arguments: str, status: int = 0, **options: Any) -> tuple[str, str]:
        """Run ``manage.py`` to its end; return what it printed."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, err.decode()
        return out.decode(), err.decode()

    def records(self, event_name: str = "") -> list[AuditRecord]:
        """Return the records in the spool; those without an outcome yet are ``unknown``."""
        found = spooled_records(self.directory / "spool")
        return [record for record in found if not event_name or record.event_name == event_name]

    def wait_for(self, event_name: str, count: int = 1) -> list[AuditRecord]:
        """Wait for records of an event, and return them."""
        wait_until(lambda: len(self.records(event_name)) >= count, event_name, 60)
        return self.records(event_name)
