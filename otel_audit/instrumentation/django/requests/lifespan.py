"""ASGI's lifespan, which Django's handler refuses: at its end the server waits until what is left is sent."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from otel_audit.pipeline import provider

_Handle = Callable[..., Awaitable[None]]


def with_lifespan(original: _Handle) -> _Handle:
    """Wrap ``ASGIHandler.__call__``: answer the lifespan protocol while audit runs."""

    @functools.wraps(original)
    async def handle(handler: Any, /, scope: Any, receive: Any, send: Any, *args: Any, **kwargs: Any) -> None:
        if scope["type"] != "lifespan" or provider.current() is None:
            await original(handler, scope, receive, send, *args, **kwargs)
            return
        from otel_audit.http.lifespan import send_what_is_left  # servers of WSGI have none

        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send_what_is_left()
        await send({"type": "lifespan.shutdown.complete"})

    return handle
