"""An application that records at a rate and writes down what it recorded, after each call has returned.

usage: python -m tests.collector.application FILE RATE LOGS

LOGS are kinds of records, by commas: each in turn. Ends by SIGTERM, as an application does: at exit the
pipeline is shut down.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from types import FrameType

import otel_audit

_TICK = 0.02


def main(path: str, rate: int, logs: list[str]) -> None:
    stopping = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    otel_audit.setup(instrument=False)
    kinds = itertools.cycle(logs)
    told = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    started, number = time.monotonic(), 0
    while not stopping:
        due = int((time.monotonic() - started) * rate) + 1
        while number < due and not stopping:
            number += 1
            before = time.monotonic()
            made = otel_audit.record(
                "billing.invoice.update",
                "UPDATE",
                target=otel_audit.Target("billing.Invoice", str(number)),
                changes=[otel_audit.Change("state", "open", f"paid {number}")],
                attributes={"batch": number // 100, "note": 'ünïcode ✓ \t"quoted"\\'},
                log=next(kinds),
            )
            if made is not None:
                os.write(told, f"{made.id} {time.monotonic() - before:.4f}\n".encode())
        time.sleep(_TICK)
    otel_audit.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","))
