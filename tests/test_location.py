"""Which function a record was made in: the application's own, or none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, {directory!r})
from otel_audit.location import application_function

def main():
    print(application_function())

if __name__ == "__main__":
    main()
"""


def run(path: Path, directory: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT.format(directory=str(directory)))
    return subprocess.run(
        [sys.executable, str(path)], check=True, capture_output=True, text=True, cwd=directory
    ).stdout.strip()


@pytest.mark.parametrize("name", ["bin/gunicorn", "env/bin/uvicorn", "Scripts/celery", "manage.py"])
def test_what_only_starts_the_work_is_not_the_application(tmp_path: Path, name: str) -> None:
    assert run(tmp_path / name, tmp_path) == ""


def test_a_script_of_ones_own_is(tmp_path: Path) -> None:
    assert run(tmp_path / "import_orders.py", tmp_path) == "__main__.main"


def test_code_without_a_file_is_nobodys() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from otel_audit.location import application_function as f; print(f())"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == ""
