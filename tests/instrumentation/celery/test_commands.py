"""Management commands as tasks by their names, each a command inside its task."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from celery import Celery

from otel_audit.config.model import CeleryConfig
from otel_audit.instrumentation.celery import CeleryAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.e2e.running import ROOT
from tests.instrumentation.celery.conftest import config
from tests.instrumentation.celery.workers import TOML, workers
from tests.services import RedisServer

COMMANDS = config(celery=CeleryConfig(enabled=True, commands=["clearsessions", "migrate"]))


def shop(name: str = "commands") -> Celery:
    return Celery(name, broker="memory://", set_as_current=False)


@contextmanager
def with_commands() -> Iterator[CapturedAudit]:
    with audited(CeleryAuditInstrumentor(), COMMANDS) as captured:
        yield captured


def test_every_application_has_them_whenever_it_was_made() -> None:
    before = shop()
    before.finalize()
    pending = shop()
    with with_commands():
        after = shop()
        for app in (before, pending, after):
            assert {"clearsessions", "migrate"} <= set(app.tasks)
    for app in (before, pending, after):
        assert "clearsessions" not in app.tasks


def test_a_task_of_the_application_of_that_name_stays_its_own() -> None:
    app = shop()

    @app.task(name="migrate")  # type: ignore[untyped-decorator]
    def migrate() -> str:
        return "my own"

    with with_commands():
        assert app.tasks["migrate"].apply().get() == "my own"
    assert app.tasks["migrate"].apply().get() == "my own"


@pytest.mark.timeout(200)
def test_a_command_runs_as_a_task_and_is_recorded_in_it(tmp_path: Path, redis: RedisServer) -> None:
    toml = TOML.replace("enabled = true", 'enabled = true\ncommands = ["migrate"]') + (
        '\n[django]\nmodels = ["contenttypes.*"]\n'
    )
    with workers(tmp_path, redis, toml) as place:
        place.environment |= {
            "DJANGO_SETTINGS_MODULE": "tests.servers.small.settings",
            "SMALL_DATABASE": str(tmp_path / "small.sqlite3"),
            "PYTHONPATH": str(ROOT),
        }
        place.start("--pool=solo")
        task = place.app.send_task("migrate", ["contenttypes"], {"verbosity": 0})
        (run,) = place.wait_for(task, "task.run")
        place.stop()
    assert (run.outcome, run.target and run.target.type) == ("success", "migrate")
    with closing(sqlite3.connect(tmp_path / "small.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM django_content_type").fetchone() is not None
