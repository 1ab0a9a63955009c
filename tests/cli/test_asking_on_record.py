"""Against a store that does not record questions, the command line does."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit.store.client import StoreClient
from tests.trail import COMMAND, Serving, clean_environment, land, record, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    """A store that records no questions."""
    (tmp_path / "serve").mkdir()
    with serving(tmp_path / "serve", OTEL_AUDIT_SERVER_RECORD_QUERIES="false") as running:
        yield running


@pytest.fixture
def foreign(server: Serving) -> Iterator[str]:
    """The same store under the face of a ClickHouse server: it does not say that it is ours."""

    class Forward(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            request = urllib.request.Request(server.clickhouse + self.path, body, method=self.command)
            with urllib.request.urlopen(request) as answer:
                content = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - the names the server asks for

        def log_message(self, *_: Any) -> None:
            pass

    forward = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    threading.Thread(target=forward.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{forward.server_address[1]}"
    forward.shutdown()


def query(directory: Path, url: str, sink: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(**({"OTEL_AUDIT_SINK_ENDPOINT": sink} if sink else {}))
    return subprocess.run(
        [*COMMAND, "query", "--url", url, "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment,
        check=False,
    )


def on_record(server: Serving, count: int) -> list[dict[str, Any]]:
    client = StoreClient(server.clickhouse)
    for _ in range(50):
        found = client.query(
            "SELECT message, outcome, actor_type, attributes['otel_audit.attributes'] AS more "
            "FROM otel.other_events WHERE log = 'access' AND action = 'QUERY' ORDER BY timestamp"
        )
        if len(found) >= count:
            break
        time.sleep(0.2)
    client.close()
    return found


def test_a_command_against_a_clickhouse_server_is_on_record(
    server: Serving, foreign: str, tmp_path: Path
) -> None:
    """Through the configured sink, with the number of rows and how it ended, and without its secrets."""
    client = StoreClient(server.clickhouse)
    land(client, [record("shop.order.update", "UPDATE", at=time.time_ns()) for _ in range(3)])
    client.close()
    sink = f"{server.http}/v1/audit"
    asked = query(tmp_path, foreign, sink, "--action", "update", "--password", "hunter2")
    assert (asked.returncode, len(asked.stdout.splitlines())) == (0, 3), asked.stderr
    [found] = on_record(server, 1)
    assert found["message"].startswith("otel-audit query --url")
    assert "hunter2" not in json.dumps(found)
    assert (found["outcome"], found["actor_type"]) == ("success", "user")
    assert json.loads(found["more"])["rows"] >= 3
    failed = query(tmp_path, foreign, sink, "--since", "nonsense")
    assert failed.returncode != 0
    assert [row["outcome"] for row in on_record(server, 2)] == ["success", "failure"]


def test_without_a_sink_and_against_our_own_server_the_command_line_adds_nothing(
    server: Serving, foreign: str, tmp_path: Path
) -> None:
    """Nothing is made in the directory where it was called, and no question has two records."""
    here = tmp_path / "here"
    here.mkdir()
    assert "Nothing found" in query(here, foreign, "").stderr
    assert "Nothing found" in query(here, server.clickhouse, f"{server.http}/v1/audit").stderr
    assert list(here.iterdir()) == []
    assert on_record(server, 0) == []
