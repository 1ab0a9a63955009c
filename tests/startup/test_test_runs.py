"""Tests of an application under the agent: nothing of theirs reaches the trail, and they can look at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.startup.agent import CONFIG, Finished, run

SETTINGS = """
import os
from pathlib import Path
HERE = Path(__file__).parent
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "notes"]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db", "TEST": {"NAME": str(HERE / "test-db")},
}}
"""
MODELS = """
from django.db import models

class Note(models.Model):
    text = models.TextField()

class Draft(models.Model):
    text = models.TextField()
"""
TESTS = """
from django.contrib.auth import authenticate
from django.db import connection
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from otel_audit.testing import capture_audit
from notes.models import Draft, Note

class Captured(TestCase):
    def test_it(self):
        Note.objects.create(text="unseen")
        with capture_audit() as captured:
            Note.objects.create(text="seen")
            with connection.cursor() as cursor:
                cursor.execute("UPDATE notes_note SET text = 'raw'")
            Draft.objects.create(text="not named")
        assert "seen" in [change.new for change in captured.one(action="CREATE").changes]
        found = captured.unrecorded_writes()
        assert [each.partition(":")[0] for each in found] == ["notes.Draft"], found
        assert captured.one(action="UPDATE").database.query == "UPDATE notes_note SET text = ?"

class Committing(TransactionTestCase):
    def test_it(self):
        Note.objects.create(text="committed")

class WithoutADatabase(SimpleTestCase):
    def test_it(self):
        import otel_audit
        assert otel_audit.record("notes.exported", "EXPORT") is None
        assert authenticate(username="eve") is None
"""
MANAGE = """
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *{arguments!r}])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one app, with tests."""
    app = tmp_path / "notes"
    app.mkdir()
    (tmp_path / "settings.py").write_text(SETTINGS)
    (app / "__init__.py").write_text("")
    (app / "models.py").write_text(MODELS)
    (app / "tests.py").write_text(TESTS)
    return tmp_path


def manage(project: Path, *arguments: str, more: str = "", agent: bool = True) -> Finished:
    return run(
        project,
        MANAGE.format(arguments=arguments),
        config=f'{more}\n[django]\nmodels = ["notes.Note"]\n' + CONFIG,
        environ={"DJANGO_SETTINGS_MODULE": "settings"},
        agent=agent,
    )


def spooled(project: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (project / "spool").rglob("*.seg"))


@pytest.mark.parametrize("options", [[], ["--parallel", "2"]])
def test_nothing_of_a_test_run_is_recorded_but_by_capture_audit(project: Path, options: list[str]) -> None:
    done = manage(project, "test", *options)
    assert done.status == 0, done.errors
    assert "Ran 3 tests" in done.errors
    assert spooled(project) == b""
    assert done.errors.count("Nothing is audited while tests run") == 1


def test_a_test_run_is_recorded_where_that_is_asked_for(project: Path) -> None:
    (project / "notes" / "tests.py").write_text(
        TESTS.replace("assert otel_audit.record", "assert True or otel_audit.record")
    )
    done = manage(project, "test", more="record_tests = true")
    assert done.status == 0, done.errors
    assert b"committed" in spooled(project)


def test_a_test_database_without_a_test_environment_is_no_trail_either(project: Path) -> None:
    """As ``manage.py testserver`` makes one; afterwards the trail goes on."""
    program = """
        import django
        django.setup()
        import otel_audit
        from django.core.management import call_command
        from django.db import connection
        from notes.models import Note
        connection.creation.create_test_db(verbosity=0)
        Note.objects.create(text="in the test database")
        connection.creation.destroy_test_db("db", verbosity=0)
        call_command("migrate", run_syncdb=True, verbosity=0)
        Note.objects.create(text="in the real one")
    """
    done = run(
        project,
        program,
        config='[django]\nmodels = ["notes.*"]\n' + CONFIG,
        environ={"DJANGO_SETTINGS_MODULE": "settings"},
    )
    assert done.status == 0, done.errors
    assert b"in the real one" in spooled(project)
    assert b"in the test database" not in spooled(project)


def test_capture_audit_says_when_nothing_is_instrumented(project: Path) -> None:
    program = """
        import django, warnings
        django.setup()
        from otel_audit.testing import capture_audit
        with warnings.catch_warnings(record=True) as warned:
            with capture_audit() as captured:
                pass
        assert "opentelemetry-instrument" in str(warned[0].message), warned
        assert warned[0].filename.endswith("program.py"), warned[0].filename
        try:
            captured.one(action="CREATE")
        except AssertionError as error:
            assert "nothing is instrumented" in str(error), error
        else:
            raise SystemExit("found a record")
    """
    done = run(project, program, environ={"DJANGO_SETTINGS_MODULE": "settings"}, agent=False)
    assert done.status == 0, done.errors


PYTEST = """
import pytest
from django.db import connection
from notes.models import Draft, Note

pytestmark = pytest.mark.django_db

def test_what_was_recorded(audited):
    note = Note.objects.create(text="hunter2")
    record = audited.one(target=f"notes.Note/{note.pk}")
    assert record.action == "CREATE"
    audited.assert_every_write_recorded()
    audited.assert_no_secrets("correct horse")
    with pytest.raises(AssertionError, match="changes holds secret 2 of 2") as raised:
        audited.assert_no_secrets("correct horse", "hunter2")
    assert "hunter2" not in str(raised.value)

def test_a_write_that_is_not_recorded(audited):
    Draft.objects.create(text="x")
    with pytest.raises(AssertionError, match="notes.Draft: INSERT"):
        audited.assert_every_write_recorded()
    audited.assert_every_write_recorded(ignore=["notes.draft"])

def test_raw_sql_is_recorded_where_its_model_is(audited):
    Note.objects.create(text="x")
    Draft.objects.create(text="x")
    with connection.cursor() as cursor:
        cursor.execute('/* by hand */ DELETE FROM "notes_note"')
        cursor.execute('DELETE FROM "notes_note"')
        cursor.execute('/* by hand */ DELETE FROM "notes_draft"')
        cursor.execute('DELETE FROM "notes_draft"')
    assert [each.partition(":")[0] for each in audited.unrecorded_writes()] == ["notes.Draft"] * 2
    assert audited.one(action="DELETE").completeness == "statement"

def test_each_test_has_its_own_records(audited):
    assert len(audited) == 0
"""


@pytest.mark.parametrize("agent", [True, False])
def test_pytests_fixture_works_with_the_agent_and_without(project: Path, agent: bool) -> None:
    (project / "test_notes.py").write_text(PYTEST)
    program = """
        import sys, pytest
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_notes.py"]))
    """
    done = run(
        project,
        program,
        config='[django]\nmodels = ["notes.Note"]\n' + CONFIG,
        environ={"DJANGO_SETTINGS_MODULE": "settings"},
        agent=agent,
    )
    assert done.status == 0, done.output + done.errors
    assert "4 passed" in done.output
    assert spooled(project) == b""


def test_the_plugin_imports_nothing_of_ours_before_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    program = (
        "import sys, pytest\n"
        "status = pytest.main(['-q', '-p', 'no:cacheprovider', 'test_nothing.py'])\n"
        "ours = sorted(name for name in sys.modules if name.startswith('otel_audit.'))\n"
        "heavy = ('pipeline', 'config', 'redaction', 'instrumentation', 'testing', 'startup')\n"
        "assert not [name for name in ours if name.split('.')[1] in heavy], ours\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
