"""Fields that store the same value differently each time: what changed is told, never what it was."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.db.models import F
from django.test.utils import isolate_apps
from msgspec import UNSET

from otel_audit.config.model import ModelConfig
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing

calls: list[str] = []


def lock(value: str) -> str:
    calls.append("lock")
    vector = os.urandom(8)
    mixed = bytes(a ^ vector[i % 8] for i, a in enumerate(value.encode()))
    return base64.b64encode(vector + mixed).decode()


def unlock(text: str) -> str:
    data = base64.b64decode(text)
    return bytes(a ^ data[i % 8] for i, a in enumerate(data[8:])).decode()


class Reopened(models.TextField):  # type: ignore[type-arg]
    """Locked when it is prepared, opened when it is loaded."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else lock(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else unlock(value)


class InBinary(models.BinaryField):  # type: ignore[type-arg]
    """Locked at the last step, with effects, into bytes."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, str):
            value = lock(value).encode()
        return super().get_db_prep_save(value, connection)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else unlock(bytes(value).decode())


class Box:
    """What a locked value is loaded as: without equality, without a text."""

    def __init__(self, inner: str) -> None:
        self.inner = inner


class Boxed(models.TextField):  # type: ignore[type-arg]
    """Values are objects of a class of its own."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else lock(value.inner)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Box(unlock(value))

    def to_python(self, value: Any) -> Any:
        return value


class _OpenedOnAccess:
    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name]
        return unlock(value[1:]) if isinstance(value, str) and value.startswith("$") else value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.name] = value


class Lazily(models.TextField):  # type: ignore[type-arg]
    """Loaded as it is stored, opened when it is looked at."""

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, _OpenedOnAccess(self.attname))

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else "$" + lock(value)


class Salted(models.TextField):  # type: ignore[type-arg]
    """Stored as a hash nobody can take back."""

    def get_prep_value(self, value: Any) -> Any:
        calls.append("hash")
        if value is None or value.startswith("salted:"):
            return value
        salt = uuid.uuid4().hex
        return f"salted:{salt}:{hashlib.sha256((salt + value).encode()).hexdigest()}"


class _Machine:
    """Has no word for what it does."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def turn(self, value: str) -> str:
        self.count += 1
        calls.append("turn")
        return f"{self.count:08}{value[::-1]}"


class Turned(models.TextField):  # type: ignore[type-arg]
    """Known by nothing but what it does."""

    machine = _Machine()

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else self.machine.turn(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value[8:][::-1]


KINDS: dict[str, type[models.Field[Any, Any]]] = {
    "reopened": Reopened,
    "in binary": InBinary,
    "boxed": Boxed,
    "lazily": Lazily,
    "salted": Salted,
    "turned": Turned,
}


def _fernet() -> type[models.Field[Any, Any]]:
    from cryptography.fernet import Fernet

    key = Fernet(Fernet.generate_key())

    class Protected(models.TextField):  # type: ignore[type-arg]
        def get_db_prep_save(self, value: Any, connection: Any) -> Any:
            if not isinstance(value, str):
                return super().get_db_prep_save(value, connection)
            calls.append("fernet")
            return key.encrypt(value.encode()).decode()

        def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
            return None if value is None else key.decrypt(value.encode()).decode()

    return Protected


KINDS["fernet"] = _fernet()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model(kind: str, table: str) -> Any:
    class Note(models.Model):
        id = models.IntegerField(primary_key=True)
        name = models.CharField(max_length=20, default="a")
        body = KINDS[kind](null=True)

        class Meta:
            app_label = "warehouse"
            db_table = table

    with connection.schema_editor() as editor:
        editor.create_model(Note)
    return Note


def drop(*made: Any) -> None:
    with connection.schema_editor() as editor:
        for each in made:
            editor.delete_model(each)


@pytest.fixture
def audit(vendor: str) -> Iterator[CapturedAudit]:
    with isolate_apps("tests.instrumentation.django.warehouse"), auditing() as captured:
        yield captured


@pytest.fixture
def note(audit: CapturedAudit, kind: str) -> Iterator[Any]:
    """A model with such a field, and its table on each database in turn."""
    made = model(kind, "unrepeatable_note")
    try:
        yield made
    finally:
        drop(made)


def value(kind: str, text: str) -> Any:
    return Box(text) if kind == "boxed" else text


def changes(audit: CapturedAudit) -> list[tuple[str, Any, Any]]:
    found = [(change.field, change.old, change.new) for record in audit for change in record.changes]
    audit.clear()
    return found


MASKED = ("body", "[redacted]", "[redacted]")
SECRETS = ("swordfish", "mackerel", "herring")


def stored() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM unrepeatable_note WHERE body IS NOT NULL")
        return [
            bytes(row[0]).decode() if not isinstance(row[0], str) else row[0] for row in cursor.fetchall()
        ]


def assert_nothing_told(audit: CapturedAudit) -> None:
    text = str(audit.records)
    for secret in (*SECRETS, *stored(), "hmac:"):
        assert secret not in text


def settle(note: Any, kind: str) -> None:
    """Let a field that nothing but its work gives away prepare a value twice."""
    if kind == "turned":
        one = note(id=99, body="x")
        one.save()
        one.save()
        one.delete()


def test_each_way_of_writing_tells_that_it_changed_and_not_what(
    note: Any, kind: str, audit: CapturedAudit
) -> None:
    settle(note, kind)
    audit.clear()
    one = note.objects.create(id=1, body=value(kind, SECRETS[0]))
    assert ("body", UNSET, "[redacted]") in changes(audit)
    one.body = value(kind, SECRETS[1])
    one.save()
    assert_nothing_told(audit)
    assert changes(audit) == [MASKED]
    one = note.objects.get()
    one.body = value(kind, SECRETS[2])
    with transaction.atomic():
        one.save(update_fields=["body"])
    assert_nothing_told(audit)
    assert changes(audit) == [MASKED]
    note.objects.filter(id=1).update(body=value(kind, SECRETS[0]))
    assert_nothing_told(audit)
    assert changes(audit) == [MASKED]
    one.body = value(kind, SECRETS[1])
    note.objects.bulk_update([one], ["body"])
    assert_nothing_told(audit)
    assert changes(audit) == [MASKED]
    note.objects.bulk_create([note(id=n, body=value(kind, SECRETS[0])) for n in (2, 3)])
    assert_nothing_told(audit)
    audit.clear()
    note.objects.update(body=None)
    note.objects.bulk_create(
        [note(id=n, body=value(kind, SECRETS[n - 2])) for n in (3, 4)],
        update_conflicts=True,
        unique_fields=None if connection.vendor == "mysql" else ["id"],
        update_fields=["body"],
    )
    assert_nothing_told(audit)
    before = stored()
    note.objects.all().delete()
    assert not any(text in str(audit.records) for text in before)


def _refreshed(one: Any, **how: Any) -> Any:
    one.refresh_from_db(**how)
    return one


def _stale(note: Any) -> Any:
    one = note.objects.get(id=1)
    note.objects.filter(id=1).update(name="b")
    one.name = "b"
    return one


READ: dict[str, Callable[[Any], Any]] = {
    "created": lambda note: note.objects.get_or_create(id=1)[0],
    "loaded": lambda note: note.objects.get(id=1),
    "loaded in part": lambda note: note.objects.only("body").get(id=1),
    "raw": lambda note: note.objects.raw("SELECT * FROM unrepeatable_note WHERE id = 1")[0],
    "refreshed": lambda note: _refreshed(note.objects.get(id=1)),
    "refreshed in part": lambda note: _refreshed(note.objects.get(id=1), fields=["body"]),
    "stale": _stale,
}


@pytest.mark.parametrize("way", READ)
def test_a_save_that_did_not_touch_it_makes_no_record(
    note: Any, kind: str, way: str, audit: CapturedAudit
) -> None:
    note.objects.create(id=1, body=value(kind, SECRETS[0]))
    settle(note, kind)
    one = READ[way](note)
    audit.clear()
    one.save()
    one.save()
    with transaction.atomic():
        one.save()
    assert changes(audit) == []
    one.name = "c"
    one.save()
    assert [field for field, _, _ in changes(audit)] == ["name"]


def test_a_new_instance_is_compared_with_what_was_set(note: Any, kind: str, audit: CapturedAudit) -> None:
    settle(note, kind)
    one = note(id=1, body=value(kind, SECRETS[0]))
    one.save()
    audit.clear()
    one.save()
    assert changes(audit) == []
    one.body = value(kind, SECRETS[1])
    one.save()
    assert changes(audit) == [MASKED]
    one.body = None
    one.save()
    assert changes(audit) == [("body", "[redacted]", None)]


def test_the_field_prepares_each_value_as_often_as_without_audit(vendor: str, kind: str) -> None:
    def prepared() -> int:
        with isolate_apps("tests.instrumentation.django.warehouse"):
            note = model(kind, "unrepeatable_note")
            try:
                del calls[:]
                one = note.objects.create(id=1, body=value(kind, SECRETS[0]))
                one.save()
                one = note.objects.get(id=1)
                one.save()
                one.body = value(kind, SECRETS[1])
                one.save(update_fields=["body"])
                note.objects.filter(id=1).update(body=value(kind, SECRETS[2]))
                note.objects.bulk_update([one], ["body"])
                note.objects.filter(id=1).update(name=F("name"))
                note.objects.filter(id=1).delete()
                return len(calls)
            finally:
                drop(note)

    plain = prepared()
    with auditing():
        assert prepared() == plain > 0


def test_what_nothing_gives_away_is_known_once_the_same_value_was_stored_differently(
    vendor: str, caplog: pytest.LogCaptureFixture
) -> None:
    with isolate_apps("tests.instrumentation.django.warehouse"):

        class Plain(models.Model):
            id = models.IntegerField(primary_key=True)
            body = Turned(null=True)
            other = Turned(null=True)
            third = Turned(null=True)

            class Meta:
                app_label = "warehouse"
                db_table = "unrepeatable_note"

        with connection.schema_editor() as editor:
            editor.create_model(Plain)
        strategies = ModelConfig(fields={"other": "keep"}, encrypted=["third"])
        try:
            with auditing(model={"*.Plain": strategies}) as audit:
                one = Plain.objects.create(id=1, body="swordfish", other="mackerel", third="herring")
                told = {change.field: change.new for change in audit.one().changes}
                assert told == {"body": "swordfish", "other": "mackerel", "third": "[redacted]"}
                audit.clear()
                one.save()
                assert changes(audit) == []
                one.body, one.other, one.third = "a", "b", "c"
                one.save()
                assert changes(audit) == [
                    MASKED,
                    ("other", "mackerel", "b"),
                    ("third", "[redacted]", "[redacted]"),
                ]
            assert [record.args for record in caplog.records if "differently" in record.message] == [
                (Plain._meta.get_field("body"),)
            ]
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Plain)
