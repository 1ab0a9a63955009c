"""What otel-audit puts into a project stays out of version control."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from otel_audit.config.project_directory import make_private_directory
from otel_audit.pipeline.spool.directory import prepare
from otel_audit.server.engine.datadir import DataDirectory


def untracked(repository: Path) -> str:
    return subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def test_git_does_not_see_the_spool_of_a_project(repository: Path) -> None:
    prepare(repository / ".otel-audit" / "spool")
    (repository / ".otel-audit" / "spool" / "record").write_text("x")
    assert untracked(repository) == ""


def test_git_does_not_see_the_store_of_a_project(repository: Path) -> None:
    data = DataDirectory.acquire(repository / ".otel-audit" / "store")
    assert data.path.is_dir()
    data.release()
    assert untracked(repository) == ""


def test_a_directory_elsewhere_gets_no_file_of_ours(repository: Path) -> None:
    make_private_directory(repository / "var" / "spool")
    assert [path.name for path in (repository / "var").rglob("*")] == ["spool"]


def test_a_gitignore_somebody_wrote_is_kept(repository: Path) -> None:
    own = repository / ".otel-audit" / ".gitignore"
    own.parent.mkdir()
    own.write_text("spool/\n")
    make_private_directory(repository / ".otel-audit" / "spool")
    assert own.read_text() == "spool/\n"
