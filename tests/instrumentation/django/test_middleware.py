"""Who makes a request, from where and through what: seen from records made inside it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_audit.audit_context import (
    AuditContext,
    StarterScope,
    SystemScope,
    context,
    current_context,
    enter_context,
    enter_scope,
    leave_scope,
)
from otel_audit.audit_record import Actor, Origin
from otel_audit.config.model import ContextConfig, RedactionConfig
from otel_audit.instrumentation.django.requests.middleware import AUDIT_MIDDLEWARE, with_audit_middleware
from otel_audit.pipeline import process_identity
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.clinic import urls
from tests.instrumentation.django.project import Instrumented

ANONYMOUS = Actor("anonymous", "unknown")
UNKNOWN = Actor("unknown", "unknown")


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def signed_in(alice: Any) -> Client:
    """A browser alice has logged in with."""
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """OpenTelemetry's own instrumentor, in its usual place."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    DjangoInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    DjangoInstrumentor().uninstrument()


def user(who: Any, name: str = "alice") -> Actor:
    return Actor(str(who.pk), "user", name)


# --- who -----------------------------------------------------------------------------------------


def test_a_visitor_without_a_session_is_anonymous(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/")
    assert audit.one(event_name="clinic.note").actor == ANONYMOUS


def test_a_user_the_view_asked_for_is_the_actor(audit: CapturedAudit, signed_in: Client, alice: Any) -> None:
    signed_in.get("/known/")
    assert audit.one(event_name="clinic.note").actor == user(alice)


def test_a_user_put_in_place_of_another_is_the_actor_from_there_on(
    audit: CapturedAudit, signed_in: Client, alice: Any
) -> None:
    """Who was seen first is remembered, but not when the request's user is another object."""
    zoe = User.objects.create_user("zoe")
    signed_in.get("/impersonating/")
    assert audit.one(event_name="clinic.self").actor == user(alice)
    assert audit.one(event_name="clinic.impersonated").actor == user(zoe, "zoe")


def test_a_session_loaded_for_something_else_names_the_user(
    audit: CapturedAudit, signed_in: Client, alice: Any
) -> None:
    signed_in.get("/visited/")
    assert audit.one(event_name="clinic.note").actor == Actor(str(alice.pk), "user")


def test_a_session_nobody_looked_at_is_not_looked_at_by_us(audit: CapturedAudit, signed_in: Client) -> None:
    """No query, no access to the session, no Vary header: only its hash tells who it was."""
    with CaptureQueriesContext(connection) as queries:
        response = signed_in.get("/note/")
    assert len(queries) == 0
    assert "Vary" not in response.headers
    record = audit.one(event_name="clinic.note")
    assert record.actor == UNKNOWN
    assert record.source.session.startswith("sha256:")


def test_a_session_in_a_signed_cookie_is_read_without_a_query(audit: CapturedAudit, alice: Any) -> None:
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        client = Client()
        client.force_login(alice)
        with CaptureQueriesContext(connection) as queries:
            client.get("/note/")
            forger = Client()
            forger.cookies[settings.SESSION_COOKIE_NAME] = client.cookies[settings.SESSION_COOKIE_NAME].value[
                :-1
            ]
            forger.get("/note/")
    assert len(queries) == 0
    own, forged = audit.find(event_name="clinic.note")
    assert own.actor.id == str(alice.pk)
    assert forged.actor == UNKNOWN


def test_a_token_names_its_user_though_only_the_view_reads_it(
    audit: CapturedAudit, client: Client, alice: Any
) -> None:
    response = client.post("/api/", headers={"Authorization": "Token alice"})
    assert response.status_code == 200
    assert audit.one(event_name="clinic.note").actor == user(alice)


def test_a_middleware_of_the_application_names_the_user(
    audit: CapturedAudit, client: Client, alice: Any
) -> None:
    with override_settings(MIDDLEWARE=["tests.instrumentation.django.test_middleware.everybody_is_alice"]):
        client.get("/note/")
    assert audit.one(event_name="clinic.note").actor == user(alice)


def everybody_is_alice(get_response: Any) -> Any:
    from django.contrib.auth.models import User

    def middleware(request: Any) -> Any:
        request.user = User.objects.get(username="alice")
        return get_response(request)

    return middleware


def nobody_can_say(get_response: Any) -> Any:
    class Confused:
        @property
        def is_authenticated(self) -> bool:
            raise RuntimeError("confused")

    def middleware(request: Any) -> Any:
        request.user = Confused()
        return get_response(request)

    return middleware


def test_a_user_object_that_raises_harms_nobody(audit: CapturedAudit, client: Client) -> None:
    with override_settings(MIDDLEWARE=["tests.instrumentation.django.test_middleware.nobody_can_say"]):
        assert client.get("/note/").status_code == 200
    assert audit.one(event_name="clinic.note").actor == UNKNOWN


def test_async_views_know_their_user(audit: CapturedAudit, alice: Any) -> None:
    async def visit() -> None:
        client = AsyncClient()
        await client.aforce_login(alice)
        await client.get("/async/")
        await client.get("/async-untouched/")

    asyncio.run(visit())
    asked, untouched = audit.find(event_name="clinic.note")
    assert asked.actor == user(alice)
    assert untouched.actor == UNKNOWN
    assert asked.source.session == untouched.source.session != ""


def test_requests_served_at_once_do_not_mix(audit: CapturedAudit) -> None:
    async def visit() -> None:
        await asyncio.gather(
            *(AsyncClient().get(f"/slow/n{n}/", headers={"User-Agent": f"agent-{n}"}) for n in range(20))
        )

    asyncio.run(visit())
    seen = {record.event_name: record for record in audit if record.event_name.startswith("clinic.n")}
    assert len(seen) == 20
    for name, record in seen.items():
        number = name.removeprefix("clinic.n")
        assert record.source.user_agent == f"agent-{number}"
        assert record.request.path == f"/slow/n{number}/"
    assert len({record.request.id for record in seen.values()}) == 20


def test_what_was_done_before_a_login_stays_anonymous(
    audit: CapturedAudit, client: Client, alice: Any
) -> None:
    client.get("/signing-up/")
    assert audit.one(event_name="clinic.before").actor == ANONYMOUS
    assert audit.one(event_name="clinic.after").actor == user(alice)


def test_an_account_that_deletes_itself_is_still_who_did_it(
    audit: CapturedAudit, signed_in: Client, alice: Any
) -> None:
    key = str(alice.pk)
    signed_in.get("/leaving/")
    assert audit.one(event_name="clinic.before").actor.id == key
    assert audit.one(event_name="clinic.deleted").actor.id == key
    assert audit.one(event_name="clinic.gone").actor == ANONYMOUS
    assert audit.one(event_name="user.logout").actor.id == key


def test_writes_keep_the_actor_of_their_moment_when_they_commit_later(
    instrumented: Instrumented, client: Client, signed_in: Client, alice: Any
) -> None:
    key = str(alice.pk)
    with instrumented(models=["clinic.*", "auth.User"]) as audit:
        client.get("/signing-up-for-real/")
        before, after = audit.find(event_name="clinic.ward.create")
        login = audit.one(event_name="auth.user.update")
        assert before.actor == ANONYMOUS
        assert after.actor == login.actor == user(alice), "last_login is alice's doing"
        audit.clear()

        signed_in.get("/leaving-for-real/")
        assert audit.one(event_name="clinic.ward.create").actor.id == key
        deleted = audit.one(event_name="auth.user.delete")
        assert (deleted.actor.id, str(deleted.target)) == (key, f"auth.User/{key}")


def test_a_token_that_deletes_its_own_account_is_who_did_it(
    instrumented: Instrumented, client: Client, alice: Any
) -> None:
    key = str(alice.pk)
    with instrumented(models=["auth.User"]) as audit:
        client.delete("/api/", headers={"Authorization": "Token alice"})
        deleted = audit.one(event_name="auth.user.delete")
    assert (deleted.actor.id, str(deleted.target)) == (key, f"auth.User/{key}")


# --- from where ----------------------------------------------------------------------------------


def test_the_peer_is_the_source_whatever_a_header_says(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/", REMOTE_ADDR="203.0.113.7", headers={"X-Forwarded-For": "198.51.100.1"})
    source = audit.one(event_name="clinic.note").source
    assert (source.id, source.type) == ("203.0.113.7", "ipv4")


def test_behind_a_trusted_proxy_the_client_is_what_the_proxy_saw(
    instrumented: Instrumented, client: Client
) -> None:
    with instrumented(context=ContextConfig(trusted_proxies=1)) as audit:
        client.get("/note/", REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": "198.51.100.1, 2001:db8::5"})
        source = audit.one(event_name="clinic.note").source
    assert (source.id, source.type) == ("2001:db8::5", "ipv6")


def test_the_session_is_a_hash_that_its_login_shares(audit: CapturedAudit, alice: Any) -> None:
    client = Client()
    client.post("/login/", {"username": "alice", "password": "correct horse"})
    client.get("/note/")
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    login = audit.one(event_name="user.login.success")
    note = audit.one(event_name="clinic.note")
    assert login.source.session == note.source.session
    expected = hashlib.sha256(b"otel-audit session " + key.encode()).hexdigest()[:32]
    assert note.source.session == f"sha256:{expected}"


def test_the_session_hash_takes_the_configured_key(instrumented: Instrumented, signed_in: Client) -> None:
    with instrumented(redaction=RedactionConfig(hmac_key="a key of sixteen or more")) as audit:
        signed_in.get("/note/")
        session = audit.one(event_name="clinic.note").source.session
    assert session.startswith("hmac-sha256:")
    assert signed_in.cookies[settings.SESSION_COOKIE_NAME].value not in session


# --- through what --------------------------------------------------------------------------------


def test_a_record_says_through_which_view_it_came(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/?secret=1", headers={"User-Agent": "Netscape"})
    record = audit.one(event_name="clinic.note")
    assert record.request.method == "GET"
    assert record.request.route == "note/"
    assert record.request.path == "/note/"
    assert record.request.view == "tests.instrumentation.django.clinic.urls.note"
    assert record.source.user_agent == "Netscape"


@pytest.mark.parametrize(
    ("path", "view"),
    [("/class/", "ClassBased"), ("/partial/", "note"), ("/async-untouched/", "asynchronous_untouched")],
)
def test_every_kind_of_view_has_a_name(audit: CapturedAudit, client: Client, path: str, view: str) -> None:
    client.get(path)
    record = audit.one(event_name="clinic.note")
    assert record.request.view == f"tests.instrumentation.django.clinic.urls.{view}"


def test_a_secret_in_the_path_is_not_shown(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/7/c3x-5d41402abc4b2a76b9719d/")
    record = audit.one(event_name="clinic.note")
    assert record.request.path == "/note/7/[redacted]/"
    assert record.request.route == "note/<int:pk>/<slug:token>/"


def test_the_request_id_is_our_own(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/", headers={"X-Request-ID": "forged"})
    client.get("/note/", headers={"X-Request-ID": "forged"})
    first, second = audit.find(event_name="clinic.note")
    assert first.request.id != second.request.id
    assert "forged" not in (first.request.id, second.request.id)


def test_a_trusted_proxy_may_name_the_request(instrumented: Instrumented, client: Client) -> None:
    with instrumented(context=ContextConfig(trusted_proxies=1)) as audit:
        client.get("/note/", headers={"X-Request-ID": "abc-123"})
        client.get("/note/", headers={"X-Request-ID": "a\tb"})
        named, garbage = audit.find(event_name="clinic.note")
    assert named.request.id == "abc-123"
    assert garbage.request.id != "a\tb"


def test_records_lie_in_the_span_of_the_request(
    spans: InMemorySpanExporter, audit: CapturedAudit, client: Client
) -> None:
    client.get("/note/")
    client.get("/forbidden/")
    note, forbidden = spans.get_finished_spans()
    record = audit.one(event_name="clinic.note")
    assert note.context is not None
    assert record.span_id == f"{note.context.span_id:016x}"
    assert [event.name for event in note.events] == ["clinic.note"]
    assert "http.request.denied" in [event.name for event in forbidden.events]


# --- the middleware's manners ----------------------------------------------------------------------


def test_the_setting_is_left_as_it_was(audit: CapturedAudit, client: Client) -> None:
    before = settings.MIDDLEWARE
    client.get("/note/")
    assert settings.MIDDLEWARE is before
    assert AUDIT_MIDDLEWARE not in before


def test_our_place_is_first_inside_opentelemetrys() -> None:
    otel = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"
    assert with_audit_middleware(["a", "b"]) == [AUDIT_MIDDLEWARE, "a", "b"]
    assert with_audit_middleware((otel, "a")) == [otel, AUDIT_MIDDLEWARE, "a"]
    assert with_audit_middleware(["a", otel, "b"]) == ["a", otel, AUDIT_MIDDLEWARE, "b"]
    assert with_audit_middleware(["a", AUDIT_MIDDLEWARE]) == ["a", AUDIT_MIDDLEWARE]


def test_the_scope_ends_with_the_request(audit: CapturedAudit, client: Client) -> None:
    client.get("/note/")
    assert current_context() is None
    with pytest.raises(RuntimeError, match="broken"):
        client.get("/broken/")
    assert current_context() is None
    assert audit.find(event_name="clinic.note")[1].request.route == "broken/"


def test_overrides_around_a_request_are_not_of_it(audit: CapturedAudit, client: Client) -> None:
    with context(actor="somebody else", reason="outside"):
        client.get("/note/")
    record = audit.one(event_name="clinic.note")
    assert (record.actor, record.reason) == (ANONYMOUS, "")


def test_the_body_of_a_stream_runs_in_its_request(
    spans: InMemorySpanExporter, audit: CapturedAudit, signed_in: Client
) -> None:
    response = signed_in.get("/streamed/")
    assert current_context() is None
    assert response.getvalue() == b"ab"
    assert current_context() is None
    (span,) = spans.get_finished_spans()
    assert span.context is not None
    for record in audit.find(event_name="clinic.streamed"):
        assert record.request.route == "streamed/"
        assert record.span_id == f"{span.context.span_id:016x}"
    assert len(audit.find(event_name="clinic.streamed")) == 2


def test_the_body_of_an_async_stream_runs_in_its_request(audit: CapturedAudit) -> None:
    async def visit() -> bytes:
        response: Any = await AsyncClient().get("/streamed-async/")
        return b"".join([piece async for piece in response])

    assert asyncio.run(visit()) == b"ab"
    routes = [record.request.route for record in audit.find(event_name="clinic.streamed")]
    assert routes == ["streamed-async/"] * 2


def test_a_file_is_still_sent_as_a_file(audit: CapturedAudit) -> None:
    """By ``wsgi.file_wrapper``: sendfile() instead of reading it."""
    response: Any = WSGIHandler().get_response(
        WSGIRequest(RequestFactory()._base_environ(PATH_INFO="/file/"))  # type: ignore[attr-defined]
    )
    assert response.file_to_stream is not None
    response.close()


def test_without_the_instrumentor_the_middleware_stands_aside(
    instrumented: Instrumented, client: Client
) -> None:
    with instrumented() as audit:
        client.get("/note/")
        assert len(audit.find(event_name="clinic.note")) == 1
    assert client.get("/noop/").status_code == 200
    assert current_context() is None


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "route", "error"),
    [
        ("/forbidden/", "forbidden/", "403"),
        ("/unauthorized/", "unauthorized/", "401"),
        ("/private/?page=2", "private/", "login_required"),
        ("/private-other/", "private-other/", "login_required"),
        ("/admin/auth/user/", "admin/auth/user/", "login_required"),
    ],
)
def test_a_refused_visitor_is_on_record(
    audit: CapturedAudit, client: Client, path: str, route: str, error: str
) -> None:
    client.get(path)
    record = audit.one(event_name="http.request.denied")
    assert (record.action, record.outcome, record.error) == ("ACCESS", "failure", error)
    assert str(record.target) == f"http.route/{route}"
    assert record.actor == ANONYMOUS
    assert record.request.id


def test_a_refused_user_is_named(audit: CapturedAudit, signed_in: Client, alice: Any) -> None:
    alice.is_staff = alice.is_superuser = False
    alice.save()
    signed_in.get("/admin/auth/user/")
    assert audit.one(event_name="http.request.denied").actor == user(alice)


def test_a_refused_token_is_on_record(audit: CapturedAudit, client: Client) -> None:
    assert client.post("/api/", headers={"Authorization": "Token mallory"}).status_code == 401
    record = audit.one(event_name="http.request.denied")
    assert (record.error, record.actor) == ("401", ANONYMOUS)


def test_an_ordinary_redirect_is_no_refusal(audit: CapturedAudit, signed_in: Client) -> None:
    signed_in.get("/moved/")
    signed_in.post("/logout/")
    signed_in.get("/nowhere/")
    assert audit.find(event_name="http.request.denied") == []


def test_refusals_are_switched_off_with_the_auth_events(instrumented: Instrumented, client: Client) -> None:
    with instrumented(auth_events=False) as audit:
        client.get("/forbidden/")
        assert list(audit) == [] or all(r.event_name.startswith("audit.stream") for r in audit)


# --- outside a request -------------------------------------------------------------------------------


def test_a_command_is_who_acts(audit: CapturedAudit) -> None:
    call_command("note")
    record = audit.one(event_name="clinic.command")
    assert record.actor == Actor("manage.py note", "system")
    assert record.request.view == "tests.instrumentation.django.clinic.management.commands.note.Command"
    assert current_context() is None


def test_a_command_called_by_another_keeps_who_began(audit: CapturedAudit) -> None:
    call_command("note", nested=True)
    record = audit.one(event_name="clinic.nested")
    assert record.actor == Actor("manage.py note", "system")
    assert record.request.view.endswith("commands.nested.Command")
    assert audit.one(event_name="clinic.command").request.view.endswith("commands.note.Command")


def test_a_command_called_by_a_task_keeps_the_task_as_who_acts(audit: CapturedAudit) -> None:
    token = enter_scope(SystemScope(Actor("shop.tasks.tidy", "system"), "shop.tasks.tidy"))
    try:
        call_command("note")
    finally:
        leave_scope(token)
    record = audit.one(event_name="clinic.command")
    assert record.actor == Actor("shop.tasks.tidy", "system")
    assert record.request.view.endswith("commands.note.Command")


def test_a_command_called_by_a_thread_whose_request_is_over_is_who_acts(audit: CapturedAudit) -> None:
    with context(actor="ana"):
        inside = current_context()
        assert inside is not None
        scope = StarterScope(inside)
    token = enter_context(AuditContext(scope))
    call_command("note")
    leave_scope(token)
    assert audit.one(event_name="clinic.command").actor == Actor("manage.py note", "system")


def test_a_command_called_by_a_request_is_the_requests(audit: CapturedAudit, client: Client) -> None:
    client.get("/commanding/")
    record = audit.one(event_name="clinic.command")
    assert record.actor == ANONYMOUS
    assert record.request.route == "commanding/"


def test_a_command_keeps_the_reason_around_it_and_leaves_on_failure(audit: CapturedAudit) -> None:
    with context(reason="ticket 7"):
        with pytest.raises(CommandError):
            call_command("note", fail=True)
        inside = current_context()
        assert inside is not None
        assert inside.scope is None
    assert audit.one(event_name="clinic.command").reason == "ticket 7"


def test_outside_everything_the_service_acts(audit: CapturedAudit) -> None:
    from tests.instrumentation.django.clinic.urls import record

    record()
    assert audit.one(event_name="clinic.note").actor == Actor(process_identity.service_name(), "service")


def test_a_thread_a_view_started_is_the_users_until_the_response_and_the_services_after_it(
    audit: CapturedAudit, signed_in: Client, alice: User
) -> None:
    signed_in.get("/threading/")
    urls.THREAD.goes_on.set()
    urls.THREAD.thread.join()
    during, after = audit.find(event_name="clinic.note")
    assert (during.actor.name, during.origin) == ("alice", None)
    assert after.actor == Actor(process_identity.service_name(), "service")
    assert after.origin == Origin(str(alice.pk), "alice", during.request.id)
