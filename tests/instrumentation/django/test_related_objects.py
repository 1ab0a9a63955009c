"""Objects of Django that the application names as related, in blocks over its writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

import otel_audit
from otel_audit.targets import target_of

if TYPE_CHECKING:
    from tests.instrumentation.django.project import Instrumented


def test_single_bulk_and_raw_writes_of_a_block_name_the_same_objects(
    clinic: None, instrumented: Instrumented
) -> None:
    from tests.instrumentation.django.clinic.models import Tag, Ward

    ward = Ward.objects.create(name="north")
    with instrumented(models=["clinic.Tag"]) as audit, otel_audit.context(related=ward, slug="tidy"):
        Tag.objects.create(name="one")
        with transaction.atomic():
            Tag.objects.create(name="two")
            Tag.objects.create(name="three")
        Tag.objects.filter(name="two").update(name="2")
        Tag.objects.all().delete()
    inside = [record for record in audit.records if record.target and record.target.type == "clinic.Tag"]
    assert len(inside) >= 5
    assert {(record.slug, str(*record.related)) for record in inside} == {("tidy", f"clinic.Ward/{ward.pk}")}


def test_naming_an_object_asks_the_database_nothing(clinic: None) -> None:
    from tests.instrumentation.django.clinic.models import Ward

    key = Ward.objects.create(name="north").pk
    deferred = Ward.objects.defer("name").get()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert str(target_of(deferred)) == f"clinic.Ward/{key}"
        assert target_of(Ward(name="unsaved")) is None
    assert len(queries) == 0
