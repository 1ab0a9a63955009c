"""Views that write an audit record in every way a view may know, or not know, who asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib.auth import aauthenticate, alogin, authenticate, login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.views import View
from django.views.generic import DetailView
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from otel_audit.pipeline import provider
from tests.instrumentation.django.clinic.models import Patient, Ward
from tests.instrumentation.django.vault.models import MagicLink


def record(event: str = "clinic.note") -> None:
    """Make a record as an instrumentor would."""
    pipeline = provider.current()
    assert pipeline is not None
    pipeline.logger.emit(pipeline.logger.record(event, "EXECUTE"))


def noop(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def note(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """Record without ever looking at the user or the session."""
    record()
    return HttpResponse("ok")


def known(request: HttpRequest) -> HttpResponse:
    """Record after the user was asked for."""
    response = HttpResponse(f"hello {request.user}")
    record()
    return response


class THREAD:
    """The thread of the last request that started one."""

    goes_on = threading.Event()
    thread: threading.Thread


def starting_a_thread(request: HttpRequest) -> HttpResponse:
    """Record in a thread, while the request waits for it and after its response."""
    recorded, THREAD.goes_on = threading.Event(), threading.Event()

    def work() -> None:
        record()
        recorded.set()
        THREAD.goes_on.wait(20)
        record()

    str(request.user)
    THREAD.thread = threading.Thread(target=work)
    THREAD.thread.start()
    recorded.wait(20)
    return HttpResponse("ok")


def impersonating(request: HttpRequest) -> HttpResponse:
    """Record as oneself, then with another lazy user in one's place, as packages for support staff do."""
    str(request.user)
    record("clinic.self")
    request.user = SimpleLazyObject(lambda: User.objects.get(username="zoe"))  # type: ignore[assignment]
    str(request.user)
    record("clinic.impersonated")
    return HttpResponse("ok")


def visited(request: HttpRequest) -> HttpResponse:
    """Record after the session was used, but not the user."""
    request.session.get("basket")
    record()
    return HttpResponse("ok")


def signing_up(request: HttpRequest) -> HttpResponse:
    """Take a moment before the login that makes the visitor somebody, resolve it after."""
    from otel_audit.audit_context import moment

    pipeline = provider.current()
    assert pipeline is not None
    before = moment()
    user = authenticate(request, username="alice", password="correct horse")
    assert user is not None
    login(request, user)
    after = moment()
    logger = pipeline.logger
    logger.emit(logger.record("clinic.before", "EXECUTE", at=before))
    logger.emit(logger.record("clinic.after", "EXECUTE", at=after))
    return HttpResponse("ok")


def leaving(request: HttpRequest) -> HttpResponse:
    """Take moments around the deletion of one's own account and the logout, resolve them at the end."""
    from otel_audit.audit_context import moment

    pipeline = provider.current()
    assert pipeline is not None
    user = request.user
    assert isinstance(user, User) or user.is_authenticated
    before = moment()
    user.delete()
    deleted = moment()
    logout(request)
    gone = moment()
    logger = pipeline.logger
    for name, at in (("before", before), ("deleted", deleted), ("gone", gone)):
        logger.emit(logger.record(f"clinic.{name}", "EXECUTE", at=at))
    return HttpResponse("ok")


@transaction.atomic
def signing_up_for_real(request: HttpRequest) -> HttpResponse:
    """Write before and after the login; all of it commits at the end, when the visitor is somebody."""
    Ward.objects.create(name="before")
    user = authenticate(request, username="alice", password="correct horse")
    assert user is not None
    login(request, user)
    Ward.objects.create(name="after")
    return HttpResponse("ok")


@transaction.atomic
def leaving_for_real(request: HttpRequest) -> HttpResponse:
    """Delete one's own account and log out; the commit comes when nobody is left."""
    user = request.user
    Ward.objects.create(name="before")
    user.delete()
    logout(request)
    return HttpResponse("ok")


def broken(request: HttpRequest) -> HttpResponse:
    record()
    raise RuntimeError("broken")


def forbidden(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


def unauthorized(request: HttpRequest) -> HttpResponse:
    return HttpResponse("who are you", status=401)


def moved(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=302, headers={"Location": "/noop/?next=/elsewhere/"})


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        record("clinic.streamed")
        yield "a"
        record("clinic.streamed")
        yield "b"

    return StreamingHttpResponse(body())


async def streamed_async(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        record("clinic.streamed")
        yield "a"
        await asyncio.sleep(0)
        record("clinic.streamed")
        yield "b"

    return StreamingHttpResponse(body())


def a_file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await request.auser()
    record()
    return HttpResponse("ok")


async def asynchronous_untouched(request: HttpRequest) -> HttpResponse:
    record()
    return HttpResponse("ok")


async def asynchronous_login(request: HttpRequest) -> HttpResponse:
    user = await aauthenticate(request, username=request.POST["username"], password=request.POST["password"])
    if user is not None:
        await alogin(request, user)
    return HttpResponse("ok")


async def slow(request: HttpRequest, name: str) -> HttpResponse:
    await asyncio.sleep(0.01)
    record(f"clinic.{name}")
    return HttpResponse("ok")


def commanding(request: HttpRequest) -> HttpResponse:
    call_command("note")
    return HttpResponse("ok")


def look(request: HttpRequest, pk: int) -> HttpResponse:
    return HttpResponse(Patient.objects.get(pk=pk).card)


class ClassBased(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        record()
        return HttpResponse("ok")


class TokenAuthentication(BaseAuthentication):
    """A token names its user; the user appears inside the view only."""

    def authenticate(self, request: Any) -> tuple[User, str] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        name = header.removeprefix("Token ")
        try:
            return User.objects.get(username=name), name
        except User.DoesNotExist:
            raise AuthenticationFailed from None

    def authenticate_header(self, request: Any) -> str:
        return "Token"


class Api(APIView):
    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticated]

    def post(self, request: Any) -> Response:
        record()
        return Response({})

    @transaction.atomic
    def delete(self, request: Any) -> Response:
        request.user.delete()
        return Response({})


class LinkView(DetailView):  # type: ignore[type-arg]
    """A record of the page of an object whose key is a secret."""

    model = MagicLink

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        record("clinic.link")
        return HttpResponse(self.get_object().label)


urlpatterns = [
    path("links/<uuid:pk>/", LinkView.as_view()),
    path("noop/", noop),
    path("note/", note),
    path("note/<int:pk>/<slug:token>/", note),
    path("partial/", partial(note, extra=1)),
    path("known/", known),
    path("impersonating/", impersonating),
    path("visited/", visited),
    path("threading/", starting_a_thread),
    path("signing-up/", signing_up),
    path("leaving/", leaving),
    path("signing-up-for-real/", signing_up_for_real),
    path("leaving-for-real/", leaving_for_real),
    path("broken/", broken),
    path("forbidden/", forbidden),
    path("unauthorized/", unauthorized),
    path("moved/", moved),
    path("private/", login_required(note)),
    path("private-other/", login_required(note, redirect_field_name="back")),
    path("streamed/", streamed),
    path("streamed-async/", streamed_async),
    path("file/", a_file),
    path("async/", asynchronous),
    path("async-untouched/", asynchronous_untouched),
    path("async-login/", asynchronous_login),
    path("slow/<str:name>/", slow),
    path("commanding/", commanding),
    path("patients/<int:pk>/", look),
    path("class/", ClassBased.as_view()),
    path("api/", Api.as_view()),
    path("login/", LoginView.as_view(template_name="admin/login.html")),
    path("logout/", LogoutView.as_view()),
    path("admin/", admin.site.urls),
]
