"""What the record of a request costs, in microseconds more than the same request without ours.

In one process, through the handlers of Django and of FastAPI, with OpenTelemetry's own instrumentation, in
random order and round by round. Times are the processor's: the machine may do something else as well. Nothing
is sent meanwhile.
"""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple

from benchmarks.figures import Figure, interleaved, report
from benchmarks.pipelines import without_sender
from otel_audit.config.model import AuditConfig, PolicyRule, RequestsConfig
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures

_ROUNDS: Final = 60
_EACH: Final = 30
_GOALS: Final = {"nothing to audit": 10.0, "metadata": 60.0, "request_response": 250.0}
_CONTENT: Final = json.dumps(
    {
        "note": "x" * 200,
        "rows": [{"name": f"name {number}", "price": number, "ok": True} for number in range(40)],
    }
).encode()
_RULES: Final = {
    "metadata": [],
    "request_response": [PolicyRule(path="/echo/", level="request_response")],
}


def measure() -> Iterator[Figure]:
    with without_sender(instrument=False, requests=RequestsConfig(enabled=True)) as pipeline:
        assert 1900 < len(_CONTENT) < 2300, len(_CONTENT)
        yield from _figures("Django", django(pipeline.config))
        yield from _figures("FastAPI", fastapi(pipeline.config))


class Requests(NamedTuple):
    """A request, and what makes ready for it by name: without ours, and with ours at each level."""

    ready: dict[str, Callable[[], None]]
    once: Callable[[], None]


def _figures(name: str, requests: Requests) -> Iterator[Figure]:
    def timed(ready: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            ready()
            return _median(requests.once)

        return run

    modes = {mode: timed(ready) for mode, ready in requests.ready.items()}
    for warm in list(modes.values()) * 5:
        warm()
    times = interleaved(modes, _ROUNDS)
    alone = times.pop("alone")
    for mode, samples in times.items():
        more = [(each - plain) * 1e6 for each, plain in zip(samples, alone, strict=True)]
        yield Figure(
            name=f"{name}, a request: {mode}",
            value=statistics.median(more),
            unit="us more than OpenTelemetry alone",
            goal=_GOALS[mode],
            note=f"alone {statistics.median(alone) * 1e6:.0f} us",
        )


def _config(config: AuditConfig, mode: str) -> AuditConfig:
    import msgspec

    return msgspec.structs.replace(config, requests=RequestsConfig(enabled=True), policy=_RULES[mode])


def django(config: AuditConfig) -> Requests:
    """Return a request to Django; to be called once in a process."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    from otel_audit.instrumentation.django import DjangoAuditInstrumentor
    from otel_audit.instrumentation.django.requests.middleware import AuditMiddleware
    from otel_audit.instrumentation.django.requests.records import DjangoRecords

    def echo(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body, content_type="application/json")

    urls: Any = ModuleType("benchmarks.urls_of_requests")
    urls.urlpatterns = [path("echo/", echo)]
    sys.modules[urls.__name__] = urls
    settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], ROOT_URLCONF=urls.__name__)
    DjangoInstrumentor().instrument(tracer_provider=TracerProvider())
    DjangoAuditInstrumentor().instrument(config=config)
    handler: Any = WSGIHandler()
    capture = AuditMiddleware.capture
    assert capture is not None
    failures = Failures("Django", config, provider.current_health)

    def once() -> None:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/echo/",
            "QUERY_STRING": "page=2",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(_CONTENT)),
            "SERVER_NAME": "bench",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_HOST": "bench.example",
            "HTTP_USER_AGENT": "bench/1",
            "HTTP_ACCEPT": "*/*",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(_CONTENT),
            "wsgi.errors": io.StringIO(),
        }
        response: Any = handler(environ, lambda *_: None)
        assert b"".join(response) == _CONTENT
        response.close()

    def mode(records: DjangoRecords | None, used: Any = capture) -> Callable[[], None]:
        def ready() -> None:
            capture.records = records
            AuditMiddleware.capture = used

        return ready

    found = {
        name: mode(DjangoRecords(_config(config, name), provider.current_logger, failures)) for name in _RULES
    }
    return Requests({"alone": mode(None, None), "nothing to audit": mode(None), **found}, once)


def fastapi(config: AuditConfig) -> Requests:
    """Return a request to FastAPI; to be called once in a process."""
    from fastapi import FastAPI
    from fastapi.responses import Response
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    from otel_audit.http.asgi import ASGIRequests
    from otel_audit.http.request_scope import SEEN
    from otel_audit.http.requests.asgi import ASGIRecords
    from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor

    app = FastAPI()

    async def echo(request: Any) -> Response:
        return Response(await request.body(), media_type="application/json")

    app.add_route("/echo/", echo, ["POST"])
    FastAPIInstrumentor.instrument_app(app, tracer_provider=TracerProvider())
    StarletteAuditInstrumentor().instrument(config=config)
    requests = ASGIRequests.active
    assert requests is not None
    failures = Failures("Starlette", config, provider.current_health)
    loop = asyncio.new_event_loop()
    headers = [
        (b"host", b"bench.example"),
        (b"user-agent", b"bench/1"),
        (b"accept", b"*/*"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_CONTENT)).encode()),
    ]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": _CONTENT, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    def once() -> None:
        scope: dict[str, Any] = {
            **passed,
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/echo/",
            "raw_path": b"/echo/",
            "query_string": b"page=2",
            "root_path": "",
            "scheme": "http",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            "server": ("bench", 80),
        }
        loop.run_until_complete(app(scope, receive, send))

    passed: dict[str, str] = {}

    def mode(records: ASGIRecords | None, *, alone: bool = False) -> Callable[[], None]:
        def ready() -> None:
            requests._records = records
            passed.clear()
            if alone:
                passed[SEEN] = "passed through"

        return ready

    found = {
        name: mode(ASGIRecords(_config(config, name), provider.current_logger, failures)) for name in _RULES
    }
    return Requests({"alone": mode(None, alone=True), "nothing to audit": mode(None), **found}, once)


def _median(call: Callable[[], None]) -> float:
    samples = []
    for _ in range(_EACH):
        start = time.thread_time()
        call()
        samples.append(time.thread_time() - start)
    return statistics.median(samples)


if __name__ == "__main__":
    report(measure())
