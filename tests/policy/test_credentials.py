"""Views of logins, passwords and tokens: metadata only, unless a rule names them literally."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from otel_audit.config.model import AuditConfig
from otel_audit.policy import Decision, Facts, Level, Policy


def decide(facts: Facts, *rules: dict[str, Any]) -> Decision:
    return Policy.of(msgspec.convert({"policy": list(rules)}, AuditConfig)).decide("request", facts)


CREDENTIALS = [
    Facts(path="/login/", view="django.contrib.auth.views.LoginView", route="login/"),
    Facts(
        path="/password_change/",
        view="django.contrib.auth.views.PasswordChangeView",
        route="password_change/",
    ),
    Facts(path="/reset/", view="django.contrib.auth.views.PasswordResetView", route="reset/"),
    Facts(
        path="/reset/MQ/set-password/",
        view="django.contrib.auth.views.PasswordResetConfirmView",
        route="reset/<uidb64>/<token>/",
    ),
    Facts(path="/admin/login/", view="django.contrib.admin.sites.AdminSite.login", route="admin/login/"),
    Facts(path="/admin/login/", view="django.contrib.admin.sites.login", route="admin/login/"),
    Facts(
        path="/admin/auth/user/1/password/",
        view="django.contrib.auth.admin.user_change_password",
        route="admin/auth/user/<id>/password/",
    ),
    Facts(path="/api/x/", view="rest_framework.authtoken.views.ObtainAuthToken", route="api/x/"),
    Facts(path="/api/x/", view="rest_framework_simplejwt.views.TokenObtainPairView", route="api/x/"),
    Facts(path="/api/x/", view="rest_framework_simplejwt.views.TokenRefreshView", route="api/x/"),
    Facts(path="/api/x/", view="rest_framework_simplejwt.views.TokenVerifyView", route="api/x/"),
    Facts(path="/x/", view="allauth.account.views.LoginView", route="x/"),
    Facts(path="/x/", view="allauth.account.views.SignupView", route="x/"),
    Facts(path="/x/", view="allauth.account.views.ReauthenticateView", route="x/"),
    Facts(path="/x/", view="allauth.account.views.PasswordResetFromKeyView", route="x/"),
    Facts(path="/x/", view="allauth.account.views.ConfirmLoginCodeView", route="x/"),
    Facts(path="/x/", view="allauth.mfa.base.views.AuthenticateView", route="x/"),
    Facts(path="/x/", view="allauth.mfa.totp.views.ActivateTOTPView", route="x/"),
    Facts(path="/x/", view="allauth.mfa.webauthn.views.AddWebAuthnView", route="x/"),
    Facts(path="/x/", view="allauth.mfa.recovery_codes.views.ViewRecoveryCodesView", route="x/"),
    Facts(
        path="/_allauth/browser/v1/auth/2fa/authenticate", route="_allauth/<client>/v1/auth/2fa/authenticate"
    ),
    Facts(path="/token", view="app.main.issue", route="/token"),
    Facts(path="/x", view="app.main.login_for_access_token", route="/x"),
    Facts(
        path="/auth/jwt/login",
        view="fastapi_users.router.auth.get_auth_router.<locals>.login",
        route="/auth/x",
    ),
    Facts(path="/auth/forgot-password", view="x", route="/auth/forgot-password"),
    Facts(path="/oauth2/v2.0/authorize", route="/oauth2/v2.0/authorize"),
    Facts(path="/x", view="bank.views.change", route="cards/<int:number>/pin/"),
    Facts(path="/x", view="konto.views.anmelden", route="x"),
    Facts(path="/accounts/login/"),
    Facts(path="/accounts/login/", view="spa.views.index", route="<path:rest>"),
    Facts(path="/accounts/login/", view="spa.views.index", route="^(?P<rest>.*)$"),
    Facts(path="/accounts/login", view="proxy", route="/{rest:path}"),
]


@pytest.mark.parametrize("facts", CREDENTIALS, ids=lambda facts: facts.view or facts.path)
def test_views_with_credentials_are_recorded_without_them(facts: Facts) -> None:
    found = decide(facts, {"path": "/?*", "level": "request_response", "slug": "s"})
    assert (found.level, found.rule, found.slug) == (Level.METADATA, 1, "s")
    assert found.capped


@pytest.mark.parametrize(
    "facts",
    [
        Facts(path="/api/cards/7", view="shop.views.CardView", route="api/cards/<int:pk>"),
        Facts(
            path="/articles/how-to-choose-a-password/", view="blog.views.article", route="articles/<slug>/"
        ),
        Facts(path="/blog/login-and-logout", view="blog.views.page", route="/blog/{slug}"),
        Facts(path="/me", view="shop.authentication.views.profile", route="me"),
        Facts(path="/logging/", view="ops.views.logging_level", route="logging/"),
        Facts(path="/keys/", view="music.views.KeySignatures", route="keys/"),
        Facts(path="/tokenize/", view="nlp.views.Tokenizer", route="tokenize/"),
        Facts(path="/passes/", view="ski.views.passes", route="passes/"),
        Facts(path="/map/pins/", view="map.views.pins", route="map/pins/"),
    ],
    ids=lambda facts: facts.view,
)
def test_other_views_are_recorded_as_the_rule_says(facts: Facts) -> None:
    found = decide(
        facts, {"path": "/?*/*", "level": "request_response"}, {"path": "/me", "level": "request_response"}
    )
    assert (found.level, found.capped) == (Level.REQUEST_RESPONSE, "")


@pytest.mark.parametrize(
    "rule",
    [
        {"path": "/accounts/login/"},
        {"view": "django.contrib.auth.views.LoginView"},
        {"route": ["x", "accounts/login/"]},
        {"view": "django.*", "path": "/accounts/login/"},
    ],
)
def test_a_rule_that_names_the_view_literally_is_obeyed(rule: dict[str, Any]) -> None:
    facts = Facts(
        path="/accounts/login/",
        view="django.contrib.auth.views.LoginView",
        route="accounts/login/",
        method="POST",
    )
    found = decide(facts, {**rule, "level": "request"})
    assert (found.level, found.capped) == (Level.REQUEST, "")
    assert decide(facts, {"path": "/accounts/login*", "level": "request"}).level is Level.METADATA


def test_calls_to_others_for_a_token_are_recorded_without_it() -> None:
    config = msgspec.convert(
        {"policy": [{"host": "login.example", "path": "/*", "level": "request_response"}]}, AuditConfig
    )
    policy = Policy.of(config)
    assert (
        policy.decide("outgoing", Facts(host="login.example", path="/oauth2/token")).level is Level.METADATA
    )
    assert (
        policy.decide("outgoing", Facts(host="login.example", path="/users")).level is Level.REQUEST_RESPONSE
    )
