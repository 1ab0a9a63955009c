"""G5: the key of a session or token never reaches spool, wire or span, however its row is written or read."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_audit
from otel_audit.audit_record import Bulk, Change, Target
from otel_audit.config.model import (
    AuditConfig,
    DjangoConfig,
    ModelConfig,
    RedactionConfig,
    SinkConfig,
    SpanEventConfig,
    SpoolConfig,
)
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from otel_audit.pipeline.provider import AuditPipeline
from tests.promises.test_g5_redacted_at_birth import Sink, spool_bytes

pytest_plugins = ["tests.instrumentation.django.project"]

LATER = datetime(2100, 1, 1, tzinfo=UTC)
CANARY = "canary-in-the-vault"


class Trail:
    """Everything the vault leaves behind: the spool's bytes, the sink's, and the events of spans."""

    def __init__(self, directory: Path, pipeline: AuditPipeline, port: int) -> None:
        self._directory = directory
        self.pipeline = pipeline
        self._port = port
        self._spans = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = provider.get_tracer("tests")

    def contents(self) -> dict[str, bytes]:
        """Return what was left, by where; the sink is down until all of it was in the spool."""
        spool = spool_bytes(self._directory)
        sink = Sink(self._port)
        try:
            assert self.pipeline.flush(30)
        finally:
            sink.close()
        events = [
            [event.name, dict(event.attributes or {})]
            for span in self._spans.get_finished_spans()
            for event in span.events
        ]
        return {
            "spool": spool,
            "wire": sink.received,
            "span events": json.dumps(events, default=str).encode(),
        }


@pytest.fixture
def trail(tmp_path: Path, clinic: None) -> Iterator[Trail]:
    sink = Sink()
    sink.close()
    config = AuditConfig(
        django=DjangoConfig(
            models=["vault.*", "sessions.*", "authtoken.*", "auth.User"],
            reads=["vault.*", "sessions.*", "authtoken.*"],
            model={"vault.Voucher": ModelConfig(fields={"code": "hmac"})},
        ),
        redaction=RedactionConfig(hmac_key="sixteen letters!"),
        spool=SpoolConfig(directory=str(tmp_path)),
        sink=SinkConfig(endpoint=f"{sink.url}/v1/audit", compression="none", max_backoff=0.1),
        span_event=SpanEventConfig(content="full"),
    )
    pipeline = otel_audit.setup(config, instrument=False)
    assert pipeline is not None
    DjangoAuditInstrumentor().instrument()
    yield Trail(tmp_path, pipeline, sink.port)
    DjangoAuditInstrumentor().uninstrument()
    otel_audit.shutdown()


class Keys:
    """New secrets each time, and where to look for each."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def text(self) -> str:
        self.all.append(uuid.uuid4().hex + "q7x")
        return self.all[-1]

    def uuid(self) -> uuid.UUID:
        value = uuid.uuid4()
        self.all += [str(value), value.hex]
        return value


def rows(keys: Keys) -> dict[str, Callable[[], Any]]:
    """Return a maker of an unsaved row for each model with a secret key."""
    from django.contrib.auth.models import User
    from django.contrib.sessions.models import Session
    from rest_framework.authtoken.models import Token

    from tests.instrumentation.django.vault import models as vault

    def user() -> Any:
        return User.objects.create(username=uuid.uuid4().hex)

    return {
        "session": lambda: Session(session_key=keys.text()[:35], session_data=CANARY, expire_date=LATER),
        "drf token": lambda: Token(key=keys.text()[:35], user=user()),
        "knox": lambda: vault.AuthToken(digest=keys.text(), label=CANARY),
        "uuid": lambda: vault.Invitation(token=keys.uuid(), label=CANARY),
        "link": lambda: vault.MagicLink(id=keys.uuid(), label=CANARY),
        "configured": lambda: vault.Voucher(code=keys.text()[:12], label=CANARY),
        "child": lambda: vault.SignedInvitation(token=keys.uuid(), signer=CANARY),
    }


KINDS = ["session", "drf token", "knox", "uuid", "link", "configured", "child"]


def change(instance: Any) -> dict[str, Any]:
    """Return one field of a row with another value."""
    for name, value in (
        ("session_data", "x"),
        ("label", "x"),
        ("created", datetime(2020, 1, 1, tzinfo=UTC)),
    ):
        if hasattr(instance, name):
            return {name: value}
    raise AssertionError(instance)


def saved(instance: Any) -> None:
    instance.save(force_insert=True)


def saved_and_changed(instance: Any) -> None:
    saved(instance)
    for name, value in change(instance).items():
        setattr(instance, name, value)
    instance.save()


def made_in_bulk(instance: Any, other: Any) -> None:
    if len(type(instance)._meta.parents) == 0:
        type(instance)._default_manager.bulk_create([instance, other])


def updated_in_bulk(instance: Any, other: Any) -> None:
    saved(instance), saved(other)
    type(instance)._default_manager.filter(pk__in=[instance.pk, other.pk]).update(**change(instance))
    for each in (instance, other):
        for name, value in change(each).items():
            setattr(each, name, None if name == "nothing" else value)
    type(instance)._default_manager.bulk_update([instance, other], list(change(instance)))


def deleted(instance: Any, other: Any) -> None:
    saved(instance), saved(other)
    instance.delete()
    type(instance)._default_manager.filter(pk=other.pk).delete()


def deleted_together(instance: Any, other: Any) -> None:
    saved(instance), saved(other)
    type(instance)._default_manager.filter(pk__in=[instance.pk, other.pk]).delete()


def read(instance: Any, other: Any) -> None:
    saved(instance), saved(other)
    objects = type(instance)._default_manager
    objects.get(pk=instance.pk)
    list(objects.filter(pk__in=[instance.pk, other.pk]))
    list(objects.filter(pk__in=[instance.pk, other.pk]).values_list("pk"))
    list(objects.filter(pk__in=[instance.pk, other.pk]).iterator())
    list(objects.raw(f"SELECT * FROM {type(instance)._meta.db_table}"))


def undone(instance: Any, other: Any) -> None:
    from django.db import transaction

    with suppress(LookupError), transaction.atomic():
        saved(instance), saved(other)
        instance.delete()
        raise LookupError


def refused(instance: Any, other: Any) -> None:
    """An error of the database names the key that is there already."""
    from django.db import IntegrityError

    saved(instance)
    with pytest.raises(IntegrityError):
        saved(instance)


WAYS = [
    lambda one, two: saved(one),
    lambda one, two: saved_and_changed(one),
    made_in_bulk,
    updated_in_bulk,
    deleted,
    deleted_together,
    read,
    undone,
    refused,
]


def assert_none_left(trail: Trail, keys: Keys) -> None:
    assert keys.all
    contents = trail.contents()
    for where, content in contents.items():
        assert b"vault" in content or b"session" in content or b"authtoken" in content, (
            f"no record in {where}"
        )
        for key in keys.all:
            for form in (key, key[:35], key[:12], base64.b64encode(key.encode()).decode()[:-4]):
                at = content.find(form.encode())
                assert at < 0, f"{where}: …{content[max(0, at - 200) : at + 60]!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_way_of_writing_or_reading_leaves_the_key_in_the_trail(trail: Trail, kind: str) -> None:
    from django.db import transaction

    keys = Keys()
    make = rows(keys)[kind]
    for way in WAYS:
        with trail.tracer.start_as_current_span("request"):
            way(make(), make())
        with trail.tracer.start_as_current_span("request"), transaction.atomic():
            if way is not refused:
                way(make(), make())
    assert_none_left(trail, keys)


def test_columns_that_refer_to_a_secret_key_do_not_show_it(trail: Trail) -> None:
    """Foreign keys, one-to-one, to a field that is not the key, through-tables, cascades."""
    from django.contrib.sessions.models import Session

    from tests.instrumentation.django.vault import models as vault

    keys = Keys()
    made = rows(keys)

    def row(kind: str) -> Any:
        instance = made[kind]()
        saved(instance)
        return instance

    with trail.tracer.start_as_current_span("request"):
        device = vault.Device.objects.create(name=CANARY, login=row("knox"), invited_by=row("uuid"))
        device.link, device.voucher = row("link"), row("configured")
        device.access = vault.AccessToken.objects.create(token=keys.text())
        device.save()
        device.grants.add(row("knox"))
        device.grants.add(row("knox"), row("knox"))
        device.sessions.set([row("session"), row("session")])
        device.sessions.set([row("session")])
        other = vault.Device.objects.create(name=CANARY, login=row("knox"))
        vault.Device.objects.update(login=row("knox"), invited_by=row("uuid"))
        vault.Device.objects.filter(pk=other.pk).update(link=row("link"))
        list(vault.Device.objects.all())
        list(vault.Device.grants.through.objects.all())
        device.sessions.remove(*Session.objects.all())
        device.grants.clear()
        vault.Share.objects.create(link=row("link"), number=1)
        vault.Share.objects.bulk_create(vault.Share(link=row("link"), number=n) for n in (2, 3))
        list(vault.Share.objects.all())
        for model in (vault.AuthToken, vault.Invitation, vault.MagicLink, Session):
            model._default_manager.all().delete()
    assert_none_left(trail, keys)


def test_an_intent_without_its_marker_holds_no_key(trail: Trail) -> None:
    """What a process leaves that dies between its intent and its COMMIT."""
    from tests.instrumentation.django.vault import models as vault

    keys = Keys()
    settled = trail.pipeline.logger.settle
    trail.pipeline.logger.settle = lambda *_: None  # type: ignore[method-assign]
    vault.AuthToken.objects.bulk_create([vault.AuthToken(digest=keys.text()) for _ in range(3)])
    vault.AuthToken.objects.all().delete()
    trail.pipeline.logger.settle = settled  # type: ignore[method-assign]
    raw = spool_bytes(trail._directory)
    assert b"vault.authtoken.delete" in raw
    assert not [key for key in keys.all if key.encode() in raw]


def test_records_made_by_hand_show_no_key_of_a_token(trail: Trail) -> None:
    keys = Keys()
    for kind in (
        "authtoken.Token",
        "shop.ApiKey",
        "shop.MagicLink",
        "shop.RefreshTokens",
        "sessions.Session",
    ):
        targets = [Target(kind, keys.text()), Target(kind, keys.text())]
        otel_audit.record("shop.key.used", "USE", target=targets[0], related=targets)
        logger = trail.pipeline.logger
        logger.emit(
            logger.record(
                "shop.keys.used",
                "USE",
                target=Target(kind),
                bulk=Bulk(2, [keys.text(), keys.text()]),
            )
        )
    otel_audit.record("shop.link.used", "USE", target=Target("shop.MagicLink", str(keys.uuid())))
    raw = spool_bytes(trail._directory)
    assert raw.count(b"shop.keys.used") == 5
    assert not [key for key in keys.all if key.encode() in raw]


def test_keys_that_are_no_secrets_stay_and_rows_can_be_told_apart(trail: Trail) -> None:
    from tests.instrumentation.django.vault import models as vault

    access = vault.AccessToken.objects.create(token="t" * 40)
    card = vault.Card.objects.create(id=7)
    device = vault.Device.objects.create(
        name="till", card=card, login=vault.AuthToken.objects.create(digest="d" * 40)
    )
    vouchers = vault.Voucher.objects.bulk_create(
        [vault.Voucher(code=code) for code in ("SPRING-24", "AUTUMN-24")]
    )
    raw = spool_bytes(trail._directory)
    assert str(access.pk).encode() in raw, "a UUID beside the secret is a plain key"
    assert b"vault.Device" in raw
    assert raw.count(b"hmac:") >= len(vouchers)
    found = otel_audit_records(trail)
    update = next(r for r in found if r.target == Target("vault.Device", str(device.pk)))
    values = {change.field: change.new for change in update.changes}
    assert values["card"] == 7, "a foreign key is no card"
    assert values["login"] == "[redacted]dddd", "as the id of the token itself"
    assert Target("vault.AuthToken", "[redacted]dddd") in [r.target for r in found]
    bulk = next(r.bulk for r in found if r.bulk is not None)
    assert len(set(bulk.keys)) == 2


def otel_audit_records(trail: Trail) -> list[Any]:
    from otel_audit.audit_record import AuditRecord
    from otel_audit.pipeline.spool.cursor import Position
    from otel_audit.pipeline.spool.reader import StreamReader

    spool = trail.pipeline.spool
    assert spool.lock is not None
    reader = StreamReader(spool.lock.path, Position(), lambda: spool.committed)
    return [item.content for item in reader.items() if isinstance(item.content, AuditRecord)]


def test_the_path_of_a_page_about_a_token_does_not_show_its_key(trail: Trail) -> None:
    """The admin's page of a token, and a view of one that is no field's name: ``/links/<pk>/``."""
    from django.contrib.auth.models import User
    from django.test import Client

    keys = Keys()
    user = User.objects.create_superuser("admin", "a@b.example", "correct horse")
    client = Client()
    client.force_login(user)
    made = rows(keys)
    token, link = made["drf token"](), made["link"]()
    saved(token), saved(link)
    with trail.tracer.start_as_current_span("request"):
        assert (
            client.post(f"/admin/authtoken/tokenproxy/{token.pk}/delete/", {"post": "yes"}).status_code == 302
        )
        assert client.get(f"/links/{link.pk}/").status_code == 200
    raw = spool_bytes(trail._directory)
    assert b"/admin/authtoken/tokenproxy/" in raw
    assert b"/links/" in raw
    assert_none_left(trail, keys)


def test_an_own_rule_named_key_leaves_the_keys_of_bulk_records_a_list() -> None:
    from otel_audit.redaction import Redactor
    from tests.redaction.test_redactor import record

    redactor = Redactor(RedactionConfig(names=["key"]))
    bulk = redactor.record(record(bulk=Bulk(2, ["1", "2"]), changes=[Change("key", "a", "b")])).bulk
    assert bulk is not None
    assert bulk.keys == ["1", "2"]
