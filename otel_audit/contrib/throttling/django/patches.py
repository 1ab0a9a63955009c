"""All that throttling wraps of Django and Django REST framework, in one table."""

from __future__ import annotations

from otel_audit.contrib.throttling.django.middleware import DjangoThrottling
from otel_audit.instrumentation.patching import Patch


def table(throttling: DjangoThrottling) -> list[Patch]:
    """List everything that is wrapped."""
    return [
        Patch(
            "django.core.handlers.base:BaseHandler.load_middleware",
            throttling.load_middleware,
            "the middleware needs no entry in settings.MIDDLEWARE",
        ),
        Patch(
            "django.core.handlers.exception:response_for_exception",
            throttling.response_for_exception,
            "ThrottlingException, wherever it is raised, is answered with 429",
        ),
        Patch(
            "django.contrib.auth:_get_compatible_backends",
            throttling.logins.backends,
            "authenticate() and aauthenticate() ask it each time, however they were imported",
        ),
        Patch(
            "rest_framework.views:APIView.check_throttles",
            throttling.check_throttles,
            "it is called when a token has been found to be somebody's",
            late=True,
        ),
    ]
