"""Django's views, throttled by one word of the configuration and by what they say of themselves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import AsyncClient, Client, override_settings
from django.utils import translation
from django.utils.functional import lazystr

from otel_audit.audit_record import Target
from otel_audit.config.model import ContextConfig
from otel_audit.contrib.throttling import Rule, ThrottlingException, throttling
from otel_audit.testing import CapturedAudit
from tests.contrib.throttling import site
from tests.contrib.throttling.clock import Clock
from tests.contrib.throttling.conftest import Throttled

PAGE = "<p>{{ description }}|{{ retry_after }}"


def statuses(path: str, times: int, client: Client | None = None, **options: Any) -> list[int]:
    client = client or Client()
    return [client.get(path, **options).status_code for _ in range(times)]


def refusals(audit: CapturedAudit) -> list[Any]:
    return audit.find(event_name="http.request.throttled")


# --- the default set ---------------------------------------------------------------------------


def test_one_word_lets_an_address_make_twenty_requests_a_minute(throttled: Throttled, clock: Clock) -> None:
    with throttled() as audit:
        assert statuses("/", 21) == [200] * 20 + [429]
        assert statuses("/away/", 1) == [429]  # of all views together
        assert statuses("/", 1, REMOTE_ADDR="192.0.2.7") == [200]
        clock.move(600)
        assert statuses("/", 1) == [200]
        assert len(site.RUNS) == 22  # a refused view does not run
        assert len(refusals(audit)) == 2


def test_and_a_thousand_an_hour(throttled: Throttled, clock: Clock) -> None:
    clock.now = 1_800_000_000.0
    seen: list[int] = []
    with throttled():
        client = Client()
        for _ in range(51):
            seen += statuses("/", 20, client)
            clock.move(130)  # the minute lets them through
            if len(seen) == 540:
                clock.now = 1_800_000_000.0 + 3599 - 26 * 130
        assert seen.index(429) <= 1000


def test_while_it_is_not_switched_on_nothing_is_refused(throttled: Throttled) -> None:
    from otel_audit.contrib.throttling.instrumentor import ThrottlingInstrumentor

    with throttled():
        ThrottlingInstrumentor().uninstrument()
        assert statuses("/twice/", 30) == [200] * 30


def test_tests_of_an_application_are_not_refused_unless_they_look_at_what_is_recorded(
    throttled: Throttled,
) -> None:
    from otel_audit.pipeline import provider

    with throttled():
        provider.hold("tests are not recorded")
        try:
            assert statuses("/", 30) == [200] * 30
        finally:
            provider.release()
        assert statuses("/", 21)[-1] == 429


def test_each_refusal_is_a_record(throttled: Throttled) -> None:
    with throttled(defaults=False) as audit:
        statuses("/twice/", 3, REMOTE_ADDR="192.0.2.7")
        record = audit.one(event_name="http.request.throttled")
    assert (record.action, record.outcome, record.error) == ("REFUSE", "failure", "429")
    assert record.target == Target("http.route", "twice/")
    assert (record.source.id, record.request.path) == ("192.0.2.7", "/twice/")
    assert record.attributes["throttling.rule"] == "2 requests in 60 s by address"
    assert (record.attributes["throttling.limit"], record.attributes["throttling.timeframe"]) == (2, 60)
    assert 0 < record.attributes["throttling.retry_after"] <= 90
    assert record.attributes["http.response.status_code"] == 429


def test_paths_that_no_view_answers_are_counted_too(throttled: Throttled) -> None:
    with throttled() as audit:
        assert statuses("/no/such/path/", 21) == [404] * 20 + [429]
        assert audit.one(event_name="http.request.throttled").target == Target("http.route", "/no/such/path/")


# --- rules of the configuration ----------------------------------------------------------------


def test_rules_of_the_file_are_for_paths_and_methods(throttled: Throttled) -> None:
    rules = {"writes": {"number": 1, "timeframe": 60, "path": ["/methods/*", "/one/"], "method": ["post"]}}
    with throttled(defaults=False, rules=rules) as audit:
        client = Client()
        assert [client.post("/one/").status_code for _ in range(2)] == [200, 429]
        assert client.get("/methods/").status_code == 200
        assert client.post("/").status_code == 200
        assert refusals(audit)[0].attributes["throttling.rule"].startswith("writes: 1 requests")


def test_a_rule_named_as_a_default_replaces_it(throttled: Throttled) -> None:
    with throttled(rules={"minute": {"number": 2, "timeframe": 60}}):
        assert statuses("/", 3) == [200, 200, 429]


def test_rules_and_validators_in_code(throttled: Throttled) -> None:
    with throttled(defaults=False, validators="tests.contrib.throttling.site:validators") as audit:
        assert statuses("/exempt/", 2) == [200] * 2
        assert statuses("/one/", 2) == [200, 429]
        assert Client().get("/?hour=3").status_code == 429
        assert refusals(audit)[1].attributes["throttling.rule"] == "tests.contrib.throttling.site.Night"


def test_paths_can_be_exempt(throttled: Throttled) -> None:
    with throttled(exempt=["/away/*", "/static/*"]):
        assert statuses("/away/", 30) == [302] * 30
        assert 404 in statuses("/static/x.css", 30)


def test_paths_are_written_as_everywhere_in_the_configuration() -> None:
    rule = Rule(1, 60, path=["/files[1]/*", "/v?/*", "!/v2/*"])
    assert [path for path in ("/files[1]/a", "/files1/a") if rule.is_for(path, "GET")] == ["/files[1]/a"]
    assert [path for path in ("/v1/a", "/v2/a", "/v10/a") if rule.is_for(path, "GET")] == ["/v1/a"]
    assert Rule(1, 60, path="!/health").is_for("/", "GET")


def test_an_exempt_path_may_have_exceptions(throttled: Throttled) -> None:
    with throttled(exempt=["/*", "!/away/"]):
        assert statuses("/", 30) == [200] * 30
        assert statuses("/away/", 21) == [302] * 20 + [429]


@pytest.mark.parametrize("who", [f"tests.contrib.throttling.site{dot}tenant" for dot in ":."])
def test_a_function_that_the_file_names_says_whose_are_counted_together(
    throttled: Throttled, who: str
) -> None:
    with throttled(defaults=False, rules={"tenant": {"number": 1, "timeframe": 60, "by": [who]}}):
        assert statuses("/", 3) == [200] * 3  # None: the rule is not for this request
        assert statuses("/", 2, headers={"X-Tenant": "a"}) == [200, 429]
        assert statuses("/", 2, headers={"X-Tenant": "b"}) == [200, 429]


# --- decorators --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/twice/", "/twice-async/", "/hidden/", "/class/"])
def test_a_view_with_rules_of_its_own(throttled: Throttled, path: str) -> None:
    with throttled():
        assert statuses(path, 3) == [200, 200, 429]
        assert statuses("/", 1) == [200]
        assert statuses(path, 1, REMOTE_ADDR="192.0.2.7") == [200]
    assert len(site.RUNS) == 4


def test_a_view_keeps_the_default_set_unless_it_says_otherwise(throttled: Throttled) -> None:
    with throttled():
        statuses("/", 20)
        assert statuses("/twice/", 1) == [429]
        assert statuses("/thrice/", 4) == [200, 200, 200, 429]


@pytest.mark.parametrize("path", ["/exempt/", "/exempt-after-all/", "/exempt-class/"])
def test_an_exempt_view_is_never_refused(throttled: Throttled, path: str) -> None:
    with throttled():
        assert statuses(path, 30) == [200] * 30


def test_a_method_of_a_class(throttled: Throttled) -> None:
    with throttled(defaults=False):
        client = Client()
        assert [client.post("/methods/").status_code for _ in range(2)] == [200, 429]
        assert statuses("/methods/", 3) == [200] * 3
        assert statuses("/async-method/", 2) == [200, 429]
    assert site.RUNS == ["post"]


def test_views_of_one_name_count_together(throttled: Throttled) -> None:
    with throttled(defaults=False):
        assert statuses("/one/", 1) + statuses("/other/", 1) + statuses("/one/", 1) == [200, 200, 429]


def test_a_function_says_whose_are_counted_together(throttled: Throttled) -> None:
    with throttled(defaults=False):
        assert statuses("/by-tenant/", 2) == [200, 200]
        assert statuses("/by-tenant/", 2, headers={"X-Tenant": "a"}) == [200, 429]
        assert statuses("/by-tenant/", 1, headers={"X-Tenant": "a"}, REMOTE_ADDR="192.0.2.7") == [200]


@pytest.mark.parametrize("path", ["/by-user/", "/by-user-async/"])
def test_by_user_from_everywhere_and_visitors_by_address(throttled: Throttled, alice: Any, path: str) -> None:
    with throttled(defaults=False):
        client = Client()
        client.force_login(alice)
        assert statuses(path, 1, client, REMOTE_ADDR="192.0.2.1") == [200]
        assert statuses(path, 1, client, REMOTE_ADDR="192.0.2.2") == [429]
        assert statuses(path, 2) == [200, 429]
        assert statuses(path, 1, REMOTE_ADDR="192.0.2.9") == [200]


@pytest.mark.parametrize("path", ["/by-user-async/", "/twice-async/", "/by-day-async/", "/class/"])
def test_under_asgi(throttled: Throttled, alice: Any, path: str) -> None:
    async def three() -> list[int]:
        client = AsyncClient()
        await client.aforce_login(alice)
        found = [(await client.get(f"{path}?hour=3")).status_code for _ in range(3)]
        assert (await client.get("/no/such")).status_code == 404
        return found

    expected = {
        "/by-user-async/": [200, 429, 429],
        "/by-day-async/": [429] * 3,
    }.get(path, [200, 200, 429])
    with throttled(defaults=False):
        assert asyncio.run(three()) == expected


def test_own_validators(throttled: Throttled) -> None:
    with throttled(defaults=False) as audit:
        assert Client().get("/by-day/").status_code == 200
        refused = Client().get("/by-day/?hour=3")
        assert (refused.status_code, refused["Retry-After"]) == (429, "3600")
        record = audit.one(event_name="http.request.throttled")
    assert record.attributes["throttling.message"] == "Come back in the morning"
    assert record.attributes["throttling.rule"] == "tests.contrib.throttling.site.Night"


def test_a_view_may_raise_the_exception_by_itself(throttled: Throttled) -> None:
    with throttled() as audit:
        refused = Client().get("/raising/")
        assert (refused.status_code, refused["Retry-After"]) == (429, "91")
        assert audit.one(event_name="http.request.throttled").target == Target("http.route", "raising/")


def test_what_is_no_validator_is_told_at_once() -> None:
    with pytest.raises(TypeError, match=r"'20/minute' is neither a Rule nor has it a method validate"):
        throttling("20/minute")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"number": 0}, "number is 0; write how many are let through, at least 1"),
        ({"timeframe": 0.5}, "timeframe is 0.5; write whole seconds"),
        ({"by": "ip"}, "by is 'ip'; write address, user or a function"),
        ({"on": "logout"}, "on is 'logout'; write one of request, login, login_failed"),
        ({"on": "login_failed", "by": "user"}, "keep the owner of an account out of it"),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rule(**({"number": 1, "timeframe": 60} | arguments))


# --- Django REST framework ---------------------------------------------------------------------


def test_a_class_of_rest_framework_by_the_user_of_the_token(throttled: Throttled, alice: Any) -> None:
    token = {"Authorization": str(alice.pk)}
    with throttled(defaults=False):
        assert statuses("/api/", 3, headers=token) == [200, 200, 429]
        refused = Client().get("/api/", headers=token, REMOTE_ADDR="192.0.2.8")
        assert refused.status_code == 429
        assert refused.json()["detail"] == "Slow down"
        assert statuses("/api/", 3) == [200, 200, 429]  # visitors by their address
    assert len(site.RUNS) == 4


def test_who_has_no_token_is_counted_by_address_though_the_view_never_finds_out_who_asks(
    throttled: Throttled, alice: Any
) -> None:
    with throttled(defaults=False) as audit:
        assert statuses("/locked/", 4) == [403, 403, 429, 429]
        token = {"Authorization": str(alice.pk)}
        assert statuses("/locked/", 3, headers=token) == [200, 200, 429]
        assert len(refusals(audit)) == 3


def test_a_function_and_a_method_of_rest_framework(throttled: Throttled) -> None:
    with throttled(defaults=False):
        assert statuses("/api-function/", 2) == [200, 429]
        client = Client()
        assert [client.post("/orders/").status_code for _ in range(2)] == [200, 429]
        assert statuses("/orders/", 2) == [200, 200]


# --- the answer --------------------------------------------------------------------------------


def test_a_browser_gets_a_page_on_which_the_message_is_only_text(throttled: Throttled) -> None:
    with throttled():
        statuses("/twice/", 2)
        refused = Client().get("/twice/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert refused["Content-Type"] == "text/html; charset=utf-8"
    assert "Two of &lt;b&gt;these&lt;/b&gt; a minute" in refused.content.decode()
    assert 1 <= int(refused["Retry-After"]) <= 90
    assert (refused["Cache-Control"], refused["Vary"]) == ("no-store", "Accept")


def test_a_program_gets_json(throttled: Throttled) -> None:
    with throttled():
        statuses("/twice/", 2)
        refused = Client().get("/twice/", headers={"Accept": "application/json"})
    answer = json.loads(refused.content)
    assert answer == {"detail": "Two of <b>these</b> a minute", "retry_after": int(refused["Retry-After"])}


def test_a_template_of_the_application(throttled: Throttled) -> None:
    templates = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"429.html": "<p>{{ description }}|{{ retry_after }}"},
                    )
                ]
            },
        }
    ]
    with throttled(defaults=False), override_settings(TEMPLATES=templates):
        engines.__dict__.pop("templates", None)
        refused = [Client().get("/twice/") for _ in range(3)][2]
    text = refused.content.decode()
    assert text == f"<p>Two of &lt;b&gt;these&lt;/b&gt; a minute|{refused['Retry-After']}"


def test_the_message_is_translated_when_it_is_shown(throttled: Throttled) -> None:
    class Closed:
        def validate(self, request: HttpRequest) -> None:
            raise ThrottlingException(lazystr("langsam" if translation.get_language() == "de" else "slowly"))

    @throttling(Closed())
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")

    from django.urls import path

    urls = type("urls", (), {"urlpatterns": [path("view/", view)]})
    with throttled(), override_settings(ROOT_URLCONF=urls), translation.override("de"):
        refused = Client().get("/view/").content.decode()
    assert "langsam" in refused
    assert '<html lang="de">' in refused


@pytest.mark.parametrize(
    ("name", "body"), [("failing_view", "custom Slow down "), ("failing_view_async", "async")]
)
def test_a_failure_view_of_the_application(throttled: Throttled, name: str, body: str) -> None:
    with throttled(defaults=False, failure_view=f"tests.contrib.throttling.site:{name}"):
        refused = [Client().get("/class/") for _ in range(3)][2]
        assert refused.status_code == 420
        assert refused.content.decode().startswith(body)
        assert int(refused["Retry-After"]) > 0


@pytest.mark.parametrize("name", ["tests.contrib.throttling.site:broken_view", "tests.no_such:view"])
def test_a_failure_view_that_fails_is_told_and_costs_nothing(
    throttled: Throttled, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with throttled(defaults=False, failure_view=name) as audit:
        assert statuses("/twice/", 3) == [200, 200, 429]
        assert audit.pipeline.health.capture_failures == {"throttling": 1}
    assert "the failure view" in caplog.text


# --- the address -------------------------------------------------------------------------------


def test_a_forged_header_is_no_other_address(throttled: Throttled) -> None:
    with throttled(defaults=False):
        client = Client()
        found = [
            client.get("/twice/", headers={"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": "1.2.3.4"})
            for number in range(3)
        ]
    assert [each.status_code for each in found] == [200, 200, 429]


def test_behind_a_trusted_proxy_each_client_has_its_own(throttled: Throttled) -> None:
    with throttled(defaults=False, context=ContextConfig(trusted_proxies=1)):
        client = Client()
        for number in range(5):
            headers = {"X-Forwarded-For": f"10.0.0.{number}, 203.0.113.{number}"}
            assert statuses("/twice/", 3, client, headers=headers) == [200, 200, 429]
        forged = [{"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.1"} for number in range(3)]
        assert [client.get("/twice/", headers=each).status_code for each in forged] == [429] * 3


def test_addresses_of_one_ipv6_network_are_one(throttled: Throttled) -> None:
    with throttled(defaults=False):
        one = [f"2001:db8:1:2::{number:x}" for number in range(3)]
        assert [statuses("/twice/", 1, REMOTE_ADDR=each)[0] for each in one] == [200, 200, 429]
        assert statuses("/twice/", 1, REMOTE_ADDR="2001:db8:1:3::1") == [200]


def test_without_an_address_nobody_is_refused_in_anothers_place_and_it_is_told(
    throttled: Throttled, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket of a proxy that says nothing: all visitors would be one."""
    with throttled(defaults=False) as audit:
        assert statuses("/twice/", 5, REMOTE_ADDR="") == [200] * 5
        assert audit.pipeline.health.capture_failures["throttling"] == 5
    assert "set context.trusted_proxies" in caplog.text


# --- many at a time ----------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["", "memory"])
def test_of_fifty_requests_at_a_time_exactly_as_many_pass_as_may(throttled: Throttled, storage: str) -> None:
    """The first of them make what counts; whoever is second counts by the same."""
    from otel_audit.contrib.throttling.django.middleware import ViewThrottlingMiddleware

    begin = threading.Barrier(50)
    seen: Counter[int] = Counter()

    def ask() -> None:
        begin.wait()
        seen[Client().get("/").status_code] += 1

    # A window that ends in 2036: the clock is the real one, where each process counts by itself.
    rules = {"all": {"number": 20, "timeframe": 700_000_000}}
    with throttled(storage=storage, defaults=False, rules=rules) as audit:
        if storage and ViewThrottlingMiddleware.throttling is not None:
            ViewThrottlingMiddleware.throttling.throttle = None
        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == Counter({200: 20, 429: 30})
        assert len(refusals(audit)) == 30
