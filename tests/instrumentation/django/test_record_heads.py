"""Transactions of many threads and users: each record says what it would say had it been made alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from otel_audit.audit_context import context
from otel_audit.audit_record import AuditRecord
from otel_audit.capture.transactions.transaction_buffer import TransactionBuffer
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.lone_records import LoneRecords
from otel_audit.pipeline.record_heads import EncodedRecord, RecordHeads, whole

if TYPE_CHECKING:
    from tests.instrumentation.django.project import Instrumented

THREADS = 8
USERS = 50
WRITES = 2


def write(*said: object) -> None:
    """Write rows that say who writes them, and from where."""
    from tests.instrumentation.django.clinic.models import Tag, Ward

    name = "|".join(map(str, said))
    for _ in range(WRITES):
        Ward.objects.create(name=name)
        Tag.objects.create(name=name)
    for ward in Ward.objects.filter(name=name)[:WRITES]:
        ward.name = f"{name}|again"
        ward.save()


def work(request: HttpRequest, number: int) -> HttpResponse:
    """Write as a user, within contexts, as another user after a login, and in the name of a third."""
    first, second = request.user.pk, User.objects.get(username=request.GET["then"])
    path = request.path
    with transaction.atomic():
        write(first, "", "", path)
        with context(reason=f"reason {number}", tenant="a"):
            write(first, f"reason {number}", "a", path)
            with context(tenant="b"):
                write(first, f"reason {number}", "b", path)
            write(first, f"reason {number}", "a", path)
        login(request, second)
        write(second.pk, "", "", path)
        with context(actor=f"job {number}"):
            write(f"job {number}", "", "", path)
        write(second.pk, "", "", path)
    write(second.pk, "", "", path)  # in autocommit, each by itself
    with context(reason=f"reason {number}", tenant="a"):
        write(second.pk, f"reason {number}", "a", path)
    return HttpResponse("ok")


urlpatterns = [path("work/<int:number>/", work)]


def comparable(record: AuditRecord) -> AuditRecord:
    return msgspec.structs.replace(record, id="", observed_timestamp=0)


@override_settings(ROOT_URLCONF=__name__)
def test_threads_and_users_never_get_each_others_heads(instrumented: Instrumented) -> None:
    """Logins and nested contexts inside transactions, of eight threads and fifty users."""
    users = [User.objects.create_user(f"user{number}") for number in range(USERS)]
    clients = []
    for user in users:
        client = Client()
        client.force_login(user)
        clients.append(client)
    failures: list[object] = []
    encoded: list[int] = []
    this = threading.local()
    build, heads, lone = TransactionBuffer._build, AuditLogger.heads, AuditLogger.lone_records

    def build_twice(self: TransactionBuffer, *args: Any, **options: Any) -> Any:
        built = build(self, *args, **options)
        this.alone = True
        alone = build(self, *args, **options)
        this.alone = False
        encoded.append(sum(type(record) is EncodedRecord for record, _ in built))
        for (one, _), (other, _) in zip(built, alone, strict=True):
            if comparable(whole(one)) != comparable(whole(other)):
                failures.append((whole(one), whole(other)))
        return built

    def no_heads(self: AuditLogger) -> RecordHeads | None:
        return None if getattr(this, "alone", False) else heads(self)

    def none_lone(self: AuditLogger) -> LoneRecords | None:
        return None if getattr(this, "alone", False) else lone(self)

    def run(thread: int) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA busy_timeout = 120000")
            for number in range(thread, USERS, THREADS):
                then = users[(number + 1) % USERS].username
                answer = clients[number].get(f"/work/{number}/", {"then": then})
                if answer.status_code != 200:
                    failures.append(answer.status_code)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)
        finally:
            connections.close_all()

    with (
        instrumented(models=["clinic.Ward", "clinic.Tag"]) as audit,
        patch.object(TransactionBuffer, "_build", build_twice),
        patch.object(AuditLogger, "heads", no_heads),
        patch.object(AuditLogger, "lone_records", none_lone),
    ):
        threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records = [record for record in audit if record.event_name.startswith("clinic.")]
    assert not failures
    assert len(records) == USERS * 9 * 3 * WRITES
    assert sum(encoded) > len(records) // 2
    assert encoded.count(1) > USERS * 2 * 3 * WRITES // 2
    for record in records:
        [name] = [change.new for change in record.changes if change.field == "name"]
        said = str(name).split("|")[:4]
        assert said == [record.actor.id, record.reason, record.tenant, record.request.path]
