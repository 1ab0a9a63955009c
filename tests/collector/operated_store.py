"""``otel-audit serve`` with an operator at its engine: SIGUSR1 takes a table away, SIGUSR2 brings it back.

Nobody can do that through the query port, whose gate lets clients only read and insert.

usage: python -m tests.collector.operated_store TABLE
"""

from __future__ import annotations

import asyncio
import signal
import sys

from otel_audit.config.loader import load
from otel_audit.server.serve import Server


def main(table: str) -> None:
    server = Server(load(None).config)

    def rename(old: str, new: str) -> None:
        with server._engine.connection() as connection:
            connection.query(f"RENAME TABLE otel.{old} TO otel.{new}")

    signal.signal(signal.SIGUSR1, lambda *_: rename(table, f"{table}_away"))
    signal.signal(signal.SIGUSR2, lambda *_: rename(f"{table}_away", table))
    try:
        asyncio.run(server.serve(lambda _: None))
    finally:
        server.close()


if __name__ == "__main__":
    main(sys.argv[1])
