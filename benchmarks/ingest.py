"""How many records a second the embedded store takes over OTLP/HTTP, acknowledged, durable and visible."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

from benchmarks.bodies import Bodies
from benchmarks.figures import Figure, quantile, report
from benchmarks.serving import Addresses, serve

_BATCH = 512  # sink.batch_records
_BATCHES = 400
_SINGLES = 6_000
_BATCH_GOAL = 20_000
_SINGLE_GOAL = 400


def measure() -> Iterator[Figure]:
    with serve() as addresses:
        batches = Bodies(_BATCH)
        _load(addresses, [batches(compress=True) for _ in range(16)], clients=8)
        for clients, goal in ((8, _BATCH_GOAL), (1, None)):
            bodies = [batches(compress=True) for _ in range(_BATCHES // (1 if goal else 4))]
            seconds, answers = _load(addresses, bodies, clients)
            yield Figure(
                name=f"{clients} clients, {_BATCH} records a request"
                if clients > 1
                else f"1 client, {_BATCH} a request",
                value=len(bodies) * _BATCH / seconds,
                unit="records/s",
                goal=goal,
                at_least=True,
                note=f"goal 40 000 beyond it; gzip; p95 of an answer {quantile(answers, 0.95) * 1e3:.0f} ms"
                if goal
                else "gzip",
            )
        single = Bodies(1)
        bodies = [single(compress=False) for _ in range(_SINGLES)]
        seconds, answers = _load(addresses, bodies, clients=32)
        yield Figure(
            name="32 clients, one record a request",
            value=len(bodies) / seconds,
            unit="records/s",
            goal=_SINGLE_GOAL,
            at_least=True,
            note=f"p95 of an answer {quantile(answers, 0.95) * 1e3:.0f} ms",
        )
        _check(addresses, expected=16 * _BATCH + _BATCHES * _BATCH + _BATCHES // 4 * _BATCH + _SINGLES)


def _load(addresses: Addresses, bodies: list[bytes], clients: int) -> tuple[float, list[float]]:
    """Post ``bodies`` from ``clients`` threads; return seconds in all, and for each answer."""
    remaining = iter(bodies)
    lock = threading.Lock()
    answers: list[float] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            post = _poster(addresses.otlp)
            while True:
                with lock:
                    body = next(remaining, None)
                if body is None:
                    return
                start = time.perf_counter()
                post(body)
                answers.append(time.perf_counter() - start)
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - start, answers


def _poster(address: str) -> Callable[[bytes], None]:
    """Return a call that posts over one keep-alive connection, and again after a 503."""
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def post(body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        if body[:2] == b"\x1f\x8b":
            headers["Content-Encoding"] = "gzip"
        while True:
            connection.request("POST", "/v1/audit", body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status == 200:
                return
            if response.status != 503:
                raise RuntimeError(f"{response.status}: {answer[:500]!r}")
            time.sleep(float(response.headers.get("Retry-After", 1)))

    return post


def _check(addresses: Addresses, expected: int) -> None:
    """Raise unless every record that was acknowledged is in the store, once."""
    sql = "SELECT uniqExact(record_id), count() FROM otel.audit_events FINAL WHERE ordinal = 0"
    query = urllib.parse.urlencode({"query": sql, "default_format": "TSV"})
    with urllib.request.urlopen(f"{addresses.store}/?{query}", timeout=120) as response:
        found = response.read().split()
    if [int(count) for count in found] != [expected, expected]:
        raise RuntimeError(f"{expected} records were acknowledged, the store has {found}")


if __name__ == "__main__":
    report(measure())
