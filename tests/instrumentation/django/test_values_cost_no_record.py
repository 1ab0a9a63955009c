"""Whatever the context, the attributes and the fields hold: a committed change has its record."""

from __future__ import annotations

import enum
import uuid
from typing import Any

import pytest
from django.db import transaction
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_audit
from otel_audit.audit_record import Actor, Change, Target
from otel_audit.testing import CapturedAudit
from tests.hostile_values import Mute, anything
from tests.instrumentation.django.clinic.models import Dose, Patient, Tag, Ward
from tests.instrumentation.django.project import Instrumented

MODELS = ["clinic.*"]


class Reason(enum.StrEnum):
    REFUND = "refund"


class Action(enum.StrEnum):
    EXPORT = "EXPORT"


@pytest.fixture(params=["fail_open", "fail_closed"])
def audit(instrumented: Instrumented, request: pytest.FixtureRequest) -> Any:
    with instrumented(models=MODELS, config={"on_error": request.param}) as captured:
        yield captured


@pytest.mark.parametrize(
    ("part", "given", "expected"),
    [
        ("reason", gettext_lazy("Refund"), "Refund"),
        ("reason", Reason.REFUND, "refund"),
        ("reason", 4711, "4711"),
        ("reason", mark_safe("x"), "x"),
        ("tenant", 7, "7"),
        ("tenant", uuid.UUID(int=7), str(uuid.UUID(int=7))),
        ("system", Reason.REFUND, "refund"),
        ("actor", 5, Actor("5", "user")),
        ("actor", Actor(5, "service"), Actor("5", "service")),  # type: ignore[arg-type]
        ("actor", uuid.UUID(int=7), Actor(str(uuid.UUID(int=7)), "user")),
        ("on_behalf_of", 7, "7"),
    ],
)
def test_a_context_takes_ids_and_texts_of_any_type(
    audit: CapturedAudit, part: str, given: Any, expected: Any
) -> None:
    with otel_audit.context(**{part: given}):
        Ward.objects.create(name="a")
    record = audit.one(event_name="clinic.ward.create")
    assert (record.actor.on_behalf_of if part == "on_behalf_of" else getattr(record, part)) == expected
    assert not record.truncated


def test_a_user_object_stands_for_its_id(audit: CapturedAudit, alice: Any) -> None:
    with otel_audit.context(actor=alice):
        Ward.objects.create(name="a")
    assert audit.one(event_name="clinic.ward.create").actor == Actor(str(alice.pk), "user")


def test_a_context_is_converted_when_it_begins(audit: CapturedAudit) -> None:
    """A lazy text is evaluated in the language of the block, a list as it was."""
    basket = ["a"]
    with otel_audit.context(basket=basket):
        basket.append("b")
        Ward.objects.create(name="a")
    assert audit.one(event_name="clinic.ward.create").attributes == {"basket": ["a"]}


def test_what_has_no_text_is_left_out_of_the_context(audit: CapturedAudit) -> None:
    with otel_audit.context(actor=Mute(), reason=Mute(), tenant=Mute(), note=Mute(), colour="blue"):
        Ward.objects.create(name="a")
    record = audit.one(event_name="clinic.ward.create")
    assert record.actor == Actor("unknown", "user")
    assert (record.reason, record.tenant, record.truncated) == ("", "", True)
    assert record.attributes == {"note": "<Mute>", "colour": "blue"}


def test_the_application_records_with_parts_of_any_type(audit: CapturedAudit) -> None:
    record = otel_audit.record(
        "clinic.export",
        Action.EXPORT,
        target=Target("clinic.Ward", 7),  # type: ignore[arg-type]
        message=gettext_lazy("Exported"),  # type: ignore[arg-type]
        actor=Actor(5),  # type: ignore[arg-type]
        changes=[Change(Reason.REFUND, 1, mark_safe("2"), mark_safe("amount"))],
        attributes={"format": Reason.REFUND, 3: format_html("<b>{}</b>", "x")},  # type: ignore[dict-item]
    )
    assert audit.one(event_name="clinic.export") == record
    assert (record.action, record.message) == ("EXPORT", "Exported")
    assert record.target == Target("clinic.Ward", "7")
    assert record.changes == [Change("refund", 1, "2", "amount")]
    assert record.attributes == {"format": "refund", "3": "<b>x</b>"}


def test_a_text_of_a_subclass_is_its_plain_value_in_every_way_of_writing(audit: CapturedAudit) -> None:
    ward = Ward.objects.create(name=format_html("<b>{}</b>", "x"))
    loaded = Ward.objects.get()
    loaded.name = mark_safe("saved")
    loaded.save()
    Ward.objects.update(name=mark_safe("updated"))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Ward.objects.update(name=mark_safe("rolled back"))
        raise ZeroDivisionError
    Ward.objects.filter(name=mark_safe("updated")).delete()
    Tag.objects.bulk_create([Tag(name=mark_safe("b1")), Tag(name=Reason.REFUND)])
    seen = [(str(r.target), [(c.old, c.new) for c in r.changes], r.outcome) for r in audit if r.changes]
    key = f"clinic.Ward/{ward.pk}"
    assert [(target, changes[0][1], outcome) for target, changes, outcome in seen] == [
        (key, "<b>x</b>", "success"),
        (key, "saved", "success"),
        (key, "updated", "success"),
        (key, "rolled back", "failure"),
        (key, audit.records[-2].changes[0].new, "success"),
    ]
    assert all(
        type(value) is not type(mark_safe("")) for _, pairs, _ in seen for pair in pairs for value in pair
    )
    bulk = audit.one(event_name="clinic.tag.create").bulk
    assert bulk is not None
    assert [column.new for column in bulk.columns] == [["b1", "refund"]]


def test_a_composite_key_is_one_id_however_it_was_written(audit: CapturedAudit) -> None:
    patient = Patient.objects.create(name="p")
    Dose.objects.create(patient=patient, number=1, drug="a")
    Dose(patient_id=str(patient.pk), number="1", drug="b").save()
    Dose.objects.update(drug="c")
    Dose.objects.all().delete()
    ids = [str(r.target) for r in audit if r.event_name.startswith("clinic.dose")]
    assert ids == [f"clinic.Dose/[{patient.pk},1]"] * 4


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actor=anything,
    reason=anything,
    tenant=anything,
    attributes=st.dictionaries(st.text(min_size=1, max_size=5), anything, max_size=2),
    attribute=anything,
    rollback=st.booleans(),
)
def test_whatever_the_context_holds_every_change_has_a_record(
    audit: CapturedAudit,
    actor: Any,
    reason: Any,
    tenant: Any,
    attributes: dict[str, Any],
    attribute: Any,
    rollback: bool,
) -> None:
    """With verb, table, key and outcome."""
    audit.clear()
    for reserved in ("actor", "reason", "tenant", "system", "on_behalf_of"):
        attributes.pop(reserved, None)
    with otel_audit.context(actor=actor, reason=reason, tenant=tenant, **attributes):
        ward = Ward.objects.create(name="autocommit")
        try:
            with transaction.atomic():
                ward.name = "saved"
                ward.save()
                Ward.objects.filter(pk=ward.pk).update(name="updated")
                assert not rollback
        except AssertionError:
            pass
        pk = ward.pk
        ward.delete()
        own = otel_audit.record("clinic.x", "LOOK", message=reason, attributes={"a": attribute})
    ended = "failure" if rollback else "success"
    assert [(r.action, r.database.table, str(r.target), r.outcome) for r in audit] == [
        ("CREATE", "clinic_ward", f"clinic.Ward/{pk}", "success"),
        ("UPDATE", "clinic_ward", f"clinic.Ward/{pk}", ended),
        ("UPDATE", "clinic_ward", f"clinic.Ward/{pk}", ended),
        ("DELETE", "clinic_ward", f"clinic.Ward/{pk}", "success"),
        ("LOOK", "", "None", "success"),
    ]
    assert own == audit.records[-1]


def test_a_record_that_was_not_kept_is_not_returned(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As said by :func:`otel_audit.audit_record`."""
    from otel_audit.errors import SpoolError

    def full(payloads: Any) -> None:
        raise SpoolError("no space left")

    monkeypatch.setattr(audit.pipeline.spool, "append", full)
    if audit.pipeline.config.on_error == "fail_closed":
        with pytest.raises(SpoolError):
            otel_audit.record("clinic.x", "LOOK")
    else:
        assert otel_audit.record("clinic.x", "LOOK") is None


def test_what_cannot_be_built_at_all_still_says_which_row(
    instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record made instead does not repeat what failed: neither values nor context."""
    with instrumented(models=MODELS) as audit:
        logger, made = audit.pipeline.logger, audit.pipeline.logger.record

        def with_values(*names: Any, **parts: Any) -> Any:
            if parts.get("changes") or parts["at"].context is not None:
                raise RuntimeError("values")
            return made(*names, **parts)

        monkeypatch.setattr(logger, "record", with_values)
        monkeypatch.setattr(logger, "lone_records", lambda: None)
        with otel_audit.context(reason="r"):
            ward = Ward.objects.create(name="a")
        record = audit.one()
    assert (record.action, str(record.target), record.outcome) == (
        "CREATE",
        f"clinic.Ward/{ward.pk}",
        "success",
    )
    assert (record.completeness, record.truncated, record.fields) == ("ids", True, ["name"])
