"""Views whose requests are recorded, in every way they may read, answer and fail."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.contrib.auth import logout
from django.contrib.auth.models import Group
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_protect
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

import otel_audit
from otel_audit.audit_context import current_context
from otel_audit.pipeline import provider
from tests.instrumentation.django.clinic.urls import record


def card(request: HttpRequest, pk: int) -> HttpResponse:
    """Read the body, record something, and answer in JSON."""
    record()
    given = json.loads(request.body) if request.body else {}
    return JsonResponse({"card": pk, "token": "tok_hunter2", "given": given}, status=201)


def unread(request: HttpRequest, **parameters: str) -> HttpResponse:
    """Answer without a look at the body."""
    return HttpResponse("ok", content_type="text/plain")


def streamed_in(request: HttpRequest) -> HttpResponse:
    """Read the body as a stream, as REST framework does."""
    given = json.load(request)
    return JsonResponse({"read": len(given)})


def form(request: HttpRequest) -> HttpResponse:
    """Read a form."""
    return HttpResponse(",".join(request.POST), content_type="text/plain")


def boom(request: HttpRequest) -> HttpResponse:
    """Fail after a write, which ATOMIC_REQUESTS takes back."""
    Group.objects.create(name="never")
    raise LookupError("no such card, password=hunter2")


def missing(request: HttpRequest) -> HttpResponse:
    """Say that there is nothing."""
    raise Http404("nothing")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Answer as a coroutine."""
    record()
    given = json.loads(request.body) if request.body else None
    if given == "boom":
        raise LookupError("asynchronous")
    return JsonResponse({"given": given})


def _pieces(fails: bool) -> Iterator[bytes]:
    record("clinic.piece")
    yield b"one,hunter2\n"
    if fails:
        raise LookupError("midway")
    yield b"two\n"


def exported(request: HttpRequest) -> HttpResponseBase:
    """Stream a table."""
    return StreamingHttpResponse(_pieces("fails" in request.GET), content_type="text/csv")


async def _events() -> AsyncIterator[str]:
    while True:
        yield "data: hunter2\n\n"


async def events(request: HttpRequest) -> HttpResponseBase:
    """Send events without an end."""
    return StreamingHttpResponse(_events(), content_type="text/event-stream")


def file(request: HttpRequest) -> HttpResponseBase:
    """Send a file."""
    return FileResponse(io.BytesIO(b"hunter2" * 10), as_attachment=True, filename="a.txt")


def template(request: HttpRequest) -> HttpResponse:
    """Answer with what is rendered only later."""
    return SimpleTemplateResponse(engines["django"].from_string("late"), content_type="text/plain")


def leaving(request: HttpRequest) -> HttpResponse:
    """Log out."""
    str(request.user)
    logout(request)
    return HttpResponse("bye")


def annotated(request: HttpRequest, pk: int) -> HttpResponse:
    """Say something of the request."""
    otel_audit.annotate(slug="said-inside", event_code="E7", ward="north")
    otel_audit.relate("clinic.Patient/7", "clinic.Patient/8")
    return HttpResponse("ok")


@otel_audit.audit_exempt
def exempt(request: HttpRequest) -> HttpResponse:
    """Make a record inside of what is not recorded itself."""
    record()
    return HttpResponse("ok")


@otel_audit.audit_request(
    slug="pay", level="request_response", related="clinic.Bill/{pk}", event_type="money", event_code="P1"
)
def marked(request: HttpRequest, pk: int) -> HttpResponse:
    """Read a body that nobody but the decorator asks for."""
    return JsonResponse(json.loads(request.body))


@otel_audit.audit_request(level="request_response", hide_body=True)
def hidden(request: HttpRequest) -> HttpResponse:
    """Read a body that must not be recorded."""
    return JsonResponse(json.loads(request.body))


class Cards(View):
    """A class of which one method is marked otherwise."""

    @otel_audit.audit_exempt
    def get(self, request: HttpRequest) -> HttpResponse:
        """List."""
        return HttpResponse("cards")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Create."""
        return HttpResponse("made", status=201)


Cards = otel_audit.audit_request(slug="cards")(Cards)  # type: ignore[misc]


class Quiet(otel_audit.AuditExemptMixin, View):
    """A class that is not recorded."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return HttpResponse("quiet")


class Loud(otel_audit.AuditRequestMixin, View):
    """A class that says of itself what is recorded."""

    audit_slug = "loud"
    audit_level = "request_response"
    audit_related = ("clinic.Ward/{ward}",)

    def post(self, request: HttpRequest, ward: str) -> HttpResponse:
        """Answer with what came."""
        return JsonResponse(json.loads(request.body))


@method_decorator(otel_audit.audit_exempt, name="dispatch")
class Dispatched(View):
    """A class whose dispatch is decorated, as Django's own decorators are applied."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return HttpResponse("dispatched")


class Parsing(APIView):
    """REST framework's view, which reads the request as a stream."""

    authentication_classes = ()

    def post(self, request: Any) -> Response:
        """Answer with what came."""
        return Response({"got": request.data})


@otel_audit.audit_request(slug="function")
@api_view(["GET"])  # type: ignore[untyped-decorator]
def function(request: Any) -> Response:
    """REST framework's view of a function."""
    return Response({})


class Set(ViewSet):
    """REST framework's view set: its methods have names of their own."""

    authentication_classes = ()

    @otel_audit.audit_request(slug="set-list")
    def list(self, request: Any) -> Response:
        """List."""
        return Response([])

    @action(detail=False, methods=["get"])  # type: ignore[untyped-decorator]
    @otel_audit.audit_exempt
    def quiet(self, request: Any) -> Response:
        """Answer."""
        return Response({})


def upload(request: HttpRequest) -> HttpResponse:
    """Take a file."""
    taken: Any = request.FILES["scan"]
    with tempfile.NamedTemporaryFile() as kept:
        for chunk in taken.chunks():
            kept.write(chunk)
        kept.flush()
        return HttpResponse(str(os.path.getsize(kept.name)), content_type="text/plain")


def spooled(request: HttpRequest) -> HttpResponse:
    """Say how many records of this request are on disk by now."""
    pipeline, context = provider.current(), current_context()
    assert pipeline is not None
    assert context is not None
    wanted = context.fields().request.id.encode()
    lock = pipeline.spool.lock
    files = [] if lock is None else [each for each in lock.path.iterdir() if each.is_file()]
    return HttpResponse(str(sum(each.read_bytes().count(wanted) for each in files)))


async def spooled_too(request: HttpRequest) -> HttpResponse:
    """Say the same as a coroutine."""
    return spooled(request)


_inner = [path("cards/<int:pk>/", card)]

urlpatterns = [
    path("cards/<int:pk>/", card),
    path("inner/", include(_inner)),
    path("unread/", unread),
    path("streamed-in/", streamed_in),
    path("form/", form),
    path("protected/", csrf_protect(form)),
    path("boom/", boom),
    path("missing/", missing),
    path("asynchronous/", asynchronous),
    path("exported/", exported),
    path("events/", events),
    path("file/", file),
    path("template/", template),
    path("leaving/", leaving),
    path("annotated/<int:pk>/", annotated),
    path("exempt/", exempt),
    path("marked/<int:pk>/", marked),
    path("hidden/", hidden),
    path("class/", Cards.as_view()),
    path("quiet/", Quiet.as_view()),
    path("loud/<str:ward>/", Loud.as_view()),
    path("dispatched/", Dispatched.as_view()),
    path("parsing/", Parsing.as_view()),
    path("function/", function),
    path("set/", Set.as_view({"get": "list"})),
    path("set/quiet/", Set.as_view({"get": "quiet"})),
    path("upload/", upload),
    path("spooled/", spooled),
    path("spooled-too/", spooled_too),
    path("password/<str:token>/", unread),
]
