"""Without file locks and forks, as on Windows, the application runs and audit says that it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_NO_POSIX = """
import os, sys
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "geteuid", "getuid", "pread", "pwrite", "O_CLOEXEC", "O_NOFOLLOW"):
    delattr(os, name)
"""

_APPLICATION = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
import otel_audit
from otel_audit.config.model import AuditConfig
print("pipeline", otel_audit.setup(AuditConfig(on_error=sys.argv[1])))
django.setup()
from django.contrib.auth.models import Group
from django.core.management import call_command
call_command("migrate", verbosity=0)
with otel_audit.context(reason="a test"):
    Group.objects.create(name="buyers")
    print("by hand", otel_audit.record("shop.export", action="EXPORT"))
print("groups", Group.objects.count())
call_command("check", fail_level="CRITICAL")
"""


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _NO_POSIX + code, *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_file_locks_the_application_runs_and_audit_says_that_it_cannot(tmp_path: Path) -> None:
    done = run(tmp_path, _APPLICATION, "fail_open")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["pipeline None", "by hand None", "groups 1"]
    assert "Nothing is audited: the spool needs file locks and fork hooks" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_file_locks_an_application_that_must_be_audited_does_not_start(tmp_path: Path) -> None:
    done = run(tmp_path, _APPLICATION, "fail_closed")
    assert done.returncode != 0
    assert "StartupError: the spool needs file locks and fork hooks" in done.stderr


@pytest.mark.parametrize("command", [["--help"], ["query", "--help"], ["config", "show"]])
def test_without_file_locks_the_command_line_is_there(tmp_path: Path, command: list[str]) -> None:
    code = f"import sys\nfrom otel_audit.cli import main\nsys.argv[1:] = {command!r}\nmain()"
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout
