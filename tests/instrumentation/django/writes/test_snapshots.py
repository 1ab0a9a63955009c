"""``snapshot = true``: an update has the whole row, whatever the statement wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import F

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import ModelConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import Stock

WHOLE = {"shelf", "level", "note", "seen"}


@pytest.fixture
def audit(vendor: str) -> Iterator[CapturedAudit]:
    with auditing(model={"warehouse.stock": ModelConfig(snapshot=True)}) as captured:
        Stock.objects.bulk_create([Stock(code=code, level=n, note="n") for n, code in enumerate("abc")])
        captured.clear()
        yield captured


def changes(record: AuditRecord) -> list[tuple[str, Any, Any]]:
    return [(change.field, change.old, change.new) for change in record.changes]


def image(record: AuditRecord) -> dict[str, Any]:
    return {name: value for name, value in record.image.items() if name != "seen"}


def test_a_save_of_some_fields_has_the_whole_row(audit: CapturedAudit) -> None:
    stock = Stock.objects.get(code="a")
    stock.level = 5
    stock.save(update_fields=["level"])
    record = audit.one()
    assert changes(record) == [("level", 0, 5)]
    assert set(record.image) == WHOLE
    assert image(record) == {"shelf": 0, "level": 5, "note": "n"}


def test_a_save_of_an_instance_without_its_other_fields_reads_them(audit: CapturedAudit) -> None:
    stock = Stock.objects.only("code", "level").get(code="a")
    stock.level = 6
    stock.save()
    record = audit.one()
    assert changes(record) == [("level", 0, 6)]
    assert set(record.image) == WHOLE
    audit.clear()
    Stock(code="b", level=7).save(update_fields=["level"])
    record = audit.one()
    assert changes(record) == [("level", 1, 7)]
    assert image(record) == {"shelf": 0, "level": 7, "note": "n"}
    audit.clear()
    Stock(code="b", level=7).save(update_fields=["level"])
    assert not audit.records


def test_an_update_of_one_row_has_all_of_it(audit: CapturedAudit) -> None:
    Stock.objects.filter(code="a").update(level=F("level") + 8)
    record = audit.one()
    assert changes(record) == [("level", 0, 8)]
    assert image(record) == {"shelf": 0, "level": 8, "note": "n"}


def test_an_update_of_many_rows_has_columns_of_all_fields(audit: CapturedAudit) -> None:
    Stock.objects.filter(code__in="ab").update(note="m")
    bulk = audit.one().bulk
    assert bulk is not None
    columns = {column.field: column for column in bulk.columns}
    assert set(columns) == WHOLE
    assert (columns["note"].old, columns["note"].new) == (["n", "n"], ["m", "m"])
    assert columns["level"].new in ([0, 1], [1, 0])
    audit.clear()
    Stock.objects.filter(code__in="ab").update(note="m")
    assert not audit.records


def test_a_delete_has_the_row_as_it_was(audit: CapturedAudit) -> None:
    Stock.objects.filter(code="a").delete()
    assert {change.field for change in audit.one().changes} == WHOLE


def test_only_what_was_written_is_named_where_only_ids_are_kept(vendor: str) -> None:
    with auditing(model={"*": ModelConfig(snapshot=True)}, max_bulk_rows=1) as audit:
        Stock.objects.bulk_create([Stock(code=code, level=n) for n, code in enumerate("ab")])
        audit.clear()
        Stock.objects.update(note="m")
        record = audit.one()
        assert (record.completeness, record.fields) == ("ids", ["note"])
