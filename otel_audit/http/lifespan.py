"""The end of an ASGI server, which tells by its lifespan protocol: what is left is sent before it ends."""

from __future__ import annotations

import asyncio

from otel_audit.pipeline import provider


async def send_what_is_left() -> None:
    """End the stream of this process and wait until the sink has it, without holding up the event loop."""
    pipeline = provider.current()
    if pipeline is None:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a server on another event loop: it is ending and has nothing else to do
        pipeline.rest()
    else:
        await loop.run_in_executor(None, pipeline.rest)
