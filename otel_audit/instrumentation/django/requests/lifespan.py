"""ASGI's lifespan, which Django's handler refuses: at its end the server waits until what is left is sent."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from otel_audit.pipeline import provider
from otel_audit.pipeline.provider import AuditPipeline

_Handle = Callable[..., Awaitable[None]]


def with_lifespan(original: _Handle) -> _Handle:
    """Wrap ``ASGIHandler.__call__``: answer the lifespan protocol while audit runs."""

    @functools.wraps(original)
    async def handle(handler: Any, /, scope: Any, receive: Any, send: Any, *args: Any, **kwargs: Any) -> None:
        if scope["type"] != "lifespan" or provider.current() is None:
            await original(handler, scope, receive, send, *args, **kwargs)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        pipeline = provider.current()
        if pipeline is not None:
            await _rest(pipeline)
        await send({"type": "lifespan.shutdown.complete"})

    return handle


async def _rest(pipeline: AuditPipeline) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a server on another event loop: it is ending and has nothing else to do
        pipeline.rest()
    else:
        await loop.run_in_executor(None, pipeline.rest)
