"""Reads on PostgreSQL and MariaDB: server-side cursors, columns added behind the query's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Window
from django.db.models.functions import RowNumber

from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.clinic.models import Dose, Patient, Sample, Ward
from tests.instrumentation.django.project import Instrumented
from tests.instrumentation.django.test_reads import keys, only, seen
from tests.instrumentation.django.warehouse.databases import default_database


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A database on a server, with the clinic's tables."""
    server: Any = request.getfixturevalue(f"{request.param}_server")
    with server.database() as name:
        settings = server.django(name)
        with default_database(settings):
            call_command("migrate", run_syncdb=True, verbosity=0)
        yield settings


@pytest.fixture
def reads(database: dict[str, Any], instrumented: Instrumented) -> Iterator[CapturedAudit]:
    """250 patients on a server, reads recorded."""
    with default_database(database):
        for model in (Sample, Dose, Patient, Ward):
            model._default_manager.all().delete()
        ward = Ward.objects.create(name="north")
        Patient.objects.bulk_create([Patient(name=f"p{n:03}", email=f"e{n}", ward=ward) for n in range(250)])
        with instrumented(reads=["clinic.Patient", "clinic.Sample", "clinic.Dose"]) as audit:
            yield audit


def test_every_way_of_reading_names_its_objects(reads: CapturedAudit) -> None:
    everyone = [str(patient.pk) for patient in Patient.objects.order_by("name")]
    assert keys(only(reads)) == everyone
    reads.clear()
    with transaction.atomic():
        assert len(list(Patient.objects.order_by("name").iterator(chunk_size=40))) == 250
        assert len(list(Patient.objects.order_by("name").values_list("email").iterator(chunk_size=40))) == 250
        assert len(Patient.objects.select_for_update().order_by("name")) == 250
    emails = [*Patient.objects.order_by("name").values_list("email", flat=True)]
    assert emails[:2] == ["e0", "e1"]
    assert all(len(row) == 2 for row in Patient.objects.order_by("name").values_list("name", "email"))
    list(Patient.objects.raw("SELECT * FROM clinic_patient ORDER BY name"))
    numbered = Patient.objects.annotate(n=Window(RowNumber(), order_by="name")).order_by("name")
    assert [row["n"] for row in numbered.values("n")][:2] == [1, 2]
    found = seen(reads)
    assert len(found) == 7
    for record in found:
        assert keys(record) == everyone, record.fields
        assert record.completeness == "full"
        assert record.database.system == {"postgresql": "postgresql", "mysql": "mariadb"}[connection.vendor]


def test_a_server_side_cursor_left_early_names_what_was_fetched(reads: CapturedAudit) -> None:
    first = str(Patient.objects.order_by("name").values_list("pk", flat=True)[0])
    reads.clear()
    rows: Any = Patient.objects.order_by("name").iterator(chunk_size=10)
    next(rows)
    rows.close()
    fetched = keys(only(reads))
    assert fetched[0] == first
    assert len(fetched) in (10, 250), "MariaDB hands over everything at once"


def test_keys_of_every_kind_are_the_applications(reads: CapturedAudit) -> None:
    sample = Sample.objects.create(result="negative")
    patient = Patient.objects.order_by("name")[0]
    Dose.objects.create(patient=patient, number=2, drug="x")
    reads.clear()
    list(Sample.objects.values_list("result"))
    list(Dose.objects.values_list("drug"))
    assert [keys(record) for record in seen(reads)] == [[str(sample.pk)], [f"[{patient.pk},2]"]]
