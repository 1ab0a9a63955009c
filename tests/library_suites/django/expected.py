"""What may differ in Django's own tests, test by test, and why."""

from __future__ import annotations

from typing import Final

LOOKS_AT_SQL: Final[dict[str, str]] = {
    "composite_pk.test_update.CompositePKUpdateTests.test_update_fields_deferred": (
        "takes the first statement for the UPDATE; it is the SELECT that asks for the value that was deferred"
    ),
    (
        "get_or_create.tests.UpdateOrCreateTests."
        "test_update_only_defaults_and_pre_save_fields_when_local_fields"
    ): "looks for statements that begin with UPDATE; on PostgreSQL, ours begins with WITH",
    "model_inheritance.tests.ModelInheritanceTests.test_update_parent_filtering": (
        "takes the first statement for the UPDATE; it is the one that takes SQLite's write lock"
    ),
}
"""Tests that fail with capture because they look at the SQL itself."""

_NO_KEY: Final = (
    "the key that the database gives becomes an object that its field cannot prepare and that has no text; "
    "the record has the row count"
)
FAILURES_OF_OURS: Final[dict[str, str]] = {
    "custom_pk.tests.CustomPKTests.test_auto_field_subclass_create": _NO_KEY,
    "custom_pk.tests.CustomPKTests.test_auto_field_subclass_bulk_create": _NO_KEY,
}
"""Tests in which capture must fail, which it logs and keeps from the application."""
