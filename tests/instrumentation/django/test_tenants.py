"""``tenant_from``: the application says whose data a record is about; its mistakes cost no record."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

import otel_audit
from otel_audit.config.loader import load
from otel_audit.errors import ConfigurationError
from otel_audit.instrumentation.django.checks import audit_checks
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django import tenants
from tests.instrumentation.django.clinic.models import Ward
from tests.instrumentation.django.project import Instrumented

CURRENT = "tests.instrumentation.django.tenants:current"


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "answers", ["acme"])
    monkeypatch.setattr(tenants, "asked", [])


def asking(function: str = CURRENT, **config: Any) -> dict[str, Any]:
    return {"models": ["clinic.*"], "config": {"tenant_from": function, **config}}


def told(audit: CapturedAudit) -> list[tuple[str, bool]]:
    found = [(record.tenant, record.truncated) for record in audit]
    audit.clear()
    return found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("acme", "acme"),
        (7, "7"),
        (tenants.Region.NORTH, "north"),
        (tenants.lazy, "acme"),
        (tenants.Row(), "7"),
        (None, "configured"),
        ("", "configured"),
    ],
    ids=itertools.count(),
)
def test_the_function_names_the_tenant(instrumented: Instrumented, answer: Any, expected: str) -> None:
    tenants.answers[:] = [answer]
    with instrumented(**asking(tenant="configured")) as audit:
        Ward.objects.create(name="a")
        otel_audit.record("clinic.exported", "EXPORT")
        assert told(audit) == [(expected, False)] * 2
        with otel_audit.context(tenant="explicit"):
            Ward.objects.create(name="a")
        assert told(audit) == [("explicit", False)]


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("no tenant"),
        tenants.Hostile(),
        tenants.Opaque(),
        ["acme"],
        {"name": "acme"},
        True,
        b"acme",
        "x" * 10_000,
        tenants.never,
    ],
    ids=itertools.count(),
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_no_tenant_costs_the_tenant_and_is_logged_once(
    instrumented: Instrumented, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tenants.answers[:] = [answer if answer is not tenants.never else (lambda: tenants.never(None))]
    with instrumented(**asking(tenant="configured")) as audit:
        for _ in range(3):
            Ward.objects.create(name="a")
        # Not that of the configuration: its people would see what may be another's.
        assert told(audit) == [("", True)] * 3
        assert len([message for message in caplog.messages if "tenant_from" in message]) == 1
        with otel_audit.context(tenant="explicit"):
            Ward.objects.create(name="a")
        assert told(audit) == [("explicit", False)]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("tests.nothing_of_that_name:current", "nothing_of_that_name"),
        ("tests.instrumentation.django.tenants:curent", "curent"),
        ("tests.instrumentation.django.tenants:not_callable", "not a plain function"),
        ("tests.instrumentation.django.tenants:never", "not a plain function"),
    ],
)
def test_a_function_that_is_not_there_is_named_by_the_checks(
    instrumented: Instrumented, function: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with instrumented(**asking(function)) as audit:
        Ward.objects.create(name="a")
        assert told(audit) == [("", True)]
        [message] = audit_checks()
    assert message.id == "otel_audit.W007"
    assert function in message.msg
    assert reason in message.msg
    assert "tenant_from" in caplog.text


def test_a_method_of_a_class_may_be_named(instrumented: Instrumented) -> None:
    with instrumented(**asking("tests.instrumentation.django.tenants:Tenants.current")) as audit:
        Ward.objects.create(name="a")
        assert told(audit) == [("00000000-0000-0000-0000-000000000005", False)]
        assert audit_checks() == []


def test_each_write_has_the_tenant_of_its_moment(instrumented: Instrumented) -> None:
    tenants.answers[:] = ["acme", "umbrella", "none of them"]
    with instrumented(**asking()) as audit:
        with transaction.atomic():
            Ward.objects.create(name="a")
            Ward.objects.create(name="b")
        assert told(audit) == [("acme", False), ("umbrella", False)]


def test_it_is_given_the_request(instrumented: Instrumented, alice: Any) -> None:
    with instrumented(**asking("tests.instrumentation.django.tenants:by_host")) as audit:
        client = Client(HTTP_HOST="clinic.example")
        assert client.login(username="alice", password="correct horse")
        audit.clear()
        client.post("/admin/logout/")
        assert ("clinic", False) in told(audit)
        Ward.objects.create(name="a")
        assert told(audit) == [("", False)]


def test_a_thread_is_asked_for_itself(instrumented: Instrumented) -> None:
    with instrumented(**asking()) as audit:
        thread = threading.Thread(target=otel_audit.record, args=("clinic.counted", "COUNT"))
        thread.start()
        thread.join()
        assert told(audit) == [("acme", False)]


def test_what_it_reads_and_writes_itself_does_not_ask_again(instrumented: Instrumented) -> None:
    options = asking("tests.instrumentation.django.tenants:by_query")
    with instrumented(**options, reads=["clinic.Ward"]) as audit:
        otel_audit.record("clinic.exported", "EXPORT")
        assert [(record.event_name, record.tenant) for record in audit] == [
            ("clinic.ward.create", ""),
            ("clinic.ward.read", ""),
            ("clinic.exported", "wards-1"),
        ]


def test_nobody_is_asked_any_more_when_it_is_over(instrumented: Instrumented) -> None:
    with instrumented(**asking()):
        pass
    with instrumented(models=["clinic.*"]) as audit:
        Ward.objects.create(name="a")
        assert told(audit) == [("", False)]
    assert tenants.asked == []


@pytest.mark.parametrize("path", ["shop.tenants.current", "shop", ":current", "shop:", "a b:c", "shop:x()"])
def test_a_path_that_is_none_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no function: write package\.module:function"):
        load(environ={"OTEL_AUDIT_TENANT_FROM": path})
