"""Other libraries over SQLAlchemy, before us and after us: they see what they always see, and so do we."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.trail import clean_environment

ROOT = Path(__file__).parents[3]
ONLY_2_0 = {"opentelemetry", "sqlmodel"}
"""What does not support SQLAlchemy 2.1 so far."""
NEIGHBOURS = [
    name
    for name in ("echo", "continuum", "utils", "opentelemetry", "flask", "sqlmodel", "advanced_alchemy")
    if name not in ONLY_2_0 or sqlalchemy.__version__.startswith("2.0.")
]


@cache
def beside(name: str, order: str) -> dict[str, Any]:
    """Run a process of its own: what they change in SQLAlchemy is for good."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.instrumentation.sqlalchemy.neighbours", name, order],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_what_is_recorded_with_nobody_beside() -> None:
    assert beside("nobody", "before")["records"] == [
        ["CREATE", "Article", "success", "full", ["1", "2", "3"], []],
        ["UPDATE", "Article/1", "success", "full", [], [["title", "article 1", "changed"]]],
        [
            *("DELETE", "Article/2", "success", "full", []),
            [["number", 2, None], ["title", "article 2", None]],
        ],
        ["UPDATE", "Article/3", "success", "full", [], [["number", 3, 33]]],
        ["UPDATE", "Article/1", "failure", "full", [], [["title", "changed", "undone"]]],
    ]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_we_record_the_same_beside(name: str, order: str) -> None:
    created, others = by_verb(beside(name, order))
    assert (created, others) == by_verb(beside("nobody", "before"))
    assert created == ["1", "2", "3"]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", [name for name in NEIGHBOURS if name != "echo"])
def test_they_see_the_same_beside_us(name: str, order: str) -> None:
    assert beside(name, order)["saw"] == beside(name, "never")["saw"]


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_log_of_statements_has_those_of_the_application_in_their_order(order: str) -> None:
    """And those of ours that read rows before a statement changes them: they run on its connection."""
    logged = iter(beside("echo", order)["saw"])
    assert all(line in logged for line in beside("echo", "never")["saw"])


def by_verb(made: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """Return the keys of the rows made, together or one by one, and the other records."""
    created: list[str] = []
    for _, target, _, _, keys, _ in (record for record in made["records"] if record[0] == "CREATE"):
        created += keys or [target.rpartition("/")[2]]
    return created, [record for record in made["records"] if record[0] != "CREATE"]
