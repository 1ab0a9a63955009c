"""What contents cost: 2 KB of JSON each way, headers, a body of 100 MB, and the output of a command."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator

import msgspec

from benchmarks.figures import Figure, each, interleaved, noise, quantile, ratio, report, spread
from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents, OutputTail

_TIMES = 2000
_GOAL_BOTH_US = 120
_LIMIT = 8 * 1024
_LINES = 200_000
_ROUNDS = 9

_HEADERS = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"de,en;q=0.7"),
    (b"authorization", b"Bearer 2b8a6f0d9c4e4f3b8a7d6c5e4f3a2b1c"),
    (b"content-type", b"application/json"),
    (b"content-length", b"2048"),
    (b"cookie", b"sessionid=2b8a6f0d9c4e4f3b8a7d6c5e4f3a2b1c; theme=dark"),
]


def document(number: int, *, secret: bool) -> bytes:
    """Write an order of about 2 KB; each has other ids and texts."""
    customer = {"name": f"Ann {number}", "email": f"ann{number}@example.com", "city": "Uji"}
    if secret:
        customer["password"] = f"tea{number}"
    lines = [
        {
            "sku": f"SKU-{number * 14 + line}",
            "title": f"First flush, lot {line}",
            "quantity": line,
            "price": "12.50",
            "note": f"line {line} of order {number}",
        }
        for line in range(14)
    ]
    notes = "Please deliver in the afternoon. " * 6
    return msgspec.json.encode({"id": number, "customer": customer, "lines": lines, "notes": notes})


def measure() -> Iterator[Figure]:
    contents = Contents.of(AuditConfig())
    for what, secret in (("nothing to remove", False), ("a password to remove", True)):
        bodies = iter([document(number, secret=secret) for number in range(2 * _TIMES + 200)])

        def both(bodies: Iterator[bytes] = bodies) -> None:
            contents.body(next(bodies), "application/json", _LIMIT)
            contents.body(next(bodies), "application/json", _LIMIT)

        each(both, 100)
        size = len(document(7, secret=secret))
        samples = each(both, _TIMES)
        goal = None if secret else _GOAL_BOTH_US
        yield _figure(f"two bodies of JSON, {what}, p50", samples, goal, f"{size} bytes each")
    yield _figure("headers both ways, p50", each(lambda: [contents.headers(_HEADERS) for _ in "io"], _TIMES))
    number = iter(range(10 * _TIMES))
    query = each(lambda: contents.query(f"page={next(number)}&size=20&sort=-created"), _TIMES)
    yield _figure("query, p50", query)
    large = b'{"notes": "' + b"word " * 20_000_000 + b'"}'
    few = each(lambda: contents.body(large, "application/json", _LIMIT), 20)
    yield _figure("a body of 100 MB, p50", few, note=f"limit {_LIMIT} bytes")
    yield from _output()


def _output() -> Iterator[Figure]:
    modes: dict[str, Callable[[], float]] = {
        "plain": lambda: _print(None),
        "kept": lambda: _print(OutputTail()),
    }
    times = interleaved(modes, _ROUNDS)
    kept, plain = times["kept"], times["plain"]
    yield Figure(
        name=f"a command that prints {_LINES} lines",
        value=ratio(kept, plain),
        unit="times",
        goal=1.05,
        note=f"the end kept, below the TextIOWrapper; {spread(kept, plain)}",
        noise=noise(kept, plain),
    )


class _Below(io.RawIOBase):
    """What a ``TextIOWrapper`` writes to: a file, and what keeps the end."""

    def __init__(self, file: int, tail: OutputTail | None) -> None:
        self._file = file
        self._tail = tail

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self._tail is not None:
            self._tail.write(bytes(data))
        return os.write(self._file, data)


def _print(tail: OutputTail | None) -> float:
    """Print lines into /dev/null; return how long it took, in seconds."""
    file = os.open(os.devnull, os.O_WRONLY)
    try:
        stream = io.TextIOWrapper(io.BufferedWriter(_Below(file, tail)), "utf-8")
        start = time.perf_counter()
        for number in range(_LINES):
            print(f"{number}: order {number * 7} of customer {number % 977} was exported", file=stream)
        stream.flush()
        return time.perf_counter() - start
    finally:
        os.close(file)


def _figure(name: str, samples: list[float], goal: float | None = None, note: str = "") -> Figure:
    return Figure(name=name, value=quantile(samples, 0.5) * 1e6, unit="µs", goal=goal, note=note)


if __name__ == "__main__":
    report(measure())
