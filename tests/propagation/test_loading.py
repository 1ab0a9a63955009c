"""HTTP clients are waited for, not imported; what is not asked for is not loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys

import otel_audit
from otel_audit.config.model import AuditConfig, ContextConfig, OutgoingConfig, SinkConfig, SpoolConfig

context = ContextConfig(keys={{"k1": "x" * 32}}, propagate_to={hosts})
spool, sink = SpoolConfig(directory="spool"), SinkConfig(shutdown_timeout=0)
outgoing = OutgoingConfig(enabled={calls})
otel_audit.setup(AuditConfig(context=context, spool=spool, sink=sink, outgoing=outgoing))
clients = ("aiohttp", "httpcore", "httpx", "requests", "urllib3")
print("loaded:", [name for name in clients if name in sys.modules])
print("ours:", "otel_audit.propagation.outgoing" in sys.modules)
print("calls:", "otel_audit.http.outgoing.calls" in sys.modules)
import http.client
import aiohttp, httpcore, httpx, requests

def wrapped():
    pool, connection = httpcore.ConnectionPool, http.client.HTTPConnection
    calls = (aiohttp.ClientRequest.send, pool.handle_request, connection.endheaders)
    return [call.__module__.startswith("otel_audit.") for call in calls]

print("wrapped:", wrapped())
otel_audit.shutdown()
print("after:", wrapped())
"""


@pytest.mark.parametrize(
    ("hosts", "calls"),
    [(["fulfilment"], False), ([], True), ([], False)],
    ids=["told", "recorded", "neither"],
)
def test_clients_are_wrapped_once_the_application_imports_them(
    tmp_path: Path, hosts: list[str], calls: bool
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hosts=hosts, calls=calls)],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = bool(hosts)
    assert done.stdout.splitlines() == [
        "loaded: []",
        f"ours: {told or calls}",  # both ask where a call goes
        f"calls: {calls}",
        f"wrapped: {[told or calls] * 3}",
        f"after: {[False] * 3}",
    ]
