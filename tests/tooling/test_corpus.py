"""The corpus: the same input gives the same lines, and another line is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _corpus(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.corpus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The records of one round, made by two processes."""
    directory = tmp_path_factory.mktemp("corpus")
    files = directory / "first", directory / "second"
    for file in files:
        written = _corpus("write", file, "--rounds", 1)
        assert written.returncode == 0, written.stderr
    return files


def test_the_same_work_gives_the_same_lines(twice: tuple[Path, Path]) -> None:
    compared = _corpus("compare", *twice)
    assert (compared.stdout, compared.returncode) == ("the same\n", 0)


def test_every_record_is_there_as_kept_and_as_sent(twice: tuple[Path, Path]) -> None:
    lines = twice[0].read_text("utf-8").splitlines()
    kept = [_content(line)["id"] for line in lines if line.startswith("record ")]
    sent = [_content(line)["attributes"]["audit.record.id"] for line in lines if line.startswith("sent ")]
    assert len(kept) == len(set(kept)) > 150
    assert set(kept) < set(sent)


def test_records_of_all_kinds_are_among_them(twice: tuple[Path, Path]) -> None:
    records = [
        _content(line) for line in twice[0].read_text("utf-8").splitlines() if line.startswith("record ")
    ]
    assert {"CREATE", "UPDATE", "DELETE", "READ", "LOGIN", "LOGOUT", "EXPORT"} <= _all(records, "action")
    assert {"failure"} <= _all(records, "outcome")
    assert {"ids", "count", "statement"} <= _all(records, "completeness")
    assert {"as_loaded", "exact"} <= _all(records, "old_values")
    assert any("[redacted]" in json.dumps(record) for record in records)
    for part in (
        "changes",
        "bulk",
        "image",
        "attributes",
        "reason",
        "tenant",
        "trace_id",
        "code",
        "truncated",
    ):
        assert any(record.get(part) for record in records), part


def test_a_line_that_differs_is_printed(twice: tuple[Path, Path], tmp_path: Path) -> None:
    lines = twice[0].read_text("utf-8").splitlines(keepends=True)
    other = tmp_path / "other"
    other.write_text("".join([*lines[:6], lines[6].replace("corpus", "c0rpus"), *lines[7:-1]]), "utf-8")
    compared = _corpus("compare", twice[0], other)
    assert compared.returncode == 1
    assert "line 7:" in compared.stdout
    assert "c0rpus" in compared.stdout
    assert "missing" in compared.stdout
    assert compared.stdout.endswith("2 lines differ\n")


def _content(line: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line.partition(" ")[2])
    return content


def _all(records: list[dict[str, Any]], part: str) -> set[str]:
    return {record[part] for record in records if part in record}
