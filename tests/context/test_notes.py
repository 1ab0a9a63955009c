"""What the application says of its work: slugs, codes and related objects, of every record or of the work."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_audit
from otel_audit import Target
from otel_audit.audit_context import SystemScope, current_fields, enter_scope, leave_scope, notes_of
from otel_audit.audit_record import Actor
from otel_audit.config.model import AuditConfig
from otel_audit.notes import Notes
from otel_audit.targets import targets_of
from otel_audit.testing import CapturedAudit, capture_audit
from tests.hostile_values import anything


@pytest.fixture
def work() -> Iterator[SystemScope]:
    scope = SystemScope(Actor("shop.tasks.bill", "system"), "shop.tasks.bill", parent="request-1")
    token = enter_scope(scope)
    yield scope
    leave_scope(token)


@pytest.fixture
def captured() -> Iterator[CapturedAudit]:
    with capture_audit(AuditConfig()) as caught:
        yield caught


def noted(scope: Any) -> dict[str, Any]:
    notes = notes_of(scope)
    assert notes is not None
    return notes.parts()


class Code(enum.StrEnum):
    PAID = "P-17"


def test_a_slug_and_related_objects_of_a_block_stand_on_every_record_made_inside(
    captured: CapturedAudit,
) -> None:
    with otel_audit.context(slug="pay-invoice", related=["shop.Order/7", Target("shop.Customer", "3")]):
        otel_audit.record("shop.invoice.pay", "PAY", related=[Target("shop.Invoice", "9")])
    otel_audit.record("shop.invoice.print", "PRINT")
    inside, after = captured.records
    assert inside.slug == "pay-invoice"
    assert [str(each) for each in inside.related] == ["shop.Invoice/9", "shop.Order/7", "shop.Customer/3"]
    assert (after.slug, after.related) == ("", [])


def test_inner_blocks_replace_the_slug_and_add_objects(captured: CapturedAudit) -> None:
    with (
        otel_audit.context(slug="outer", related="shop.Order/7"),
        otel_audit.context(slug="inner", related=Target("shop.Card", "1")),
    ):
        otel_audit.record("shop.card.charge", "CHARGE")
    record = captured.one()
    assert record.slug == "inner"
    assert [str(each) for each in record.related] == ["shop.Order/7", "shop.Card/1"]


def test_what_names_no_object_costs_detail_and_not_the_record(captured: CapturedAudit) -> None:
    with otel_audit.context(slug=Code.PAID, related=["shop.Order/7", object(), None]):
        otel_audit.record("shop.card.charge", "CHARGE")
    record = captured.one()
    assert (record.slug, [str(each) for each in record.related]) == ("P-17", ["shop.Order/7"])
    assert record.truncated


def test_annotations_belong_to_the_work_and_not_to_what_happens_in_it(
    work: SystemScope, captured: CapturedAudit
) -> None:
    otel_audit.annotate(slug="bill", event_code=Code.PAID, event_type="billing", attempt=2)
    otel_audit.annotate(amount="12.50", attempt=3)
    otel_audit.relate("shop.Order/7", Target("shop.Order", "7"), Target("shop.Customer", "3"))
    otel_audit.record("shop.order.bill", "BILL")
    assert captured.one().slug == ""
    assert noted(work) == {
        "slug": "bill",
        "event_code": "P-17",
        "event_type": "billing",
        "attributes": {"attempt": 3, "amount": "12.50"},
        "related": [Target("shop.Order", "7"), Target("shop.Customer", "3")],
    }


def test_outside_any_work_annotations_do_nothing() -> None:
    otel_audit.annotate(slug="nobody")
    otel_audit.relate("shop.Order/7")


def test_a_thread_annotates_the_work_that_started_it(work: SystemScope) -> None:
    from otel_audit.audit_context import AuditContext, StarterScope, current_context, enter_context

    context = current_context()
    assert context is not None

    def run() -> None:
        enter_context(AuditContext(StarterScope(context)))
        otel_audit.relate("shop.Order/8")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted(work)["related"] == [Target("shop.Order", "8")]


def test_all_records_of_a_piece_of_work_share_its_id_and_name_its_parent(
    work: SystemScope, captured: CapturedAudit
) -> None:
    otel_audit.record("shop.order.bill", "BILL")
    otel_audit.record("shop.order.ship", "SHIP")
    assert {record.request.id for record in captured.records} == {work.id}
    assert {record.request.parent for record in captured.records} == {"request-1"}
    assert current_fields().request.view == "shop.tasks.bill"


@given(anything, anything)
def test_no_value_makes_an_annotation_raise(value: Any, other: Any) -> None:
    notes = Notes()
    notes.say(slug=value, event_code=other, attributes={"value": value})
    found, _ = targets_of(other)
    notes.relate(found)
    parts = notes.parts()
    assert type(parts.get("slug", "")) is str
    assert all(type(target.type) is str for target in parts["related"])


@given(st.lists(anything, max_size=3))
def test_a_hostile_block_costs_no_record(values: list[Any]) -> None:
    with capture_audit(AuditConfig()) as captured, otel_audit.context(slug=values, related=values):
        otel_audit.record("shop.order.bill", "BILL", target=Target("shop.Order", "7"))
    assert captured.one().target == Target("shop.Order", "7")


def test_secrets_in_slugs_codes_and_parents_are_redacted(captured: CapturedAudit) -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
    token = enter_scope(SystemScope(Actor("job", "system"), "job", parent=secret))
    try:
        with otel_audit.context(slug=secret, related=f"shop.Order/{secret}"):
            otel_audit.record("shop.order.bill", "BILL", event_type=secret)
    finally:
        leave_scope(token)
    captured.assert_no_secrets(secret)
    assert len(captured) == 1
