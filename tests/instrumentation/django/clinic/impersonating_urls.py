"""The clinic with the packages by which support staff take over an account."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import login
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.functional import SimpleLazyObject
from hijack.views import AcquireUserView

from tests.instrumentation.django.clinic import urls


def as_another(request: HttpRequest) -> HttpResponse:
    """Record as somebody a token named, whatever the session says."""
    str(request.user)
    request.user = User.objects.get(username="alice")
    urls.record()
    return HttpResponse("ok")


class Quiet(AcquireUserView):
    """Takes an account over and tells nobody."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        login(request, self.get_object(), backend="django.contrib.auth.backends.ModelBackend")
        return HttpResponse("ok")


class _Broken:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def odd(request: HttpRequest, what: str) -> HttpResponse:
    """Record with something else under the name of the impersonator."""
    str(request.user)
    impersonators: dict[str, Any] = {
        "text": "yes",
        "lazy": SimpleLazyObject(lambda: User.objects.get(username="nobody")),
        "broken": _Broken(),
        "anonymous": AnonymousUser(),
    }
    request.impersonator = impersonators[what]  # type: ignore[attr-defined]
    urls.record()
    return HttpResponse("ok")


def prefetched(request: HttpRequest) -> HttpResponse:
    """Record after the groups of the user were loaded."""
    prefetch_related_objects([request.user], "groups")  # type: ignore[type-var]
    urls.record()
    return HttpResponse("ok")


urlpatterns = [
    path("hijack/", include("hijack.urls")),
    path("impersonate/", include("impersonate.urls")),
    path("hijack-quietly/", Quiet.as_view()),
    path("as-another/", as_another),
    path("odd/<str:what>/", odd),
    path("prefetched/", prefetched),
    *urls.urlpatterns,
]
