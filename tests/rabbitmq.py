"""A private RabbitMQ for tests: in a temporary directory, on free ports of 127.0.0.1, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.services import ServiceUnavailable, free_port, wait_until

_SERVER: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0


@contextmanager
def rabbitmq() -> Iterator[str]:
    """Run RabbitMQ for the length of a ``with`` block; gives its address, ``amqp://…``."""
    if not Path(_SERVER).exists():
        raise ServiceUnavailable(
            "rabbitmq-server is not installed: run `make packages` (as root), or install rabbitmq-server"
        )
    port, distribution, names = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="otel-audit-rabbitmq-", ignore_cleanup_errors=True) as path:
        environment = os.environ | {
            "HOME": path,
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
        log = Path(path) / "server.log"
        command = [_SERVER]
        if (setpriv := shutil.which("setpriv")) is not None:
            command = [setpriv, "--pdeathsig", "TERM", *command]  # never outlive the tests
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(lambda: b"completed with" in log.read_bytes(), _START_SECONDS, f"RabbitMQ runs: {log}")
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            # Erlang's names daemon has left our process group; it ends once no node is registered.
            subprocess.run(["epmd", "-kill"], env=environment, check=False, capture_output=True)
