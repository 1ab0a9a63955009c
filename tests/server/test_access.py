"""Who may ask and who may write: the token a server makes by itself, how it is found, and separate tokens."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from otel_audit.config.model import AuditConfig, ServerConfig, StoreConfig
from otel_audit.errors import ConfigurationError, StoreError
from otel_audit.server import run
from otel_audit.server.access import Access, presented
from otel_audit.server.engine.datadir import DataDirectory
from otel_audit.store.client import RefusedQuery, StoreClient
from otel_audit.store.local_tokens import find
from tests.server.otlp_messages import audit
from tests.trail import COMMAND, DRIVER, START_SECONDS, Serving, clean_environment, record, serving

NOW = 1_790_000_000_000_000_000
PROTOBUF = {"Content-Type": "application/x-protobuf"}
INSERT = "INSERT INTO otel.otel_logs (Body) VALUES ('x')"
PORTS = ("--http-port", "0", "--grpc-port", "0", "--clickhouse-port", "0", "--no-fsync")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this test's own, for the server and for us."""
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return path


def asked(url: str, sql: str = "SELECT 1", **headers: str) -> int:
    """Ask or write with these headers; return the status."""
    given = DRIVER | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url, content=sql, headers=given, timeout=30).status_code


def found(running: Serving) -> str:
    """Look for the token of a server as our commands do."""
    address = urlsplit(running.clickhouse)
    return find(address.hostname or "", address.port or 0)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_new_store_answers_only_those_with_its_token(tmp_path: Path) -> None:
    """Made at the first start, for the owner's eyes only, the same at the next; writing is as it was."""
    with serving(tmp_path, makes_token=True) as running:
        kept = tmp_path / "data" / "read-token"
        token = kept.read_text().strip()
        assert (len(token), stat.S_IMODE(kept.stat().st_mode)) == (64, 0o600)
        assert asked(running.clickhouse) == 403
        for wrong in (f"Bearer {token[:-1]}", f"Bearer {token}0", "Bearer", "Basic Og==", token):
            assert asked(running.clickhouse, "SELECT 2", Authorization=wrong) == 403
        for right in (
            bearer(token),
            {"X-ClickHouse-Key": token},
            {"Authorization": httpx.BasicAuth("anybody", token)._auth_header},
        ):
            assert asked(running.clickhouse, **right) == 200
        assert (
            httpx.get(running.clickhouse, params={"query": "SELECT 1", "password": token}).status_code == 403
        )
        sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
        assert httpx.post(f"{running.http}/v1/audit", content=sent, headers=PROTOBUF).status_code == 200
        assert asked(running.clickhouse, INSERT) == 200
    with serving(tmp_path, makes_token=True) as running:
        assert asked(running.clickhouse, **bearer(token)) == 200
    with serving(tmp_path, "--new-token", makes_token=True) as running:
        assert asked(running.clickhouse, **bearer(token)) == 403
        assert asked(running.clickhouse, **bearer(kept.read_text().strip())) == 200


def test_the_same_user_s_commands_find_it(tmp_path: Path, runtime: Path) -> None:
    """By the address alone, however it is written; the library too; nobody else can read it."""
    with serving(tmp_path, makes_token=True) as running:
        port = urlsplit(running.clickhouse).port
        for url in (running.clickhouse, f"http://localhost:{port}", f"http://LOCALHOST:{port}/"):
            done = command("query", "--url", url)
            assert (done.returncode, "Nothing found" in done.stderr) == (1, True), done.stderr
        assert StoreClient(running.clickhouse).rows("SELECT 1") == [[1]]
        done = command("doctor", "--json", OTEL_AUDIT_STORE_URL=running.clickhouse)
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        assert {"subject": "store", "state": "ok"}.items() <= next(
            each for each in findings if each["subject"] == "store"
        ).items()
        (folder,) = runtime.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        wrong = StoreClient(StoreConfig(url=running.clickhouse, token="another"))
        with pytest.raises(RefusedQuery, match="those that were sent are not valid"):
            wrong.rows("SELECT 1")
    assert not list(folder.iterdir())


def test_a_client_from_before_a_restart_finds_the_new_token(tmp_path: Path) -> None:
    """It is looked up for each connection."""
    with serving(tmp_path, makes_token=True) as running:
        port = str(urlsplit(running.clickhouse).port)
        client = StoreClient(running.clickhouse)
        assert client.rows("SELECT 1") == [[1]]
    with serving(tmp_path, "--new-token", "--clickhouse-port", port, makes_token=True):
        assert client.rows("SELECT 1") == [[1]]


def test_a_client_that_asked_too_early_finds_the_token(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the connection it has: it may have been there before the server had laid out its token."""
    with serving(tmp_path, makes_token=True) as running:
        client = StoreClient(running.clickhouse)
        with monkeypatch.context() as early:
            early.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
            early.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
            with pytest.raises(RefusedQuery, match="none were sent"):
                client.rows("SELECT 1")
        assert client.rows("SELECT 1") == [[1]]


def test_what_a_killed_server_left_is_not_sent(tmp_path: Path) -> None:
    """Whoever listens at its address by now does not get the token; the next server clears it away."""
    with serving(tmp_path, makes_token=True) as running:
        os.kill(running.pid, signal.SIGKILL)
        time.sleep(0.5)
        left = list((tmp_path / "runtime" / "otel-audit").iterdir())
        assert left
        assert found(running) == ""
    with serving(tmp_path, makes_token=True) as running:
        assert found(running) != ""
        assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("spoiled", ["folder open", "file open", "link", "not a folder", "read-only"])
def test_a_directory_others_can_change_is_not_trusted(tmp_path: Path, runtime: Path, spoiled: str) -> None:
    """The server starts all the same, and the token is then given by hand."""
    folder = runtime / "otel-audit"
    if spoiled == "folder open":
        folder.mkdir()
        folder.chmod(0o777)
    elif spoiled == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif spoiled == "not a folder":
        folder.write_text("")
    (tmp_path / "state").write_text("no directory")
    with serving(tmp_path, makes_token=True) as running:
        if spoiled == "file open":
            for path in folder.iterdir():
                path.chmod(0o644)
        assert (found(running) != "") == (spoiled == "read-only")
        assert not (tmp_path / "elsewhere").exists() or not list((tmp_path / "elsewhere").iterdir())
        token = (tmp_path / "data" / "read-token").read_text().strip()
        assert asked(running.clickhouse, **bearer(token)) == 200


def started(directory: Path, *options: str, terminal: bool) -> str:
    """Start a server, stop it, and return what it said on standard error."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data", str(directory / "data"), *PORTS, *options],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    until = time.monotonic() + START_SECONDS
    try:
        while b"queries" not in said or not said.rstrip(b" ").endswith(b"\n"):
            assert time.monotonic() < until
            said += os.read(ours, 4096)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # the terminal is gone
        pass
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    return said.decode()


def test_the_token_is_printed_to_a_terminal_only(tmp_path: Path) -> None:
    """Logs keep what is printed: there it is the path of the file."""
    said = started(tmp_path, terminal=True)
    token = (tmp_path / "data" / "read-token").read_text().strip()
    assert token in said
    said = started(tmp_path, terminal=False)
    assert token not in said
    assert str(tmp_path / "data" / "read-token") in said
    assert "read token" not in started(tmp_path, "--no-token", terminal=False)


def test_a_store_from_before_stays_open_and_says_so(tmp_path: Path) -> None:
    """Its marker names no token; --new-token closes it, for good."""
    marker = tmp_path / "data" / "otel-audit-store.json"
    with serving(tmp_path):
        pass
    before = json.loads(marker.read_text())
    del before["token"]
    marker.write_text(json.dumps(before))
    said = started(tmp_path, terminal=False)
    assert "--new-token" in said
    assert "--no-token" in said
    with serving(tmp_path, makes_token=True) as running:
        assert asked(running.clickhouse) == 200
    assert not (tmp_path / "data" / "read-token").exists()
    with serving(tmp_path, "--new-token", makes_token=True) as running:
        assert asked(running.clickhouse) == 403
    (tmp_path / "data" / "read-token").unlink()
    with serving(tmp_path, makes_token=True) as running:
        assert asked(running.clickhouse) == 403


def test_a_token_others_can_read_is_refused(tmp_path: Path) -> None:
    """Or a link in its place: with what to do about it."""
    directory = DataDirectory.acquire(tmp_path / "data")
    directory.token()
    directory.token_file.chmod(0o640)
    with pytest.raises(StoreError, match="--new-token"):
        directory.token()
    renewed = directory.token(renew=True)
    assert directory.token() == renewed
    directory.token_file.unlink()
    directory.token_file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="read-token"):
        directory.token()
    directory.release()


TOKENS: dict[str, Any] = {"OTEL_AUDIT_SERVER_WRITE_TOKEN": "w", "OTEL_AUDIT_SERVER_READ_TOKEN": "r"}


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with a token for each right."""
    with serving(tmp_path_factory.mktemp("parted"), OTEL_AUDIT_SERVER_ADMIN_TOKEN="a", **TOKENS) as running:
        yield running


@pytest.mark.parametrize(
    ("token", "writes", "reads"),
    [("w", True, False), ("r", False, True), ("a", True, True), ("x", False, False), ("", False, False)],
)
def test_each_token_opens_what_it_is_for(parted: Serving, token: str, writes: bool, reads: bool) -> None:
    """On the OTLP port and the query port."""
    headers = bearer(token) if token else {}
    sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    answer = httpx.post(f"{parted.http}/v1/audit", content=sent, headers=PROTOBUF | headers)
    assert (answer.status_code == 200) is writes
    assert (asked(parted.clickhouse, INSERT, **headers) == 200) is writes
    assert (asked(parted.clickhouse, "SELECT count() FROM otel.audit_events", **headers) == 200) is reads


@pytest.mark.parametrize(
    ("sql", "status"),
    [
        ("DESC TABLE otel.audit_log", 200),
        ("DESCRIBE TABLE `otel`.`otel_traces`", 200),
        ("CREATE TABLE IF NOT EXISTS otel.otel_logs (a String) ENGINE = Memory", 200),
        ("CREATE DATABASE IF NOT EXISTS otel", 200),
        ("SELECT 1", 200),
        ("SELECT 2", 403),
        ("SELECT * FROM otel.audit_log", 403),
        ("DESC TABLE otel.audit_events", 403),
        ("DESC TABLE otel.audit_log; SELECT 1", 403),
        ("DESCRIBE TABLE (SELECT * FROM otel.audit_events)", 403),
        ("DESC TABLE system.settings", 403),
        ("SHOW TABLES FROM otel", 403),
        ("EXISTS TABLE otel.audit_log", 403),
        ("EXPLAIN SELECT 1", 403),
        ("INSERT INTO otel.audit_events (actor_id) VALUES ('x')", 403),
        ("INSERT INTO otel.otel_logs (Body) SELECT actor_id FROM otel.audit_events", 403),
        ("TRUNCATE TABLE otel.otel_logs", 403),
    ],
)
def test_who_writes_only_writes(parted: Serving, sql: str, status: int) -> None:
    """Rows for the tables of the Collector, and what its exporter asks at its start."""
    assert asked(parted.clickhouse, sql, **bearer("w")) == status


def test_drivers_are_given_the_token_as_password(parted: Serving) -> None:
    """clickhouse-connect, as the docs say; one that may only write cannot ask."""
    address = urlsplit(parted.clickhouse)
    where: dict[str, Any] = {"host": address.hostname, "port": address.port}
    reader = clickhouse_connect.get_client(**where, username="default", password="r")
    assert reader.query("SELECT count() >= 0 FROM otel.audit_events").result_rows == [(1,)]
    reader.close()
    with pytest.raises(DatabaseError, match=r"516|497"):
        clickhouse_connect.get_client(**where, username="default", password="w")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"no_token": True, "token": "t"}, "server.no_token"),
        ({"no_token": True, "read_token": "t"}, "server.read_token"),
        ({"read_token": "schlüssel"}, "server.read_token has characters"),
        ({"write_token": "a\nb"}, "server.write_token has characters"),
        ({"admin_token": " a"}, "server.admin_token has characters"),
        ({"host": "0.0.0.0", "read_token": "t"}, "OTEL_AUDIT_SERVER_WRITE_TOKEN"),
        ({"host": "0.0.0.0", "admin_token": "t"}, "OTEL_AUDIT_SERVER_TOKEN"),
        ({"host": "0.0.0.0", "no_token": True, "write_token": "t"}, "only on loopback"),
    ],
)
def test_tokens_that_cannot_hold_are_refused_at_the_start(
    tmp_path: Path, section: Mapping[str, Any], message: str
) -> None:
    """By key, and never with the value."""
    with pytest.raises(ConfigurationError, match=message) as refused:
        run(AuditConfig(server=ServerConfig(data=str(tmp_path / "data"), **section)))
    assert "schlüssel" not in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_a_public_server_makes_its_token_even_for_a_store_from_before(tmp_path: Path) -> None:
    """Open to other machines it is never."""
    marker = tmp_path / "data" / "otel-audit-store.json"
    with serving(tmp_path):
        pass
    before = json.loads(marker.read_text())
    del before["token"]
    marker.write_text(json.dumps(before))
    with serving(
        tmp_path, "--host", "0.0.0.0", makes_token=True, OTEL_AUDIT_SERVER_WRITE_TOKEN="w"
    ) as running:
        local = running.clickhouse.replace("0.0.0.0", "127.0.0.1")
        assert asked(local) == 403
        assert StoreClient(local).rows("SELECT 1") == [[1]]


def test_config_show_never_shows_them(tmp_path: Path) -> None:
    """Whichever key, from whichever place."""
    names = ("token", "read_token", "write_token", "admin_token")
    variables = {f"OTEL_AUDIT_SERVER_{name.upper()}": f"s3cret-{name}" for name in names}
    for form in ((), ("--json",)):
        shown = command("config", "show", *form, **variables).stdout
        assert "s3cret" not in shown
        assert shown.count("********") >= len(names)


def test_secrets_are_taken_from_headers() -> None:
    """Of either kind; what is no base64 is none."""
    assert presented([("authorization", "Bearer a"), ("x-clickhouse-key", "b")]) == ["a", "b"]
    assert presented([("authorization", "basic eDp5Onp6")]) == ["y:zz"]
    assert presented([("authorization", "Basic !"), ("authorization", "Digest x"), ("cookie", "a")]) == []
    access = Access({"read": "ü", "write": "", "admin": "a"})
    assert access.rights(["ü"]) == {"read"}
    assert access.rights(["x", "a"]) == {"read", "write", "admin"}
    assert (access.open("write"), access.open("read")) == (True, False)
    assert not access.allows("read", [""])


def test_the_token_that_was_presented_has_a_name() -> None:
    """That of its setting: who asked can be told without the secret."""
    parted = Access({"read": "r", "write": "w", "admin": "a"})
    assert [parted.named([token]) for token in ("r", "w", "a", "x")] == [
        "read_token",
        "write_token",
        "admin_token",
        "",
    ]
    assert Access({"read": "t", "write": "t", "admin": "t"}).named(["t"]) == "token"
    assert Access({"read": "r"}).named(["r"]) == "read_token"
    assert Access({}).named(["r"]) == ""
