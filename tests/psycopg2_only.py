"""``pytest -p tests.psycopg2_only``: tests on PostgreSQL alone, where Django uses psycopg2.

As it does where psycopg 3 is not installed.
"""

from __future__ import annotations

import importlib
import sys

import psycopg2  # noqa: F401 - Django would say less clearly that it is missing
import pytest

hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "psycopg"}
for name in hidden:
    del sys.modules[name]
sys.modules["psycopg"] = None  # type: ignore[assignment]
try:
    importlib.import_module("django.db.backends.postgresql.base")
finally:
    del sys.modules["psycopg"]
    sys.modules.update(hidden)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _on_postgresql(item) or item.get_closest_marker("psycopg3")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _on_postgresql(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    values = () if callspec is None else callspec.params.values()
    return "postgres" in getattr(item, "fixturenames", ()) or "postgresql" in values
