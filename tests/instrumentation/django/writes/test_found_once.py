"""What is found out about a table once, and not again for each statement."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.db import connection
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import override_settings

from otel_audit.audit_record import AuditRecord
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.models import Item, LowerField, Member


@pytest.fixture
def looks(audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many columns converters were looked for, one entry per look; instances have their own looks."""
    found: list[int] = []
    plain = SQLCompiler.get_converters

    def get_converters(compiler: Any, expressions: Any) -> Any:
        columns = list(expressions)
        found.append(len(columns))
        return plain(compiler, columns)

    monkeypatch.setattr(SQLCompiler, "get_converters", get_converters)
    return found


def test_converters_are_found_once_for_all_deletes(audit: CapturedAudit, looks: list[int]) -> None:
    for name in "abc":
        Item.objects.create(name=name, facts={"of": name}, price="1.50")
    audit.clear()
    Item.objects.filter(name="a")._raw_delete("default")
    once = len(looks)
    for name in "bc":
        Item.objects.filter(name=name)._raw_delete("default")
    assert len(looks) == once
    told = [{change.field: change.old for change in record.changes} for record in audit]
    assert [(each["name"], each["facts"], each["price"]) for each in told] == [
        (name, {"of": name}, "1.50") for name in "abc"
    ]


def test_a_field_that_chooses_its_converters_is_asked_each_time(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_as: list[Any] = [str.title]

    def get_db_converters(field: Any, connection: Any) -> list[Any]:
        read = read_as[0]
        return [lambda value, expression, connection: read(value)]

    monkeypatch.setattr(LowerField, "get_db_converters", get_db_converters)
    for name in "ab":
        Member.objects.create(name=name, email=f"{name}b")
    audit.clear()
    Member.objects.filter(name="a")._raw_delete("default")
    read_as[0] = str.upper
    Member.objects.filter(name="b")._raw_delete("default")
    assert [_old(record, "email") for record in audit] == ["Ab", "BB"]


def test_another_setting_of_time_zones_is_another_conversion(audit: CapturedAudit) -> None:
    noon = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
    for name in "ab":
        Item.objects.create(name=name, due=noon)
    audit.clear()
    Item.objects.filter(name="a")._raw_delete("default")
    assert _old(audit.one(action="DELETE"), "due") == "2026-11-28T12:00:00+00:00"
    if connection.vendor == "postgresql":  # its driver makes the moments
        return
    audit.clear()
    with override_settings(USE_TZ=False):
        Item.objects.filter(name="b")._raw_delete("default")
    assert _old(audit.one(action="DELETE"), "due") == "2026-11-28T12:00:00"


def test_a_table_that_has_got_a_column_is_looked_at_again(audit: CapturedAudit) -> None:
    for name in "ab":
        Item.objects.create(name=name)
    audit.clear()
    Item.objects.filter(name="a")._raw_delete("default")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE warehouse_item ADD COLUMN later integer")
    try:
        audit.clear()
        Item.objects.filter(name="b")._raw_delete("default")
        old = {change.field: change.old for change in audit.one(action="DELETE").changes}
        assert old["name"] == "b"
        assert set(old) == {field.name for field in Item._meta.concrete_fields} - {"id"}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE warehouse_item DROP COLUMN later")


def _old(record: AuditRecord, field: str) -> Any:
    return next(change.old for change in record.changes if change.field == field)
