"""The clinic's fixtures for all tests here."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.instrumentation.django.project")

from tests.instrumentation.django.project import (  # noqa: E402
    alice,
    audit,
    clinic,
    clinic_database,
    instrumented,
)

__all__ = ["alice", "audit", "clinic", "clinic_database", "instrumented"]
