"""Loads for a sink: realistic records of our own encoder, made beforehand, and threads that post them."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping

import msgspec

from benchmarks.bodies import Template, sample
from otel_audit.audit_record import Sequence
from otel_audit.pipeline.delivery import otlp_encoding

_RESOURCE = {"service.name": "bench", "host.name": "web-1", "process.pid": 4711}


class Request(Template):
    """One export request of ``size`` sealed records; each call gives it with ids and times of its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.encoded = otlp_encoding.export_request(
            _RESOURCE,
            [
                otlp_encoding.log_record(
                    msgspec.structs.replace(
                        sample(self.id(number), self.now + number, number),
                        sequence=Sequence(
                            stream="019ab1c2-7d3e-7c10-9a52-000000000000/audit", number=number + 1
                        ),
                    )
                )
                for number in range(size)
            ],
        )


def post_for(
    seconds: float, address: str, headers: Mapping[str, str], request: Callable[[], bytes], clients: int
) -> int:
    """Post from ``clients`` threads over kept connections for ``seconds``; give how many were accepted."""
    deadline = time.monotonic() + seconds
    accepted: list[int] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            count = 0
            post = poster(address, headers)
            while time.monotonic() < deadline:
                post(request())
                count += 1
            accepted.append(count)
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(accepted)


def post_at(
    interval: float, seconds: float, address: str, headers: Mapping[str, str], request: Callable[[], bytes]
) -> Iterator[int]:
    """Post one request every ``interval`` for ``seconds``; give the number after each."""
    post = poster(address, headers)
    started = time.monotonic()
    number = 0
    while (ahead := started + number * interval - time.monotonic()) < seconds:
        if time.monotonic() - started >= seconds:
            return
        time.sleep(max(0.0, ahead))
        post(request())
        number += 1
        yield number


def poster(address: str, headers: Mapping[str, str]) -> Callable[[bytes], None]:
    """Return a call that posts over one kept connection; any answer but 200 is an error."""
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    given = {"Content-Type": "application/x-protobuf", **headers}

    def post(body: bytes) -> None:
        connection.request("POST", parts.path, body, given)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer[:500]!r}")

    return post
