"""Reads of sensitive models: one record a query, with the objects and fields it showed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import connection, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Prefetch, Subquery
from django.db.models.functions import Concat, Length, Upper
from django.db.utils import OperationalError
from django.test import Client
from django.test.utils import CaptureQueriesContext

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import ModelConfig
from otel_audit.instrumentation.django.reads import plan, wrappers
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.clinic.models import (
    Dose,
    Inpatient,
    Patient,
    PatientOnFile,
    Sample,
    Tag,
    Visit,
    Ward,
)
from tests.instrumentation.django.project import Instrumented

EVERY_FIELD = ["id", "name", "email", "card", "balance", "ward", "referrer"]


@pytest.fixture
def ann(clinic: None) -> Patient:
    ward = Ward.objects.create(name="north")
    return Patient.objects.create(name="Ann", email="ann@example.org", card="4111", balance=7, ward=ward)


@pytest.fixture
def bob(ann: Patient) -> Patient:
    return Patient.objects.create(name="Bob", email="bob@example.org", balance=3, ward=ann.ward, referrer=ann)


@pytest.fixture
def patients(ann: Patient, bob: Patient) -> list[Patient]:
    return [ann, bob]


@pytest.fixture
def reads(instrumented: Instrumented, patients: list[Patient]) -> Iterator[CapturedAudit]:
    """The clinic with two patients, reads of patients, samples and doses recorded."""
    with instrumented(reads=["clinic.Patient", "clinic.Sample", "clinic.Dose"]) as audit:
        yield audit


def seen(audit: CapturedAudit) -> list[AuditRecord]:
    return [record for record in audit if record.action == "READ"]


def only(audit: CapturedAudit) -> AuditRecord:
    (record,) = seen(audit)
    return record


def keys(record: AuditRecord) -> list[str]:
    if record.bulk is not None:
        return record.bulk.keys
    assert record.target is not None
    return [record.target.id]


def key(*objects: Any) -> list[str]:
    return [str(item.pk) for item in objects]


# --- what is recorded ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers", [(7, 999_999_999), (1_000_000_000, 2), (4111_1111_1111_1111, 3), (-4, 5), (2**63 - 1, 6)]
)
def test_the_quick_way_says_of_numbers_what_the_general_way_says(
    reads: CapturedAudit, ann: Patient, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, int]
) -> None:
    """A key that may be the number of a card is none of what is left unlooked at."""
    with transaction.atomic():
        Patient.objects.all().delete()
        for number in numbers:
            Patient.objects.create(id=number, ward=ann.ward)
        reads.clear()
        list(Patient.objects.order_by("pk"))
        quickly = only(reads)
        reads.clear()
        monkeypatch.setattr(AuditLogger, "lone_records", lambda _: None)
        list(Patient.objects.order_by("pk"))
        transaction.set_rollback(True)  # the next key is not to follow on these
    assert keys(only(reads)) == keys(quickly)
    assert keys(quickly)[0] == str(min(numbers))
    assert "4111111111111111" not in keys(quickly)


def test_get_names_the_object_and_its_fields(reads: CapturedAudit, ann: Patient) -> None:
    Patient.objects.get(name="Ann")
    record = only(reads)
    assert (record.event_name, record.action, record.outcome) == ("clinic.patient.read", "READ", "success")
    assert str(record.target) == f"clinic.Patient/{ann.pk}"
    assert record.fields == EVERY_FIELD
    assert record.completeness == "full"
    assert record.bulk is None
    assert (record.database.system, record.database.table) == ("sqlite", "clinic_patient")


def test_a_list_is_one_record(reads: CapturedAudit, patients: list[Patient]) -> None:
    list(Patient.objects.order_by("pk"))
    record = only(reads)
    assert str(record.target) == "clinic.Patient"
    assert record.bulk is not None
    assert record.bulk.count == 2
    assert keys(record) == key(*patients)


def test_a_query_that_finds_nothing_is_on_record(reads: CapturedAudit) -> None:
    with pytest.raises(ObjectDoesNotExist):
        Patient.objects.get(name="Carol")
    record = only(reads)
    assert record.bulk is not None
    assert (record.bulk.count, record.completeness) == (0, "full")


def test_only_and_defer_tell_what_was_loaded_and_when(reads: CapturedAudit, ann: Patient) -> None:
    patient = Patient.objects.only("name").get(pk=ann.pk)
    assert only(reads).fields == ["id", "name"]
    reads.clear()
    assert patient.card == "4111"
    record = only(reads)
    assert record.fields == ["card"] or record.fields == ["id", "card"]
    assert keys(record) == key(ann)


def test_values_name_their_fields(reads: CapturedAudit, patients: list[Patient]) -> None:
    assert list(Patient.objects.order_by("pk").values("pk", "email")) == [
        {"pk": patient.pk, "email": patient.email} for patient in patients
    ]
    record = only(reads)
    assert record.fields == ["id", "email"]
    assert keys(record) == key(*patients)


def test_values_without_the_key_name_their_objects_all_the_same(
    reads: CapturedAudit, patients: list[Patient]
) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert list(Patient.objects.order_by("pk").values_list("email", flat=True)) == [
            "ann@example.org",
            "bob@example.org",
        ]
        assert list(Patient.objects.order_by("pk").values_list("email", "name")[:1]) == [
            ("ann@example.org", "Ann")
        ]
        assert list(Patient.objects.order_by("pk").values("name")) == [{"name": "Ann"}, {"name": "Bob"}]
        named: Any = Patient.objects.order_by("pk").values_list("email", named=True).first()
        assert named._fields == ("email",)
        assert [*Patient.objects.order_by("pk").values_list("card").iterator(chunk_size=1)] == [
            ("4111",),
            ("",),
        ]
    assert len(queries) == 5
    emails, first, names, _, cards = seen(reads)
    assert emails.fields == ["email"]
    assert keys(emails) == key(*patients)
    assert first.fields == ["email", "name"]
    assert keys(first) == key(patients[0])
    assert names.fields == ["name"]
    assert keys(cards) == key(*patients)


def test_where_the_key_cannot_be_selected_the_record_says_count(reads: CapturedAudit) -> None:
    assert set(Patient.objects.values_list("ward", flat=True).distinct()) != set()
    record = only(reads)
    assert record.bulk is not None
    assert (record.bulk.count, record.bulk.keys, record.completeness) == (1, [], "count")
    assert record.fields == ["ward"]
    reads.clear()
    assert Patient.objects.values("ward").annotate(most=Max("balance")).get()["most"] == 7
    assert only(reads).completeness == "count"
    assert only(reads).fields == ["ward", "balance"]


def test_annotations_show_the_columns_they_are_made_of(reads: CapturedAudit, ann: Patient) -> None:
    list(
        Patient.objects.filter(pk=ann.pk)
        .annotate(loud=Upper("email"), both=Concat("name", "card"))
        .values_list("loud", "both")
    )
    assert only(reads).fields == ["email", "name", "card"]
    assert keys(only(reads)) == key(ann)


def test_iterator_is_recorded_when_the_rows_were_fetched(
    reads: CapturedAudit, patients: list[Patient]
) -> None:
    rows = Patient.objects.order_by("pk").iterator(chunk_size=1)
    assert seen(reads) == []
    next(rows)
    assert seen(reads) == [], "an intent is on disk, the record waits for the end"
    assert [patient.name for patient in rows] == ["Bob"]
    assert keys(only(reads)) == key(*patients)


def test_an_iterator_left_early_names_what_it_fetched(reads: CapturedAudit, patients: list[Patient]) -> None:
    rows = Patient.objects.order_by("pk").iterator(chunk_size=1)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert keys(only(reads)) in (key(patients[0]), key(*patients))


def test_async_iteration_is_recorded(reads: CapturedAudit, patients: list[Patient]) -> None:
    async def walk() -> list[str]:
        return [patient.name async for patient in Patient.objects.order_by("pk").aiterator(chunk_size=1)]

    assert asyncio.run(walk()) == ["Ann", "Bob"]
    assert keys(only(reads)) == key(*patients)


@pytest.mark.parametrize(
    ("ask", "answer", "kind", "count"),
    [
        (lambda: Patient.objects.all().count(), 2, "count", 2),
        (lambda: Patient.objects.values("ward").distinct().count(), 1, "count", 1),
        (lambda: Patient.objects.filter(name="Ann").exists(), True, "exists", 1),
        (lambda: Patient.objects.filter(name="Carol").exists(), False, "exists", 0),
    ],
)
def test_counting_is_a_read_without_fields(
    reads: CapturedAudit, ask: Any, answer: Any, kind: str, count: int
) -> None:
    assert ask() == answer
    record = only(reads)
    assert record.bulk is not None
    assert (record.bulk.count, record.completeness, record.fields) == (count, "count", [])
    assert record.attributes == {"query": kind}


def test_an_aggregate_says_which_fields_it_was_made_of(reads: CapturedAudit) -> None:
    assert Patient.objects.aggregate(Max("balance"), named=Count("email", distinct=True)) == {
        "balance__max": 7,
        "named": 2,
    }
    record = only(reads)
    assert set(record.fields) == {"balance", "email"}
    assert record.attributes == {"query": "aggregate"}
    assert record.completeness == "statement"
    reads.clear()
    assert Visit.objects.aggregate(most=Max("patient__balance")) == {"most": None}
    record = only(reads)
    assert (str(record.target), record.fields) == ("clinic.Patient", ["balance"])


def test_select_related_is_a_read_of_the_related(reads: CapturedAudit, ann: Patient) -> None:
    Visit.objects.bulk_create([Visit(patient=ann), Visit(patient=ann), Visit(patient=None)])
    assert len(Visit.objects.select_related("patient")) == 3
    record = only(reads)
    assert str(record.target) == f"clinic.Patient/{ann.pk}"
    assert record.fields == EVERY_FIELD
    reads.clear()
    list(Visit.objects.values("note", "patient__email"))
    record = only(reads)
    assert keys(record) == key(ann)
    assert record.fields == ["email"]
    reads.clear()
    list(Visit.objects.values("patient_id", "patient__id"))
    list(Visit.objects.filter(patient__name="Ann").order_by("patient__email"))
    assert seen(reads) == [], "the visit's own column, and a join that shows nothing"


def test_a_model_joined_with_itself_is_one_record(reads: CapturedAudit, patients: list[Patient]) -> None:
    ann, bob = patients
    Patient.objects.select_related("referrer").get(pk=bob.pk)
    assert sorted(keys(only(reads))) == sorted(key(ann, bob))


def test_prefetches_are_queries_of_their_own(reads: CapturedAudit, ann: Patient, bob: Patient) -> None:
    for ward in Ward.objects.prefetch_related(Prefetch("patients", Patient.objects.order_by("pk"))):
        assert len(ward.patients.all()) == 2  # type: ignore[attr-defined]
    assert keys(only(reads)) == key(ann, bob)


def test_a_related_object_is_read_when_it_is_fetched(reads: CapturedAudit, ann: Patient) -> None:
    visit = Visit.objects.create(patient_id=ann.pk)
    visit = Visit.objects.get(pk=visit.pk)
    assert seen(reads) == []
    assert visit.patient is not None
    assert keys(only(reads)) == key(ann)


def test_subqueries_show_what_they_select(reads: CapturedAudit, ann: Patient) -> None:
    Visit.objects.create(patient=ann)
    reads.clear()
    email = Patient.objects.filter(pk=OuterRef("patient")).values("email")[:1]
    assert Visit.objects.annotate(email=Subquery(email)).get().email == "ann@example.org"  # type: ignore[attr-defined]
    record = only(reads)
    assert (str(record.target), record.fields, record.completeness) == ("clinic.Patient", ["email"], "count")
    reads.clear()
    list(Visit.objects.annotate(known=Exists(Patient.objects.filter(pk=OuterRef("patient")))))
    assert seen(reads) == []


def test_raw_queries_are_recorded(reads: CapturedAudit, patients: list[Patient]) -> None:
    assert len(list(Patient.objects.raw("SELECT id, card FROM clinic_patient ORDER BY id"))) == 2
    record = only(reads)
    assert keys(record) == key(*patients)
    assert record.fields == ["id", "card"]
    reads.clear()
    with pytest.raises(OperationalError):
        list(Patient.objects.raw("SELECT nothing FROM clinic_patient"))
    with pytest.raises(FieldDoesNotExist):
        list(Patient.objects.raw("SELECT name FROM clinic_patient"))
    assert seen(reads) == []


def test_unions_name_objects_only_where_all_parts_are_of_one_model(
    reads: CapturedAudit, patients: list[Patient]
) -> None:
    ann, bob = patients
    assert len(Patient.objects.filter(pk=ann.pk).union(Patient.objects.filter(pk=bob.pk))) == 2
    assert sorted(keys(only(reads))) == sorted(key(ann, bob))
    reads.clear()
    both = Ward.objects.values_list("pk", "name").union(Patient.objects.values_list("pk", "name"))
    assert len(both) == 3
    record = only(reads)
    assert record.bulk is not None
    assert (str(record.target), record.bulk.keys, record.completeness) == ("clinic.Patient", [], "count")


def test_in_bulk_dates_first_and_refresh_are_reads(reads: CapturedAudit, ann: Patient) -> None:
    Patient.objects.in_bulk([ann.pk])
    Patient.objects.order_by("name").first()
    ann.refresh_from_db()
    assert [keys(record) for record in seen(reads)] == [key(ann)] * 3


def test_a_proxy_is_its_model_and_a_child_is_itself(instrumented: Instrumented, ann: Patient) -> None:
    inpatient = Inpatient.objects.create(name="Cid", bed=4)
    with instrumented(reads=["clinic.Patient"]) as audit:
        list(PatientOnFile.objects.filter(pk=ann.pk))
        assert str(only(audit).target) == f"clinic.Patient/{ann.pk}"
        audit.clear()
        list(Inpatient.objects.all())
        assert str(only(audit).target) == f"clinic.Patient/{inpatient.pk}", "its columns lie in the parent"
    with instrumented(reads=["clinic.*"]) as audit:
        list(Inpatient.objects.all())
        record = only(audit)
        assert str(record.target) == f"clinic.Inpatient/{inpatient.pk}"
        assert set(record.fields) >= {"card", "bed"}
        audit.clear()
        list(Inpatient.objects.values_list("card", "bed"))
        assert str(only(audit).target) == f"clinic.Inpatient/{inpatient.pk}"
    with instrumented(reads=["clinic.Inpatient"]) as audit:
        list(Inpatient.objects.values_list("card"))
        assert str(only(audit).target) == f"clinic.Inpatient/{inpatient.pk}"
        audit.clear()
        list(Patient.objects.all())
        assert seen(audit) == []


def test_keys_are_written_as_the_application_knows_them(reads: CapturedAudit, ann: Patient) -> None:
    sample = Sample.objects.create(result="negative")
    Dose.objects.create(patient=ann, number=2, drug="x")
    reads.clear()
    Sample.objects.get()
    assert keys(only(reads)) == [str(sample.pk)]
    reads.clear()
    list(Dose.objects.all())
    list(Dose.objects.values_list("drug"))
    list(Dose.objects.values_list("pk", "drug"))
    assert [keys(record) for record in seen(reads)] == [[f"[{ann.pk},2]"]] * 3


def test_more_objects_than_the_limit_are_counted(instrumented: Instrumented, clinic: None) -> None:
    Patient.objects.bulk_create([Patient(name=f"p{n}") for n in range(250)])
    with instrumented(reads=["clinic.Patient"], max_read_ids=100) as audit:
        list(Patient.objects.all())
        list(Patient.objects.iterator(chunk_size=30))
        list(Patient.objects.raw("SELECT * FROM clinic_patient"))
        list(Patient.objects.all()[:100])
        *large, exact = seen(audit)
    for record in large:
        assert record.bulk is not None
        assert (record.bulk.count, len(record.bulk.keys), record.completeness) == (250, 100, "count")
    assert exact.bulk is not None
    assert (exact.bulk.count, len(exact.bulk.keys), exact.completeness) == (100, 100, "full")


# --- what is not -----------------------------------------------------------------------------------


def test_other_models_are_not_recorded(reads: CapturedAudit, patients: list[Patient]) -> None:
    list(Ward.objects.all())
    Ward.objects.count()
    list(Ward.objects.annotate(beds=Count("patients")))
    assert [record.fields for record in seen(reads)] in ([], [["id"]])


def test_what_a_query_of_another_model_shows_is_not_worked_out(
    reads: CapturedAudit, patients: list[Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it can be sensitive: it pays for one look at its tables, however it is asked."""
    planned: list[Any] = []
    for name in ("row_readings", "aggregate_readings", "missing_keys"):
        plain = getattr(wrappers, name)

        def plan(query: Any, *args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
            planned.append(query)
            return _plain(query, *args, **kwargs)

        monkeypatch.setattr(wrappers, name, plan)
    list(Ward.objects.all())
    list(Ward.objects.values("name").annotate(length=Length("name")))
    list(Visit.objects.values_list("note", flat=True).distinct())
    Ward.objects.count()
    Ward.objects.filter(name="north").exists()
    Ward.objects.aggregate(Max("name"))
    Visit.objects.distinct()[:3].count()
    assert planned == []
    Patient.objects.count()
    list(Visit.objects.values("note", patient_name=F("patient__name")))
    list(Ward.objects.annotate(first=Subquery(Patient.objects.values("name")[:1])))
    list(Ward.objects.filter(name="x").values_list("name").union(Patient.objects.values_list("name")))
    assert len(planned) >= 4
    assert len(seen(reads)) == 4


def test_a_query_the_database_is_not_asked_is_none(reads: CapturedAudit) -> None:
    assert list(Patient.objects.none()) == []
    assert list(Patient.objects.filter(pk__in=[])) == []
    assert list(Patient.objects.filter(pk__in=[]).values_list("name")) == []
    assert seen(reads) == []


def test_writing_is_not_reading(reads: CapturedAudit, patients: list[Patient]) -> None:
    ann, bob = patients
    ann.name = "Anna"
    ann.save()
    Patient.objects.filter(ward__name="north").update(balance=F("balance") + 1)
    Patient.objects.bulk_create([Patient(name="Carol")])
    Tag.objects.create(name="vip").patient_set.add(ann)  # type: ignore[attr-defined]
    bob.delete()
    assert seen(reads) == []
    Ward.objects.all().delete()
    assert seen(reads) == [], "the patients of the ward were loaded to be deleted"


def test_what_the_admin_shows_before_it_deletes_is_a_read(reads: CapturedAudit, ann: Patient) -> None:
    User.objects.create_superuser("alice", "", "x")
    client = Client()
    client.login(username="alice", password="x")
    reads.clear()
    assert client.get(f"/admin/clinic/patient/{ann.pk}/delete/").status_code == 200
    assert all(record.actor.name == "alice" for record in seen(reads))
    assert key(ann) in [keys(record) for record in seen(reads)]


def test_single_models_can_be_switched_on_and_off(instrumented: Instrumented, ann: Patient) -> None:
    with instrumented(model={"clinic.Patient": ModelConfig(reads=True)}) as audit:
        Patient.objects.get(pk=ann.pk)
        assert len(seen(audit)) == 1
    with instrumented(reads=["clinic.*"], model={"clinic.Patient": ModelConfig(reads=False)}) as audit:
        Patient.objects.get(pk=ann.pk)
        assert seen(audit) == []


# --- how it is recorded ------------------------------------------------------------------------------


def test_a_read_does_not_wait_for_the_commit(reads: CapturedAudit, ann: Patient) -> None:
    with transaction.atomic():
        Patient.objects.get(pk=ann.pk)
        assert only(reads).outcome == "success"
        transaction.set_rollback(True)
    assert only(reads).outcome == "success", "what was read was read"


def test_a_page_that_shows_a_patient_is_on_record(reads: CapturedAudit, ann: Patient) -> None:
    Client().get(f"/patients/{ann.pk}/")
    record = only(reads)
    assert keys(record) == key(ann)
    assert record.request.route == "patients/<int:pk>/"


def test_no_query_is_added(reads: CapturedAudit, ann: Patient) -> None:
    with CaptureQueriesContext(connection) as queries:
        Patient.objects.get(pk=ann.pk)
        list(Patient.objects.values_list("email"))
        list(Patient.objects.all().iterator())
    assert len(queries) == 3


def test_explain_and_errors_are_no_reads(reads: CapturedAudit) -> None:
    assert Patient.objects.explain()
    with pytest.raises(OperationalError):
        list(Patient.objects.extra(where=["nonsense"]))
    with pytest.raises(OperationalError):
        list(Patient.objects.extra(where=["nonsense"]).values_list("name"))
    assert seen(reads) == []


def test_a_record_that_cannot_be_kept_withholds_the_rows_if_told_to(
    instrumented: Instrumented, ann: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_audit.errors import SpoolError

    def full(*args: Any, **kwargs: Any) -> None:
        raise SpoolError("disk full")

    for policy in ("fail_open", "fail_closed"):
        with instrumented(config={"on_error": policy}, reads=["clinic.Patient"]) as audit:
            monkeypatch.setattr(audit.pipeline.spool, "append", full)
            if policy == "fail_open":
                assert Patient.objects.get(pk=ann.pk).name == "Ann"
            else:
                with pytest.raises(SpoolError, match="disk full"):
                    Patient.objects.get(pk=ann.pk)


def test_django_is_as_it_was_afterwards(instrumented: Instrumented) -> None:
    from django.db.models.deletion import Collector
    from django.db.models.query import RawModelIterable
    from django.db.models.sql import compiler

    classes: list[Any] = [
        Collector,
        RawModelIterable,
        compiler.SQLCompiler,
        compiler.SQLUpdateCompiler,
        Patient,
    ]
    before = [dict(vars(item)) for item in classes]
    with instrumented(reads=["clinic.*"]):
        assert [dict(vars(item)) for item in classes] != before
    assert [dict(vars(item)) for item in classes] == before


def test_a_reader_that_is_killed_leaves_what_it_had_begun(
    instrumented: Instrumented, patients: list[Patient]
) -> None:
    """The intent is on disk before the first row: whoever adopts the spool ships it as ``unknown``."""
    with instrumented(reads=["clinic.Patient"]) as audit:
        rows = Patient.objects.order_by("pk").iterator(chunk_size=1)
        next(rows)
        content = b"".join(
            path.read_bytes() for path in Path(audit.pipeline.directory).rglob("*") if path.is_file()
        )
        assert b"clinic.patient.read" in content
        assert seen(audit) == []
        rows.close()  # type: ignore[attr-defined]


def test_a_hook_that_reads_is_not_recorded_for_ever(
    reads: CapturedAudit, ann: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks run while a record is made; what they ask for is our doing, not the application's."""

    def with_balance(record: AuditRecord) -> AuditRecord:
        Patient.objects.count()
        Patient.objects.get(pk=ann.pk)
        return record

    monkeypatch.setattr(reads.pipeline.logger, "_hooks", (with_balance,))
    list(Patient.objects.all())
    Patient.objects.count()
    assert len(seen(reads)) == 2


@pytest.mark.parametrize(
    "broken", ["row_readings", "aggregate_readings", "missing_keys", "Tally", "key_readers"]
)
def test_a_fault_of_ours_costs_the_record_only(
    reads: CapturedAudit, ann: Patient, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    from otel_audit.instrumentation.django.reads import wrappers as module

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("our fault")

    def ask() -> list[Any]:
        return [
            [patient.name for patient in Patient.objects.order_by("pk")],
            list(Patient.objects.order_by("pk").values_list("email")),
            [*Patient.objects.order_by("pk").values("card").iterator()],
            Patient.objects.count(),
            Patient.objects.filter(name="Ann").exists(),
        ]

    expected = ask()
    monkeypatch.setattr(module, broken, fail)
    assert ask() == expected
    assert reads.pipeline.health.capture_failures["read"] > 0


SHAPES: dict[str, Any] = {
    "all": Patient.objects.all,
    "filtered": lambda: Patient.objects.filter(ward__name="north", visits__note="").order_by("email"),
    "distinct": lambda: Patient.objects.filter(tags__name="x").distinct(),
    "sliced": lambda: Patient.objects.all()[:1],
    "a proxy": PatientOnFile.objects.all,
    "a child": Inpatient.objects.all,
    "a key that is not first": Sample.objects.all,
    "a composite key": Dose.objects.all,
    "deferred": lambda: Patient.objects.defer("email"),
    "only": lambda: Patient.objects.only("email"),
    "deferred and annotated": lambda: Patient.objects.defer("email").annotate(loud=Upper("email")),
    "annotated": lambda: Patient.objects.annotate(loud=Upper("email")),
    "counted": lambda: Patient.objects.annotate(visited=Count("visits")),
    "extra": lambda: Patient.objects.defer("email").extra(select={"one": "1"}),
    "joined": lambda: Patient.objects.select_related("referrer"),
    "joined, other columns left out": lambda: Patient.objects.select_related("ward").defer(
        "name", "ward__name"
    ),
    "values": Patient.objects.values,
    "values of a few": lambda: Patient.objects.values_list("email", "pk"),
    "a union": lambda: Patient.objects.filter(pk=1).union(Patient.objects.filter(pk=2)),
    "not sensitive": Ward.objects.all,
    "a subquery": lambda: Patient.objects.filter(pk__in=Patient.objects.filter(balance=3)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_of_all_columns_is_read_at_one_look(reads: CapturedAudit, shape: str) -> None:
    """As it is column by column."""
    compiler = SHAPES[shape]().query.get_compiler("default")
    compiler.as_sql()

    def is_sensitive(model: Any) -> bool:
        return model is not Ward

    quickly = plan.row_readings(compiler, is_sensitive)
    with patch.object(plan, "_whole_row", lambda *_: None):
        assert quickly == plan.row_readings(compiler, is_sensitive)


def test_most_queries_are_read_at_one_look(reads: CapturedAudit) -> None:
    with patch.object(plan, "_Groups", side_effect=AssertionError("column by column")):
        for shape in ("all", "filtered", "sliced", "a proxy", "a key that is not first", "a subquery"):
            list(SHAPES[shape]())
    assert len(seen(reads)) == 6
