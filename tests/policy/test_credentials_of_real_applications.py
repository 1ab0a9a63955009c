"""Views of Django, its admin, REST framework and FastAPI that take credentials are known by name."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import pytest
from django.contrib import admin
from fastapi import Depends, FastAPI
from fastapi.security import OAuth2PasswordRequestForm

from otel_audit.config.sections.policy import PolicyRule
from otel_audit.location import view_name
from otel_audit.policy import Facts, Level, Policy
from tests.instrumentation.django import project

assert project.__name__  # importing it sets Django up

POLICY = Policy(
    [PolicyRule(view="*", level="request_response"), PolicyRule(path="/?*", level="request_response")]
)


def level(view: Any, route: str) -> Level:
    return POLICY.decide("request", Facts(path="/x", view=view_name(view), route=route, method="POST")).level


def django_patterns() -> list[tuple[Any, str]]:
    patterns = [
        *import_module("django.contrib.auth.urls").urlpatterns,
        *admin.site.urls[0],
    ]
    return [
        (getattr(each.callback, "view_class", each.callback), str(each.pattern))
        for each in patterns
        if hasattr(each, "callback")
    ]


def test_every_view_of_djangos_logins_and_passwords_is_known() -> None:
    levels = {f"{view_name(view)} {route}": level(view, route) for view, route in django_patterns()}
    bodies = {name for name, found in levels.items() if found > Level.METADATA}
    assert not [name for name in bodies if "login" in name.lower() or "password" in name.lower()]
    assert len(levels) - len(bodies) >= 12
    # What neither logs in nor has a password.
    assert any("logout" in name for name in bodies)
    assert any("AdminSite.index" in name for name in bodies)


def test_rest_frameworks_token_view_is_known() -> None:
    view = import_module("rest_framework.authtoken.views").ObtainAuthToken
    assert level(view, "x/") is Level.METADATA


@pytest.mark.parametrize("name", ["/token", "/x"])
def test_fastapis_token_route_is_known_by_its_path_or_function(name: str) -> None:
    application = FastAPI()

    @application.post(name)
    def login_for_access_token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
        return {"access_token": form.username}

    @application.post("/items")
    def items() -> None:
        """Take no credentials."""

    routes: list[Any] = application.routes[-2:]
    found = {route.path: level(route.endpoint, route.path) for route in routes}
    assert found == {name: Level.METADATA, "/items": Level.REQUEST_RESPONSE}
