"""The same as an application of FastAPI."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

application = FastAPI()


@application.get("/")
async def index() -> str:
    """Answer."""
    return "ok"


@application.post("/echo/")
@application.post("/echo/{token}/")
async def echo(request: Request) -> Response:
    """Answer with the length of the body, and the body itself if it is short."""
    body = await request.body()
    answer = body if len(body) < 10_000 else b"%d" % len(body)
    return Response(answer, media_type=request.headers.get("content-type", "text/plain"))


@application.post("/pieces/")
async def pieces(request: Request) -> Response:
    """Read the body in pieces, and keep none."""
    length = 0
    async for piece in request.stream():
        length += len(piece)
    return PlainTextResponse(str(length))


@application.post("/unread/")
async def unread() -> Response:
    """Answer without a look at the body."""
    return PlainTextResponse("ok")


@application.post("/upload/")
async def upload(scan: UploadFile) -> Response:
    """Take a file."""
    length = 0
    while piece := await scan.read(65536):
        length += len(piece)
    return PlainTextResponse(str(length))


@application.get("/endless/")
async def endless() -> StreamingResponse:
    """Stream without an end."""

    async def numbers() -> AsyncIterator[bytes]:
        while True:
            yield b"hunter2," * 1000
            await asyncio.sleep(0)  # otherwise nobody else's turn comes, with us or without

    return StreamingResponse(numbers(), media_type="text/csv")


@application.get("/slow/")
async def slow() -> str:
    """Say who works on it, and answer much later."""
    with Path(os.environ["SMALL_WORKING"]).open("a") as file:  # noqa: ASYNC230 - short
        file.write(f"{os.getpid()}\n")
    await asyncio.sleep(60)
    return "late"


@application.get("/boom/")
async def boom() -> None:
    """Fail."""
    raise LookupError("password=hunter2")


@application.get("/peak/")
async def peak() -> Response:
    """Say how much memory this process has taken at most, in bytes."""
    return PlainTextResponse(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
