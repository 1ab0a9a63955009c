"""A call to another service: what its record costs, beside the same call without us.

Nothing goes over a network, which would be most of the time and all of the noise: connections are given
sockets and backends that have the response already.
"""

from __future__ import annotations

import http.client
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpcore
import httpx
import msgspec

from benchmarks.figures import Figure, interleaved, report
from benchmarks.pipelines import configuration
from otel_audit.config.model import AuditConfig, OutgoingConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.pipeline import provider

_ROUNDS: Final = 30
_CALLS: Final = 100
_GOAL_US: Final = 50.0
_GOAL_OFF_US: Final = 1.0
_GOAL_BODIES_US: Final = 250.0
_BODY: Final = json.dumps(
    {"lines": [{"id": n, "name": "a thing one can buy", "price": "9.99"} for n in range(36)]}
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 13:00:00 GMT\r\nServer: bench\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY.encode())
)
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "*/*", "User-Agent": "bench"}


class _Socket:
    """A socket that has been answered already."""

    def sendall(self, data: bytes) -> None:
        return

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(_ANSWER)

    def close(self) -> None:
        return


def by_http_client() -> Callable[[], object]:
    connection = http.client.HTTPConnection("fulfilment", 8001)
    connection.sock = _Socket()  # type: ignore[assignment]

    def call() -> object:
        connection.request("POST", "/orders?page=2", _BODY.encode(), _HEADERS)
        return connection.getresponse().read()

    return call


def by_httpx() -> Callable[[], object]:
    class Backend(httpcore.NetworkBackend):
        def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
            return httpcore.MockStream([_ANSWER] * (_CALLS + 1))

    client = httpx.Client(trust_env=False)
    pool: Any = client._transport

    def call() -> object:
        return client.post("http://fulfilment:8001/orders?page=2", content=_BODY, headers=_HEADERS).content

    def fresh() -> object:
        pool._pool = httpcore.ConnectionPool(network_backend=Backend())
        return call()

    call.fresh = fresh  # type: ignore[attr-defined]
    return call


def _seconds(call: Callable[[], object]) -> float:
    getattr(
        call, "fresh", call
    )()  # the rest is timed by the clock of this thread: not the sender, not others
    start = time.thread_time()
    for _ in range(_CALLS):
        call()
    return (time.thread_time() - start) / _CALLS


def _recorded(config: AuditConfig, call: Callable[[], object]) -> float:
    from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor

    instrumentor = HttpClientsAuditInstrumentor()
    instrumentor.instrument(config=config)
    try:
        seconds = _seconds(call)
        time.sleep(0.02)  # so that the sender catches up, as in an application
        return seconds
    finally:
        instrumentor.uninstrument()


def measure() -> Iterator[Figure]:
    both = [PolicyRule(kind="outgoing", path="/orders*", level="request_response")]
    with configuration() as config:
        provider.start(config)
        try:
            modes = {
                "off": (msgspec.structs.replace(config, outgoing=OutgoingConfig()), _GOAL_OFF_US),
                "metadata": (_on(config), _GOAL_US),
                "request_response, 2 KB each way": (_on(config, both), _GOAL_BODIES_US),
            }
            for make in (by_http_client, by_httpx):
                yield from _compared(make(), make.__name__.removeprefix("by_"), modes)
        finally:
            provider.stop()


def _on(config: AuditConfig, policy: list[PolicyRule] | None = None) -> AuditConfig:
    return msgspec.structs.replace(config, outgoing=OutgoingConfig(enabled=True), policy=policy or [])


def _compared(
    call: Callable[[], object], client: str, modes: dict[str, tuple[AuditConfig, float]]
) -> Iterator[Figure]:
    measured: dict[str, Callable[[], float]] = {"plain": lambda: _seconds(call)}
    for mode, (config, _) in modes.items():
        measured[mode] = lambda config=config: _recorded(config, call)  # type: ignore[misc]
    times = interleaved(measured, _ROUNDS)
    for mode, (_, goal) in modes.items():
        more = [with_us - plain for with_us, plain in zip(times[mode], times["plain"], strict=True)]
        yield Figure(
            name=f"a call by {client}, {mode}",
            value=statistics.median(more) * 1e6,
            unit="µs more",
            goal=goal,
            note=f"plain {statistics.median(times['plain']) * 1e6:.0f} µs, no network",
        )


if __name__ == "__main__":
    report(measure())
