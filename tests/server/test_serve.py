"""Starting and stopping: ports, addresses, what is told, and what SIGTERM still finishes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from otel_audit.config.model import AuditConfig, ServerConfig
from otel_audit.errors import ConfigurationError
from otel_audit.server import run
from otel_audit.server.serve import _listen
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit
from tests.trail import COMMAND, clean_environment, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
ANY = ("--http-port", "0", "--grpc-port", "0", "--clickhouse-port", "0", "--no-fsync")


def refused(directory: Path, *options: str, **variables: str) -> str:
    """Start a server that must not start; give what it says."""
    done = subprocess.run(
        [*COMMAND, "serve", "--data", str(directory / "data"), *ANY, *options],
        cwd=directory,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = re.sub(r"[\s│╭╮╰╯─]+", " ", done.stdout + done.stderr)
    assert done.returncode != 0, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("option", ["http", "grpc", "clickhouse"])
def test_a_taken_port_is_told_with_its_option(tmp_path: Path, option: str) -> None:
    """Which port, for what, and what to set; and the data directory is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path, f"--{option}-port", str(port))
    assert f"127.0.0.1:{port}" in said
    assert "the port is already in use" in said
    assert f"OTEL_AUDIT_SERVER_{option.upper()}_PORT" in said
    with serving(tmp_path) as running:
        assert httpx.get(f"{running.http}/ready").status_code == 200


def test_a_public_address_needs_a_token(tmp_path: Path) -> None:
    """Refused before anything is opened; with a token it is served."""
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigurationError, match="OTEL_AUDIT_SERVER_TOKEN"):
            run(AuditConfig(server=ServerConfig(host=host, data=str(tmp_path / "data"))))
    assert not (tmp_path / "data").exists()
    with serving(tmp_path, "--host", "0.0.0.0", OTEL_AUDIT_SERVER_TOKEN="t") as running:
        assert httpx.get(running.http.replace("0.0.0.0", "127.0.0.1") + "/ready").status_code == 200


def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path) -> None:
    """At the start, not at the first request."""
    for token in ("schlüssel", "a\nb", " a "):
        with pytest.raises(ConfigurationError, match="characters that HTTP headers cannot carry"):
            run(AuditConfig(server=ServerConfig(token=token, data=str(tmp_path / "data"))))


def test_a_second_server_on_the_same_data_says_who_holds_it(tmp_path: Path) -> None:
    """With the process id; the first goes on."""
    with serving(tmp_path) as running:
        said = refused(tmp_path)
        assert f"process {running.pid} " in said
        assert httpx.get(f"{running.http}/ready").status_code == 200


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """The journal of migrations decides; nothing is changed."""
    with serving(tmp_path):
        pass
    script = (
        "from pathlib import Path\n"
        "from otel_audit.server.engine.engine import Engine\n"
        f"engine = Engine(Path({str(tmp_path / 'data' / 'engine')!r}), memory_bytes=2**30, fsync=False)\n"
        "with engine.connection() as connection:\n"
        '    connection.query("INSERT INTO otel.otel_audit_migrations (kind, name, version) "\n'
        "                     \"VALUES ('tables', 'future', 99)\")\n"
        "engine.close()\n"
    )
    subprocess.run([COMMAND[0], "-c", script], check=True, timeout=60)
    said = refused(tmp_path)
    assert "schema version 99" in said
    assert "install the newer otel-audit" in said


def test_sigterm_finishes_what_was_accepted(tmp_path: Path) -> None:
    """Under load: every request is answered or the connection refused, and every answer kept."""
    acknowledged: list[str] = []
    unexpected: list[object] = []

    def send(url: str) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while True:
                batch = [record("a.b", "READ", at=time.time_ns()) for _ in range(20)]
                try:
                    answer = client.post(
                        "/v1/audit", content=audit(batch).SerializeToString(), headers=PROTOBUF
                    )
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.extend(one.id for one in batch)
                elif answer.status_code != 503:
                    unexpected.append(answer.status_code)

    with serving(tmp_path) as running:
        threads = [threading.Thread(target=send, args=(running.http,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 200:
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGTERM)
        for thread in threads:
            thread.join(60)
    assert not unexpected
    with serving(tmp_path) as running:
        client = StoreClient(running.clickhouse)
        found = client.rows("SELECT DISTINCT toString(record_id) FROM otel.audit_events")
    assert set(acknowledged) <= {row[0] for row in found}


def test_the_engine_stays_within_its_memory_and_raises_the_open_files(tmp_path: Path) -> None:
    """As configured, whatever the shell's limits; merges are the ones to wait."""
    with serving(tmp_path, OTEL_AUDIT_SERVER_MEMORY_BYTES=str(2**30)) as running:
        client = StoreClient(running.clickhouse)
        changed = client.rows("SELECT name, value FROM system.server_settings WHERE changed")
        tree = client.rows("SELECT name, value FROM system.merge_tree_settings WHERE changed")
        caches = client.rows(
            "SELECT sum(toUInt64(value)) FROM system.server_settings "
            "WHERE match(name, '^(mark|index_mark|primary_index|text_index_.*)_cache_size$')"
        )
        limits = Path(f"/proc/{running.pid}/limits")
        files = limits.read_text() if limits.exists() else ""
    set_to = {str(name): str(value) for name, value in changed}
    assert set_to["max_server_memory_usage"] == str(2**30)
    assert set_to["os_threads_nice_value_merge_mutate"] == "10"
    assert {("min_level_for_wide_part", "1"), ("merge_selector_base", "10")} <= {
        (str(name), str(value)) for name, value in tree
    }
    assert int(caches[0][0]) < 2**29
    if files:
        assert int(re.findall(r"Max open files\s+(\d+)", files)[0]) > 1024


def test_importing_the_package_imports_no_engine() -> None:
    """An application that imports chdb can no longer fork."""
    script = (
        "import sys, otel_audit, otel_audit.server, otel_audit.store.client; print('chdb' in sys.modules)"
    )
    done = subprocess.run([COMMAND[0], "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_an_answer_is_not_held_back_for_an_acknowledgement() -> None:
    """Connections to what the server listens on send each write at once (no Nagle's algorithm)."""
    with (
        _listen("127.0.0.1", 0, "http_port", "OTLP over HTTP") as listening,
        socket.create_connection(listening.getsockname()),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
