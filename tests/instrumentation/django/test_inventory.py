"""A pattern that matches no model is named where no check runs: in a server, once the apps are ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.instrumentation.django.project import Instrumented
from tests.startup.agent import CONFIG, run

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "library.apps.Library"]
DATABASES = {}
ROOT_URLCONF = "library.urls"
"""
MODELS = """
from django.db import models

class Book(models.Model):
    title = models.CharField(max_length=20)
"""
APPS = """
from django.apps import AppConfig

class Library(AppConfig):
    name = "library"

    def ready(self):
        READY
"""
SERVER = """
from django.core.wsgi import get_wsgi_application
for _ in range(2):
    get_wsgi_application()
"""
WRONG = CONFIG + '[django]\nmodels = ["library.*", "library.Bok"]\nreads = ["!x.*", "shop.*"]\n'
WRONG += '[[policy]]\nmodel = ["library.Bock", "!library.y"]\nlevel = "none"\n'
ENVIRON = {"DJANGO_SETTINGS_MODULE": "library.settings"}


def make_library(directory: Path, *, settings: str = "", ready: str = "pass") -> None:
    (directory / "library").mkdir()
    for name, content in {
        "__init__": "",
        "apps": APPS.replace("READY", ready),
        "models": MODELS,
        "settings": SETTINGS + settings,
        "urls": "urlpatterns = []",
    }.items():
        (directory / "library" / f"{name}.py").write_text(content)


def assert_named_once(errors: str) -> None:
    assert errors.count("django.models has the pattern 'library.Bok'") == 1, errors
    assert "Did you mean 'library.Book'?" in errors
    assert errors.count("django.reads has the pattern 'shop.*'") == 1
    assert "'library.*'" not in errors
    assert "'!x.*'" not in errors
    assert errors.count("policy.model has the pattern 'library.Bock'") == 1
    assert "library.y" not in errors


@pytest.mark.parametrize("start", ["agent", "before", "after", "while"])
def test_patterns_without_a_model_are_named_once_however_audit_was_started(
    tmp_path: Path, start: str
) -> None:
    setup = "import otel_audit\notel_audit.setup()\n"
    make_library(tmp_path, ready="import otel_audit; otel_audit.setup()" if start == "while" else "pass")
    program = {"before": setup + SERVER, "after": f"import django\ndjango.setup()\n{setup}{SERVER}"}
    done = run(tmp_path, program.get(start, SERVER), config=WRONG, environ=ENVIRON, agent=start == "agent")
    assert done.status == 0, done.errors
    assert_named_once(done.errors)


def test_patterns_that_match_are_not_worth_a_word(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture
) -> None:
    with instrumented(models=["clinic.*", "!shop.*"], reads=["clinic.patient"]):
        pass
    assert not caplog.records


def test_a_fault_of_ours_does_not_stop_the_apps(
    instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "otel_audit.instrumentation.django.inspection.inventory.mistakes", lambda config: 1 / 0
    )
    with instrumented(models=["clinic.*"]) as audit:
        assert audit.records == []
    assert "could not be compared" in caplog.text


CONFIGURED = """
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes"],
    OTEL_AUDIT={"tenant": "configured", "spool": {"directory": "spool"}, "sink": {"shutdown_timeout": 0.0}},
)
"""
STARTED = """
import otel_audit
pipeline = otel_audit.setup()
print("TENANT", pipeline.config.tenant)
"""
SET_UP = "import django\ndjango.setup()\n"


def test_the_setting_is_read_where_settings_were_configured_in_code(tmp_path: Path) -> None:
    done = run(tmp_path, CONFIGURED + STARTED + SET_UP, config=None, agent=False)
    assert "TENANT configured" in done.output, done.errors
    assert "ignored" not in done.errors


@pytest.mark.parametrize(
    ("program", "config", "reason"),
    [
        (STARTED + CONFIGURED, None, "Django had no settings yet when audit started"),
        (CONFIGURED + STARTED, CONFIG, "the configuration is "),
        (
            CONFIGURED + "import otel_audit\notel_audit.setup(otel_audit.AuditConfig())\n",
            None,
            "otel_audit.setup() was called with a configuration",
        ),
    ],
    ids=["too early", "a file", "in code"],
)
def test_a_setting_that_makes_no_difference_is_named(
    tmp_path: Path, program: str, config: str | None, reason: str
) -> None:
    done = run(tmp_path, program + SET_UP, config=config, agent=False)
    assert done.errors.count(f"Django's OTEL_AUDIT setting is ignored: {reason}") == 1, done.errors


def test_a_setting_that_is_no_table_is_a_reason_that_is_told(tmp_path: Path) -> None:
    program = CONFIGURED.replace('{"tenant": "configured", "spool"', '["tenant"], X={"spool"')
    done = run(
        tmp_path,
        program + "import otel_audit\nprint(otel_audit.setup())",
        config=None,
        agent=False,
    )
    assert done.output.strip() == "None"
    assert "must be a dict" in done.errors
