"""explain request, outgoing, command, task: which rule decides, where it stands, and what is recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_doctor import make_shop

CONFIG = """
[redaction]
personal_numbers = true

[[policy]]
path = "/health"
level = "none"

[[policy]]
path = "/api/*"
status = "5xx"
level = "request_response"
slug = "api-error"
max_response_body = 100

[[policy]]
view = "shop.views.Card*"
level = "request"

[[policy]]
path = "/*x*"
route = "*login*"
level = "request"

[[policy]]
kind = "outgoing"
host = "*.internal"
level = "request_response"
bodies = false

[[policy]]
command = ["migrate", "billing.*"]
level = "request_response"

[[policy]]
task = "shop.tasks.*"
user = "*"
level = "request"
"""
VIEWS = """
from django.http import HttpResponse
from django.views import View

class CardView(View):
    pass

def login(request, then=""):
    return HttpResponse()
"""
URLS = """
from django.urls import path
from shop import views

urlpatterns = [
    path("api/cards/<int:pk>", views.CardView.as_view()),
    path("login/<path:then>", views.login),
]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_shop(tmp_path, monkeypatch, "ROOT_URLCONF = 'shop.urls'")
    (tmp_path / "shop" / "views.py").write_text(VIEWS)
    (tmp_path / "shop" / "urls.py").write_text(URLS)
    return configured(tmp_path)


def configured(directory: Path) -> Path:
    (directory / "otel-audit.toml").write_text(CONFIG)
    return directory


def explained(command: Command, *arguments: str) -> list[tuple[str, str, str]]:
    done = command("explain", *arguments, "--json")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    return [
        (
            line["subject"],
            line["answer"],
            ", ".join(filter(None, (line["rule"], line["place"].rpartition("/")[2]))),
        )
        for line in lines
    ]


def of(lines: list[tuple[str, str, str]], subject: str) -> list[tuple[str, str]]:
    return [(answer, why) for each, answer, why in lines if each == subject]


def test_a_rule_that_needs_no_more_decides_at_once(command: Command, tmp_path: Path) -> None:
    configured(tmp_path)
    lines = explained(command, "request", "GET", "/health")
    assert of(lines, "level") == [("none", "policy 1, otel-audit.toml:5")]
    assert of(lines, "recorded") == [("nothing", "")]


def test_rules_that_need_more_than_was_said_are_told_with_what_they_need(
    command: Command, shop: Path
) -> None:
    lines = explained(command, "request", "POST", "/api/cards/7?page=2")
    assert of(lines, "level if status 5xx") == [("request_response", "policy 2, otel-audit.toml:9")]
    assert of(lines, "slug") == [("api-error", "policy 2, otel-audit.toml:9")]
    assert of(lines, "max_response_body") == [("100 bytes", "policy 2, otel-audit.toml:9")]
    assert of(lines, "max_request_body") == [("16384 bytes", "requests.max_request_body")] * 2
    assert of(lines, "level otherwise") == [("request", "policy 3, otel-audit.toml:16")]
    assert of(lines, "policy 1") == [("does not match: path /health", "otel-audit.toml:5")]
    assert of(lines, "not recorded") == [("headers and body of the response", "")]
    lines = explained(command, "request", "POST", "/api/cards/7", "--status", "200")
    assert of(lines, "level") == [("request", "policy 3, otel-audit.toml:16")]
    assert of(lines, "policy 2") == [("does not match: status 5xx", "otel-audit.toml:9")]


def test_view_and_route_are_found_in_the_urlconf(command: Command, shop: Path) -> None:
    done = command("explain", "request", "POST", "/api/cards/7", width=150)
    assert "view shop.views.CardView, route api/cards/<int:pk>" in re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    assert "not known" not in done.err
    done = command("explain", "request", "POST", "/nowhere/")
    assert "note: no route of the application matches /nowhere/" in done.err


def test_a_login_is_told_to_be_one(command: Command, shop: Path) -> None:
    lines = explained(command, "request", "POST", "/login/x")
    assert of(lines, "level") == [("metadata", "policy 4, otel-audit.toml:20")]
    [(answer, why)] = of(lines, "")
    assert answer.startswith("not more, because of 'login'")
    assert why == "built-in rule"


@pytest.mark.parametrize("breaks", ["raise RuntimeError('no urls')", "import missing_module"])
def test_an_application_that_cannot_be_loaded_is_a_note(command: Command, shop: Path, breaks: str) -> None:
    (shop / "shop" / "urls.py").write_text(breaks)
    done = command("explain", "request", "POST", "/api/cards/7")
    assert done.status == 0
    assert "note: view and route are not known: the application cannot be loaded: " in done.err
    assert "level if status 5xx" in done.out


def test_without_an_application_view_and_route_may_be_named(command: Command, tmp_path: Path) -> None:
    configured(tmp_path)
    done = command("explain", "request", "POST", "/cards/7", "--status", "200")
    assert "there is neither a Django project nor an application of FastAPI or Starlette here" in done.err
    lines = explained(command, "request", "POST", "/cards/7", "--view", "shop.views.CardView")
    assert of(lines, "level") == [("request", "policy 3, otel-audit.toml:16")]


def test_calls_commands_and_tasks_are_explained(command: Command, tmp_path: Path) -> None:
    configured(tmp_path)
    lines = explained(command, "outgoing", "POST", "https://user:pass@api.internal:8001/orders")
    assert of(lines, "level") == [("request_response", "policy 5, otel-audit.toml:25")]
    assert of(lines, "not recorded") == [("body of the request; body of the response", "")]
    lines = explained(command, "command", "billing.nightly")
    assert of(lines, "level") == [("request_response", "policy 6, otel-audit.toml:31")]
    assert "output" in of(lines, "recorded")[0][0]
    lines = explained(command, "command", "shell")
    assert of(lines, "level") == [("metadata", "no rule matches")]
    lines = explained(command, "task", "shop.tasks.ship")
    assert of(lines, "level if user *") == [("request", "policy 7, otel-audit.toml:35")]
    assert of(lines, "level otherwise") == [("metadata", "no rule matches")]
    lines = explained(command, "task", "shop.tasks.ship", "--user", "7")
    assert of(lines, "level") == [("request", "policy 7, otel-audit.toml:35")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("request", "GET", "api/cards"), "'api/cards' is not a path: it begins with '/'"),
        (("outgoing", "GET", "/orders"), "'/orders' is not a URL with a host"),
    ],
)
def test_what_is_no_address_is_refused(command: Command, arguments: tuple[str, ...], message: str) -> None:
    done = command("explain", *arguments)
    assert done.status != 0
    assert message in done.err


def test_credentials_of_an_address_are_not_printed(command: Command, tmp_path: Path) -> None:
    done = command("explain", "outgoing", "GET", "https://user:hunter2@api.internal/?token=hunter2")
    assert "hunter2" not in done.out + done.err
    done = command("explain", "request", "GET", "https://user:hunter2@shop.example/x?token=hunter2")
    assert "hunter2" not in done.out + done.err


def test_what_is_switched_off_is_a_note(command: Command, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text("enabled = false\n" + CONFIG)
    assert "note: nothing is recorded now: enabled is false" in command("explain", "task", "x").err
    (tmp_path / "otel-audit.toml").write_text(CONFIG)
    for arguments, said in (
        (("request", "GET", "/health"), "requests.enabled is false"),
        (("outgoing", "GET", "http://x/"), "outgoing.enabled is false"),
        (("command", "migrate"), "commands.enabled is false"),
        (("task", "x"), "celery.enabled is false, and so is rq.enabled"),
    ):
        assert f"note: nothing is recorded now: {said}" in command("explain", *arguments).err
    (tmp_path / "otel-audit.toml").write_text(CONFIG + "[rq]\nenabled = true\n")
    assert "nothing is recorded" not in command("explain", "task", "x").err


def test_what_a_section_leaves_out_is_a_note(command: Command, tmp_path: Path) -> None:
    sections = """
[requests]
enabled = true
ignore_paths = ["/static/*"]

[outgoing]
enabled = true
ignore_hosts = ["localhost:9200", "*.internal"]

[commands]
enabled = true
"""
    (tmp_path / "otel-audit.toml").write_text(CONFIG + sections)
    for arguments, said in (
        (("request", "GET", "/static/a.css"), "requests.ignore_paths names it (otel-audit.toml:42)"),
        (
            ("outgoing", "GET", "http://localhost:9200/"),
            "outgoing.ignore_hosts names it (otel-audit.toml:46)",
        ),
        (("outgoing", "GET", "http://a.internal:1/"), "outgoing.ignore_hosts names it (otel-audit.toml:46)"),
        (("command", "runserver"), "commands.exclude names it (by default)"),
    ):
        assert f"note: nothing is recorded of it: {said}" in command("explain", *arguments).err
    for arguments in (
        ("request", "GET", "/static"),
        ("outgoing", "GET", "http://localhost:9201/"),
        ("command", "migrate"),
    ):
        assert "nothing is recorded" not in command("explain", *arguments).err
    everything = "[commands]\nenabled = true\nexclude = []\n"
    (tmp_path / "otel-audit.toml").write_text(CONFIG + everything)
    assert "nothing is recorded" not in command("explain", "command", "runserver").err


def test_changes_are_explained_with_the_rule_that_lowers_them(command: Command, shop: Path) -> None:
    config = '[django]\nmodels = ["shop.*"]\n[[policy]]\nmodel = "shop.Card"\nlevel = "metadata"\n'
    (shop / "otel-audit.toml").write_text(config)
    lines = explained(command, "model", "shop.Card")
    assert of(lines, "changes") == [("recorded", "models: 'shop.*', otel-audit.toml:2")]
    assert of(lines, "values") == [
        ("not recorded: only which fields are changed", 'policy 1: level = "metadata", otel-audit.toml:3')
    ]
    (shop / "otel-audit.toml").write_text(config.replace("metadata", "none"))
    lines = explained(command, "model", "shop.Card")
    assert of(lines, "changes") == [("not recorded", 'policy 1: level = "none", otel-audit.toml:3')]


def test_the_rules_are_listed_in_order(command: Command, tmp_path: Path) -> None:
    configured(tmp_path)
    done = command("explain", "policy")
    lines = done.out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith('1  path = "/health", level = "none"  (')
    assert lines[0].endswith("otel-audit.toml:5)")
    rows = [json.loads(line) for line in command("explain", "policy", "--json").out.splitlines()]
    assert rows[5]["command"] == ["migrate", "billing.*"]
    (tmp_path / "otel-audit.toml").write_text("")
    assert "There is no rule" in command("explain", "policy").err


def test_a_rule_that_never_decides_is_noted_where_rules_are_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text(CONFIG + '[[policy]]\npath = "/health"\nlevel = "request"\n')
    note = "policy: rule 8 never decides: rule 1 before it matches all that it matches"
    assert note in command("explain", "policy").err
    assert note in command("config", "show").err


def test_the_configuration_shows_each_rule_with_its_place(command: Command, tmp_path: Path) -> None:
    configured(tmp_path)
    rows = [json.loads(line) for line in command("config", "show", "--json").out.splitlines()]
    [found] = [row for row in rows if row["key"] == "policy.6"]
    assert found["value"] == {"command": ["migrate", "billing.*"], "level": "request_response"}
    assert found["origin"].endswith("otel-audit.toml:31")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", command("config", "show", "--changed", width=200).out)
    assert "policy.1" in shown
    assert '{ "path" = "/health", "level" = "none" }' in shown
