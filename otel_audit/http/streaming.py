"""Streamed bodies, which run after the request that made them has been answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

from otel_audit.audit_context import AuditContext, enter_context, leave_scope


def in_context(body: Iterator[bytes], context: AuditContext, ended: Callable[[], object]) -> Iterator[bytes]:
    """Let a streamed body run in the context of its request.

    A generator runs in the context of whoever asks for the next piece: ours is entered for each. ``ended``
    is called when the body is at its end, fails or is closed.
    """
    try:
        while True:
            token = enter_context(context)
            try:
                piece = next(body)
            except StopIteration:
                return
            finally:
                leave_scope(token)
            yield piece
    finally:
        ended()


async def in_context_async(
    body: AsyncIterator[bytes], context: AuditContext, ended: Callable[[], object]
) -> AsyncIterator[bytes]:
    """Let a body streamed by a coroutine run in the context of its request."""
    try:
        while True:
            token = enter_context(context)
            try:
                piece = await anext(body)
            except StopAsyncIteration:
                return
            finally:
                leave_scope(token)
            yield piece
    finally:
        ended()
