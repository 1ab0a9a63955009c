"""Views that are throttled in every way a view can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth import aauthenticate, alogin, authenticate, login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.views import View
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import api_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from otel_audit.contrib.throttling import (
    Rule,
    ThrottlingException,
    per_failed_login,
    per_login,
    per_request,
    throttling,
    throttling_exempt,
)

RUNS: list[str] = []


def index(request: HttpRequest) -> HttpResponse:
    RUNS.append("index")
    return HttpResponse("ok")


@throttling(per_request(2, 60, "Two of <b>these</b> a minute"))
def twice(request: HttpRequest) -> HttpResponse:
    RUNS.append("twice")
    return HttpResponse("ok")


@throttling(per_request(2, 60))
async def twice_async(request: HttpRequest) -> HttpResponse:
    RUNS.append("twice_async")
    return HttpResponse("ok")


@throttling(per_request(3, 60), keep_default=False)
def thrice(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling_exempt
def exempt(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling_exempt
@throttling(per_request(1, 60))
def exempt_after_all(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def hiding(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that keeps nothing of what it decorates."""

    def answering(request: HttpRequest) -> Any:
        return view(request)

    return answering


@hiding
@throttling(per_request(2, 60))
def hidden(request: HttpRequest) -> HttpResponse:
    RUNS.append("hidden")
    return HttpResponse("ok")


@throttling(per_request(2, 60))
class Twice(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        RUNS.append("Twice")
        return HttpResponse("ok")


class Methods(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")

    @throttling(per_request(1, 60))
    def post(self, request: HttpRequest) -> HttpResponse:
        RUNS.append("post")
        return HttpResponse("ok")


class AsyncView(View):
    @throttling(per_request(1, 60))
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")


@throttling_exempt
class Exempt(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")


class Token(BaseAuthentication):
    """The token is the key of the user."""

    def authenticate(self, request: Any) -> Any:
        from django.contrib.auth.models import User

        key = request.headers.get("Authorization")
        return (User.objects.get(pk=key), None) if key else None


class Locked(APIView):
    """Refuses whoever has no token."""

    authentication_classes = [Token]
    permission_classes = [IsAuthenticated]

    @throttling(per_request(2, 60, by="user"))
    def get(self, request: Any) -> Response:
        return Response({})


@throttling(per_request(2, 60, by="user"))
class Api(APIView):
    authentication_classes = [Token]

    def get(self, request: Any) -> Response:
        RUNS.append("Api")
        return Response({"user": request.user.pk})


@throttling(per_request(1, 60))
@api_view(["GET"])  # type: ignore[untyped-decorator]
def api_function(request: Any) -> Response:
    return Response({})


class Orders(ViewSet):
    authentication_classes: list[Any] = []

    def list(self, request: Any) -> Response:
        return Response([])

    @throttling(per_request(1, 60))
    def create(self, request: Any) -> Response:
        return Response({})


def tenant(request: HttpRequest) -> str | None:
    return request.headers.get("X-Tenant")


@throttling(per_request(1, 60, by=[tenant, "address"]))
def by_tenant(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling(per_request(1, 60, by="user"))
def by_user(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling(per_request(1, 60, by="user"))
async def by_user_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


class Night:
    """Lets nobody through at night."""

    def validate(self, request: HttpRequest) -> None:
        if request.GET.get("hour") == "3":
            raise ThrottlingException("Come back in the morning", retry_after=3600)


class AsyncNight:
    async def validate(self, request: HttpRequest) -> None:
        if request.GET.get("hour") == "3":
            raise ThrottlingException("Come back in the morning")


@throttling(Night())
def by_day(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling(AsyncNight())
async def by_day_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def raising(request: HttpRequest) -> HttpResponse:
    raise ThrottlingException("No more today", retry_after=90.5)


SHARED = Rule(2, 60, name="both")


@throttling(SHARED)
def one(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@throttling(Rule(2, 60, name="both"))
def other(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def sign_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    login(request, user)
    return HttpResponse("in")


async def sign_in_async(request: HttpRequest) -> HttpResponse:
    user = await aauthenticate(request, username=request.POST["name"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong", status=401)
    await alogin(request, user)
    return HttpResponse("in")


@throttling(per_failed_login(2, 60, by="address"), per_login(1, 3600, by=["user", "address"]))
def strict_sign_in(request: HttpRequest) -> HttpResponse:
    RUNS.append("strict")
    return sign_in(request)


def failing_view(request: HttpRequest, exception: ThrottlingException) -> HttpResponse:
    return HttpResponse(f"custom {exception} {exception.retry_after}", status=420)


async def failing_view_async(request: HttpRequest, exception: ThrottlingException) -> HttpResponse:
    return HttpResponse("async custom", status=420)


def broken_view(request: HttpRequest, exception: ThrottlingException) -> HttpResponse:
    raise RuntimeError("the view itself fails")


validators = [per_request(1, 60, name="code", path="/one/"), Night()]

urlpatterns = [
    path("", index),
    path("twice/", twice),
    path("twice-async/", twice_async),
    path("thrice/", thrice),
    path("exempt/", exempt),
    path("exempt-after-all/", exempt_after_all),
    path("hidden/", hidden),
    path("class/", Twice.as_view()),
    path("methods/", Methods.as_view()),
    path("async-method/", AsyncView.as_view()),
    path("exempt-class/", Exempt.as_view()),
    path("api/", Api.as_view()),
    path("locked/", Locked.as_view()),
    path("api-function/", api_function),
    path("orders/", Orders.as_view({"get": "list", "post": "create"})),
    path("by-tenant/", by_tenant),
    path("by-user/", by_user),
    path("by-user-async/", by_user_async),
    path("by-day/", by_day),
    path("by-day-async/", by_day_async),
    path("raising/", raising),
    path("one/", one),
    path("other/", other),
    path("sign-in/", sign_in),
    path("sign-in-async/", sign_in_async),
    path("strict-sign-in/", strict_sign_in),
    path("away/", lambda request: HttpResponseRedirect("/")),
]
