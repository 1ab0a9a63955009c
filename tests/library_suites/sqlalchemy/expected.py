"""What may differ in SQLAlchemy's own tests: kinds of assertions, and tests by name, with the reason."""

from __future__ import annotations

import re
from typing import Final

KINDS: Final[dict[str, re.Pattern[str]]] = {
    "the test counts statements or compares their text": re.compile(r"testing/assertsql\.py"),
}
"""Failures by what the test looks at, which a user's application does not; matched by the traceback."""

_INPUT_SIZES: Final = (
    "lists the calls of a method of the dialect; one is for the SELECT that reads the row under a lock"
)
_ROW_COUNT: Final = "counts how often the row count of the driver is read; a write that is recorded needs it"
BY_NAME: Final[dict[str, str]] = {
    "test/sql/test_resultset.py::CursorResultTest::test_no_rowcount_on_selects_inserts": _ROW_COUNT,
    "test/sql/test_resultset.py::CursorResultTest::test_rowcount_always_called_when_preserve_rowcount": (
        _ROW_COUNT
    ),
    "test/engine/test_execute.py::SetInputSizesTest::test_set_input_sizes_event": _INPUT_SIZES,
    "test/engine/test_execute.py::SetInputSizesTest::test_set_input_sizes_no_event": _INPUT_SIZES,
    "test/engine/test_execute.py::ExecuteDriverTest::test_execute_compiled_favors_compiled_paramstyle": (
        "replaces what executes statements by a mock and lists its calls; the first takes SQLite's write lock"
    ),
}
"""Tests of no such kind that fail with capture, each with the reason."""

_DRIVER_CONNECTION: Final = "takes the driver's own connection, whose writes nobody sees: counted on purpose"
_PSYCOPG: Final = "test/dialect/postgresql/test_dialect.py::"
FAILURES_OF_OURS: Final[dict[str, str]] = {
    f"{_PSYCOPG}Psycopg3Test::test_client_side_cursor": _DRIVER_CONNECTION,
    f"{_PSYCOPG}TwoPhaseCommitTest::test_provided_id_round_trip": _DRIVER_CONNECTION,
    f"{_PSYCOPG}TwoPhaseCommitTest::test_default_pg_dialect": _DRIVER_CONNECTION,
    "test/dialect/sqlite/test_compiler.py::RegexpTest::test_determinsitic_parameter": _DRIVER_CONNECTION,
    "test/engine/test_pool.py::PoolTest::test_rec_fairy_adapted_dialect": _DRIVER_CONNECTION,
    "test/engine/test_pool.py::PoolTest::test_rec_fairy_default_dialect": _DRIVER_CONNECTION,
    "test/engine/test_execute.py::ExecuteDriverTest::test_execute_compiled_favors_compiled_paramstyle": (
        "its mock of what executes statements has no rows to give (2.0, SQLite)"
    ),
}
"""Tests, whatever their parameters, in which capture must fail: logged, and kept from the application."""
