"""OTLP over HTTP: ``/v1/logs``, ``/v1/audit``, ``/v1/traces`` and ``/v1/metrics``; the server's health.

The records of questions come to :data:`QUESTIONS`, as to ``/v1/audit``; no question waits for them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_audit.errors import StoreError
from otel_audit.server.access import Access, presented
from otel_audit.server.bodies import Malformed, TooLarge, decompress
from otel_audit.server.engine import native
from otel_audit.server.origin import from_a_page
from otel_audit.server.otlp import messages
from otel_audit.server.otlp.commit import Awaited, Backlog, Busy, Committer, Held
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.limits import Budget, Limits
from otel_audit.server.otlp.messages import JSON, PROTOBUF
from otel_audit.server.otlp.rows import Rows, log_rows, metric_rows, span_rows

QUESTIONS: Final = "/v1/audit/questions"
_logger: Final = logging.getLogger(__name__)
_READ_TIMEOUT: Final = 60.0
_DRAINED: Final = 16 * 1024 * 1024
"""How much of a body that is too large is read nevertheless: a sender cut off in the middle of sending sees a
broken connection, and tries again, where it should see the answer."""
_INLINE: Final = 16 * 1024
"""Bodies up to this size are decoded where they are; a thread would cost more than it saves."""
_FEW: Final = Limits(body=8 * _INLINE, rows=32 * _INLINE, messages=8192, nodes=2048)
"""What such a body may become; one that becomes more is decoded in a thread after all."""

_INVALID_ARGUMENT, _DENIED, _UNAUTHENTICATED, _UNAVAILABLE, _EXHAUSTED = 3, 7, 16, 14, 8


class Intake:
    """What both OTLP servers do with a request: decode it, write it, wait until it is written."""

    def __init__(
        self, logs: Committer, spans: Committer, backlog: Backlog, access: Access, limit: int
    ) -> None:
        self.backlog = backlog
        self.access = access
        self.limit = limit
        self._limits = Limits.of(limit)
        self._signals: dict[str, tuple[Callable[[bytes, Budget], list[Rows]], Committer]] = {
            "logs": (log_rows, logs),
            "traces": (span_rows, spans),
            "metrics": (metric_rows, spans),  # few, and of a table of their own: no threads for them alone
        }
        self._awaited: Awaited | None = None
        self.dropped = 0
        """Points of metrics that were accepted and are not kept, since they are not ours."""

    def rows(
        self, signal: str, body: bytes, held: Held, content_type: str = PROTOBUF, encoding: str = ""
    ) -> list[Rows]:
        """Decode a request body to rows, those for each table apart.

        Args:
            held: what the request holds of the backlog; it grows by what the body and its rows take.

        Raises:
            Malformed, TooLarge: what is wrong with the body.
            Busy: there is no room for it now.
        """
        return self._rows(signal, body, held, content_type, encoding, self._limits)

    def few_rows(
        self, signal: str, body: bytes, held: Held, content_type: str, encoding: str
    ) -> list[Rows] | None:
        """Decode a body as :meth:`rows` does, if that is a matter of a moment; else None."""
        before = held.size
        try:
            return self._rows(signal, body, held, content_type, encoding, _FEW)
        except TooLarge:
            held.grow(before - held.size)
            return None

    def _rows(
        self, signal: str, body: bytes, held: Held, content_type: str, encoding: str, limits: Limits
    ) -> list[Rows]:
        budget = Budget(limits.rows, held.grow)
        if not encoding:
            held.grow(-len(body))  # it is counted again, as the first of what its rows take
        body = decompress(body, encoding, limits.body)
        if content_type == PROTOBUF:
            messages.check_size(body, signal, limits)
            if signal == "logs" and (made := rows_by_engine(body, budget)) is not None:
                return [made]
        return self._signals[signal][0](messages.checked(body, signal, content_type, limits), budget)

    def submit(self, signal: str, parts: list[Rows]) -> list[Future[None]]:
        """Queue the rows of a request to be written; see :meth:`Committer.submit`."""
        committer = self._signals[signal][1]
        if dropped := sum(rows.dropped for rows in parts):
            if not self.dropped:
                _logger.info("only otel-audit's own metrics are kept; all others are accepted and discarded")
            self.dropped += dropped
        return [committer.submit(rows) for rows in parts]

    async def written(self, future: Future[None]) -> None:
        """Return when rows are written; raise why they are not."""
        if self._awaited is None or self._awaited.loop is not asyncio.get_running_loop():
            self._awaited = Awaited()
        await self._awaited.done(future)

    @property
    def alive(self) -> bool:
        """Whether all committers run."""
        return all(committer.alive for _, committer in self._signals.values())


def note(parts: list[Rows]) -> tuple[str, ...]:
    """Say on the log what was noticed about accepted rows; give it."""
    notices = tuple(notice for rows in parts for notice in rows.notices)
    if notices:
        size = sum(rows.size for rows in parts)
        _logger.warning("%d of %d records: %s", len(notices), size, notices[0])
    return notices


class _Refused(Exception):
    def __init__(self, status: int, code: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


def receiver(intake: Intake, ready: Callable[[], None]) -> Starlette:
    """Build the application; ``ready`` raises ``StoreError`` if the store does not answer."""

    def export(signal: str, *, awaited: bool = True) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            kind = content_type if content_type in (PROTOBUF, JSON) else PROTOBUF
            try:
                if content_type != kind:
                    raise _Refused(
                        415,
                        _INVALID_ARGUMENT,
                        f"Content-Type {content_type!r} is not supported; send {PROTOBUF} or {JSON}",
                    )
                parts = await _accept(intake, signal, request, kind, awaited=awaited)
            except _Refused as refused:
                return _refusal(refused, kind)
            message = messages.response(signal, note(parts))
            if kind == JSON:
                return Response(json_format.MessageToJson(message, indent=None), media_type=JSON)
            return Response(message.SerializeToString(), media_type=PROTOBUF)

        return endpoint

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "metric_points_dropped": intake.dropped})

    async def readiness(_: Request) -> Response:
        try:
            await asyncio.to_thread(ready)
        except StoreError as error:
            return JSONResponse({"status": "not ready", "reason": str(error)}, 503)
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/logs", export("logs"), methods=["POST"]),
            Route("/v1/audit", export("logs"), methods=["POST"]),
            Route(QUESTIONS, export("logs", awaited=False), methods=["POST"]),
            Route("/v1/traces", export("traces"), methods=["POST"]),
            Route("/v1/metrics", export("metrics"), methods=["POST"]),
            Route("/health", health),
            Route("/ready", readiness),
        ]
    )


async def _accept(intake: Intake, signal: str, request: Request, kind: str, *, awaited: bool) -> list[Rows]:
    secrets = presented(request.headers.items())
    if not intake.access.allows("write", secrets):
        raise _Refused(
            401, _UNAUTHENTICATED, "missing or invalid bearer token: send Authorization: Bearer <token>"
        )
    if not intake.access.rights(secrets) and (reason := from_a_page(request.headers)):
        raise _Refused(403, _DENIED, f"not accepted without a token: {reason}")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    try:
        with intake.backlog.hold() as held:
            body = await read_body(request, intake.limit, held)
            parts = None
            if len(body) <= _INLINE:
                parts = intake.few_rows(signal, body, held, kind, encoding)
            if parts is None:
                parts = await asyncio.to_thread(intake.rows, signal, body, held, kind, encoding)
            del body
            if not awaited:
                parts = [rows._replace(awaited=False) for rows in parts]
            for written in intake.submit(signal, parts):
                await intake.written(written)
    except Malformed as error:
        raise _Refused(400, _INVALID_ARGUMENT, str(error)) from None
    except TooLarge as error:
        raise _Refused(413, _EXHAUSTED, f"{error}; send smaller batches") from None
    except TimeoutError:
        raise _Refused(408, _UNAVAILABLE, f"the body did not arrive within {_READ_TIMEOUT:g} s") from None
    except ClientDisconnect:
        raise _Refused(400, _INVALID_ARGUMENT, "the sender closed the connection") from None
    except Busy as error:
        raise _Refused(503, _UNAVAILABLE, str(error), retry_after=1) from None
    except StoreError as error:
        raise _Refused(503, _UNAVAILABLE, f"the store refused the rows: {error}", retry_after=5) from None
    return parts


async def read_body(request: Request, limit: int, held: Held) -> bytes:
    """Read a request body of at most ``limit`` bytes, which are held from when they arrive.

    Raises:
        TooLarge: it is larger; the rest is not read.
        Busy: other requests hold too much.
        TimeoutError: it does not arrive as a whole in time.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit + _DRAINED:
        raise TooLarge(f"the body has {announced} bytes, and the limit is {limit}")
    chunks: list[bytes] = []
    size = 0
    refused: Busy | None = None
    async with asyncio.timeout(_READ_TIMEOUT):
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit + _DRAINED:
                break
            if refused is None and size <= limit:
                try:
                    held.grow(len(chunk))
                    chunks.append(chunk)
                    continue
                except Busy as error:
                    refused = error
            # The rest is read, so that the sender sees the answer, and not kept.
            chunks.clear()
            held.release()
    if size > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    if refused is not None:
        raise refused
    return b"".join(chunks)


def no_entry(headers: Headers, status: int, message: str) -> Response:
    """Answer a request that is not let in, in the form it asked in."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return _refusal(_Refused(status, _DENIED, message), JSON if content_type == JSON else PROTOBUF)


def _refusal(refused: _Refused, kind: str) -> Response:
    message = str(refused)
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 413:
        # The rest of the body is still coming; the connection cannot carry another request.
        headers["Connection"] = "close"
    if kind == JSON:
        body = json.dumps({"code": refused.code, "message": message}).encode()
    else:  # google.rpc.Status, which OTLP wants and no dependency of ours has
        body = b"\x08" + native.varint(refused.code) + b"\x12" + native.text(message)
    return Response(body, refused.status, headers, media_type=kind)
