"""Views of Django for requests that are recorded."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path


def index(request: HttpRequest) -> HttpResponse:
    """Answer."""
    return HttpResponse("ok")


def echo(request: HttpRequest) -> HttpResponse:
    """Answer with the length of the body, and the body itself if it is short."""
    body = request.body
    answer = body if len(body) < 10_000 else b"%d" % len(body)
    return HttpResponse(answer, content_type=request.headers.get("content-type", "text/plain"))


def pieces(request: HttpRequest) -> HttpResponse:
    """Read the body in pieces, and keep none."""
    length = 0
    while piece := request.read(65536):
        length += len(piece)
    return HttpResponse(str(length))


def unread(request: HttpRequest) -> HttpResponse:
    """Answer without a look at the body."""
    return HttpResponse("ok")


def upload(request: HttpRequest) -> HttpResponse:
    """Take a file."""
    scan: Any = request.FILES["scan"]
    return HttpResponse(str(sum(len(chunk) for chunk in scan.chunks())))


def endless(request: HttpRequest) -> HttpResponseBase:
    """Stream without an end; under ASGI, Django would read an iterator that is none of coroutines first."""

    async def later() -> AsyncIterator[bytes]:
        while True:
            yield b"hunter2," * 1000
            await asyncio.sleep(0)

    def numbers() -> Iterator[bytes]:
        while True:
            yield b"hunter2," * 1000

    pieces = later() if isinstance(request, ASGIRequest) else numbers()
    return StreamingHttpResponse(pieces, content_type="text/csv")


def slow(request: HttpRequest) -> HttpResponse:
    """Say who works on it, and answer much later."""
    with open(os.environ["SMALL_WORKING"], "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)
    return HttpResponse("late")


def boom(request: HttpRequest) -> HttpResponse:
    """Fail."""
    raise LookupError("password=hunter2")


def peak(request: HttpRequest) -> HttpResponse:
    """Say how much memory this process has taken at most, in bytes."""
    import resource

    return HttpResponse(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


urlpatterns = [
    path("", index),
    path("echo/", echo),
    path("echo/<str:token>/", echo),
    path("pieces/", pieces),
    path("unread/", unread),
    path("upload/", upload),
    path("endless/", endless),
    path("slow/", slow),
    path("boom/", boom),
    path("peak/", peak),
]
