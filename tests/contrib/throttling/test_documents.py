"""docs/throttling.md: its settings are settings, its programs run, and do what the page says."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template
from django.test import Client, override_settings
from django.urls import path
from fastapi.testclient import TestClient

from otel_audit.config.loader import load
from otel_audit.config.model import ThrottlingConfig
from otel_audit.contrib import throttling as public
from otel_audit.contrib.throttling import ThrottlingException
from otel_audit.contrib.throttling.rules import DEFAULTS, Rule
from otel_audit.contrib.throttling.throttler import rule_of
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.semconv import THROTTLING_LIMIT, THROTTLING_MESSAGE, THROTTLING_RETRY_AFTER, THROTTLING_RULE
from tests.audited import audited
from tests.contrib.throttling.conftest import Throttled

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "throttling.md").read_text("utf-8")
SETTINGS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
[TEMPLATE] = re.findall(r"```html\n(.*?)```", PAGE, re.DOTALL)

Imported = Callable[[str], ModuleType]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imported]:
    """Import a program of the page under the name that it has there."""
    monkeypatch.syspath_prepend(tmp_path)

    def importing(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(PROGRAMS[name])
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield importing
    for name in PROGRAMS:
        sys.modules.pop(name, None)


def settings_with(text: str, directory: Path) -> ThrottlingConfig:
    """The settings of the page that hold ``text``."""
    [block] = [each for each in SETTINGS if text in each]
    (directory / "otel-audit.toml").write_text(block)
    loaded = load(directory / "otel-audit.toml", environ={})
    assert loaded.origins
    return loaded.config.throttling


def test_every_block_of_the_page_is_tried_here() -> None:
    blocks = re.findall(r"^```(\w+)\n", PAGE, re.MULTILINE)
    assert len(blocks) == len(SETTINGS) + len(PROGRAMS) + 2  # the template, and how to install
    assert set(PROGRAMS) == {"shop_throttling", "shop_views", "accounts", "shop_answers", "main"}


def test_the_command_that_installs_names_an_extra() -> None:
    [extra] = re.findall(r"pip install 'otel-audit\[(\w+)\]'", PAGE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["optional-dependencies"][extra]


@pytest.mark.parametrize("text", SETTINGS)
def test_each_configuration_of_the_page_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "otel-audit.toml").write_text(text)
    loaded = load(tmp_path / "otel-audit.toml", environ={})
    assert loaded.config.throttling.enabled


@pytest.mark.parametrize("source", ["file", "setting", "variable"])
def test_one_word_switches_on_what_the_page_says(tmp_path: Path, source: str) -> None:
    (tmp_path / "otel-audit.toml").write_text(SETTINGS[0] if source == "file" else "")
    [variable] = re.findall(r"`(OTEL_AUDIT_THROTTLING_ENABLED)=(true)`", PAGE)
    [setting] = re.findall(r"`OTEL_AUDIT = (\{.*?\})`", PAGE)
    loaded = load(
        None if source == "setting" else tmp_path / "otel-audit.toml",
        environ=dict([variable]) if source == "variable" else {},
        django_settings=eval(setting) if source == "setting" else None,
    )
    assert loaded.config.throttling == ThrottlingConfig(enabled=True)
    assert [(rule.number, rule.timeframe, rule.by) for rule in DEFAULTS] == [
        (1000, 3600, ("address",)),
        (20, 60, ("address",)),
    ]


def test_the_rules_of_the_file(tmp_path: Path, imported: Imported) -> None:
    shop = imported("shop_throttling")
    section = settings_with("[throttling.rules.writes]", tmp_path)
    rules = {name: rule_of(name, each) for name, each in section.rules.items()}
    assert str(rules["minute"]) == "60 requests in 60 s by address"
    assert str(rules["writes"]) == "10 requests in 60 s by user"
    assert rules["writes"].is_for("/api/orders/7", "PATCH")
    assert not rules["writes"].is_for("/api/orders/7", "GET")
    assert rules["tenant"].by == (shop.tenant,)
    assert str(rules["guesses"]) == "5 failed logins in 300 s by user and address"
    assert str(rules["guesses_from"]) == "50 failed logins in 3600 s by address"
    assert section.exempt == ["/health", "/static/*"]


def test_the_rules_in_code(throttled: Throttled, imported: Imported, tmp_path: Path) -> None:
    imported("shop_throttling")
    section = settings_with("validators =", tmp_path)
    with throttled(validators=section.validators) as audit:
        closed = Client().get("/?hour=3")
        assert (closed.status_code, closed["Retry-After"]) == (429, str(3 * 3600))
        record = audit.one(event_name="http.request.throttled")
    assert record.attributes[THROTTLING_RULE] == "shop_throttling.OpeningHours"
    assert record.attributes[THROTTLING_MESSAGE] == "We open at six"


def test_the_views(throttled: Throttled, imported: Imported) -> None:
    views = imported("shop_views")
    urls = type(
        "urls",
        (),
        {
            "urlpatterns": [
                path("export/", views.export),
                path("search/", views.search),
                path("health/", views.health),
                path("report/", views.Report.as_view()),
                path("orders/", views.Orders.as_view()),
            ]
        },
    )
    with throttled(), override_settings(ROOT_URLCONF=urls):
        client = Client()

        def get(what: str, times: int) -> list[int]:
            return [client.get(what).status_code for _ in range(times)]

        assert get("/export/", 4) == [200, 200, 200, 429]
        assert client.get("/export/").content.decode().count("Three exports an hour") == 1
        assert [client.post("/report/").status_code for _ in range(2)] == [200, 429]
        assert get("/report/", 3) == [200] * 3
        assert get("/orders/", 3) == [200, 200, 429]
        assert get("/health/", 50) == [200] * 50
        assert get("/search/", 101) == [200] * 100 + [429]


def test_the_template_and_the_view_that_fails(throttled: Throttled, imported: Imported) -> None:
    imported("shop_answers")
    shown = Template(TEMPLATE).render(Context({"description": "<i>", "retry_after": 7}))
    assert shown.split("\n")[1:3] == ["<p>&lt;i&gt;</p>", "<p>Try again in 7 seconds.</p>"]
    templates: list[Any] = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"429.html": TEMPLATE})]},
        }
    ]
    with throttled(failure_view="shop_answers:too_many"), override_settings(TEMPLATES=templates):
        answers = [Client().get("/class/") for _ in range(3)]
    assert answers[2].status_code == 429
    assert "Not so fast" in answers[2].content.decode()
    assert answers[2]["Retry-After"]


@pytest.mark.parametrize("name", ["accounts", "main"])
def test_the_asgi_applications(imported: Imported, name: str) -> None:
    from otel_audit.config.model import AuditConfig, ThrottlingRuleConfig

    rules = {"guesses": ThrottlingRuleConfig(number=5, timeframe=300, on="login_failed")}
    config = AuditConfig(throttling=ThrottlingConfig(enabled=True, rules=rules))
    app = imported(name).app
    with audited(StarletteAuditInstrumentor(), config) as audit, TestClient(app) as client:
        if name == "main":
            assert [client.get("/export").status_code for _ in range(4)] == [200, 200, 200, 429]
            assert client.get("/").status_code == 200
        else:
            form = {"name": "alice", "password": "wrong"}
            assert client.post("/login", params=form | {"password": "correct horse"}).status_code == 200
            assert [client.post("/login", params=form).status_code for _ in range(6)] == [401] * 5 + [429]
        record = audit.one(event_name="http.request.throttled")
    assert (record.action, record.outcome) == ("REFUSE", "failure")
    assert THROTTLING_RETRY_AFTER in record.attributes
    assert record.attributes[THROTTLING_LIMIT] in (3, 5)
    for attribute in record.attributes:
        assert f"`{attribute}`" in PAGE


def test_the_wait_that_the_page_promises() -> None:
    """Within the timeframe and the number-th part of it, whenever it begins."""
    from otel_audit.contrib.throttling.counters.windows import Window, wait

    for number in (1, 2, 5, 100):
        for elapsed in range(60):
            assert wait(0, number, elapsed, Window("k", number, 60)) <= 60 + 60 / number
            assert wait(number, number, elapsed, Window("k", number, 60)) <= 60 + 60 / number


def test_names_of_the_page_are_public() -> None:
    for name in re.findall(
        r"`((?:a?check_login|per_\w+|throttling_exempt|ThrottlingException|Rule))\b", PAGE
    ):
        assert name in public.__all__
    assert set(public.__all__) <= set(re.findall(r"\w+", PAGE))
    assert dir(public) == sorted(public.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = public.nothing


def test_a_rule_says_what_it_does() -> None:
    assert str(Rule(10, 60, by=["user", raising])) == f"10 requests in 60 s by user and {__name__}.raising"


def raising(request: HttpRequest) -> HttpResponse:
    raise ThrottlingException
