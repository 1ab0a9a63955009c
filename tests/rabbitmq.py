"""A private RabbitMQ for tests: in a temporary directory, on free ports of 127.0.0.1, gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.services import ServiceUnavailable, directory_for, free_port, serve, wait_for

_SERVER: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_START_SECONDS: Final = 120.0


@contextmanager
def rabbitmq() -> Iterator[str]:
    """Run RabbitMQ for the length of a ``with`` block; gives its address, ``amqp://…``."""
    if not Path(_SERVER).exists():
        raise ServiceUnavailable(
            "rabbitmq-server is not installed: run `make packages` (as root), or install rabbitmq-server"
        )
    port, distribution, names = free_port(), free_port(), free_port()
    with directory_for("rabbitmq", None) as path:
        environment = os.environ | {
            "HOME": str(path),
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": f"{path}/mnesia",
            "RABBITMQ_LOG_BASE": f"{path}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{path}/plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": f"{path}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        try:
            with serve(None, path, [_SERVER], signal.SIGTERM, environment) as process:
                wait_for("rabbitmq", path, process, lambda: _is_there(path), _START_SECONDS)
                yield f"amqp://guest:guest@127.0.0.1:{port}//"
        finally:
            # Erlang's names daemon has left our process group; it ends once no node is registered.
            subprocess.run(["epmd", "-kill"], env=environment, check=False, capture_output=True)


def _is_there(directory: Path) -> None:
    if b"completed with" not in (directory / "server.log").read_bytes():
        raise ConnectionError("it is still starting")
