"""G10: who looked at the trail is on record, and no client can leave it out."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_audit.audit_record import Target
from otel_audit.config.model import AuditConfig, SpoolConfig, StoreConfig
from otel_audit.server.clickhouse.questions import MOST_TEXT, Asker, Question, Questions
from otel_audit.server.otlp.commit import Busy
from otel_audit.store.client import StoreClient
from otel_audit.store.filters import Filters
from otel_audit.store.query import AuditStore
from tests.trail import COMMAND, Serving, clean_environment, land, record, serving

NOW = time.time_ns()
ON_RECORD = (
    "SELECT message, outcome, actor_id, actor_type, source_ip, action, error, toString(record_id) AS id, "
    "attributes['otel_audit.attributes'] AS more FROM otel.other_events "
    "WHERE log = 'access' AND action = 'QUERY' ORDER BY timestamp"
)


def recorded(client: StoreClient, part: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait for records of questions that have ``part`` in their text; return all there are."""
    found: list[dict[str, Any]] = []
    for _ in range(100):
        found = [row for row in client.query(ON_RECORD) if part in row["message"]]
        if len(found) >= count:
            break
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with a record of its own."""
    with serving(tmp_path_factory.mktemp("watched")) as running:
        client = StoreClient(running.clickhouse)
        land(client, [record("shop.order.update", "UPDATE", at=NOW, target=Target("shop.Order", "7"))])
        client.close()
        yield running


def test_a_question_is_on_record_with_who_what_and_how_much(server: Serving, store: StoreClient) -> None:
    """The address, the question, its parameters, the number of rows; in the log "access"."""
    with AuditStore(server.clickhouse) as trail:
        page = trail.find(Filters(target="shop.Order/7"))
    assert len(page.entries) == 1
    [found] = [row for row in recorded(store, "FROM") if "shop.Order" in row["more"]][:1]
    assert (found["action"], found["outcome"], found["source_ip"]) == ("QUERY", "success", "127.0.0.1")
    assert (found["actor_id"], found["actor_type"]) == ("127.0.0.1", "unknown")
    more = json.loads(found["more"])
    assert more["rows"] >= 1
    assert "shop.Order/7" in json.dumps(more["parameters"])


def test_records_of_questions_do_not_stand_among_those_of_changes(server: Serving) -> None:
    """Only who asks for the log "access" sees them; and they are not what "the newest record" is."""
    with AuditStore(server.clickhouse) as trail:
        assert {entry.action for entry in trail.find(Filters()).entries} == {"UPDATE"}
        for _ in range(100):
            if trail.find(Filters(log="access", action="QUERY")).entries:
                break
            time.sleep(0.2)
        assert trail.find(Filters(log="access", action="QUERY")).entries
        newest = trail.newest()
    assert newest is not None
    assert newest.log == "audit"


WAYS: dict[str, Any] = {
    "post": lambda url, sql: httpx.post(url, content=sql),
    "get": lambda url, sql: httpx.get(url, params={"query": sql}),
    "head": lambda url, sql: httpx.head(url, params={"query": sql}),
    "query and body": lambda url, sql: httpx.post(url, params={"query": sql[:8]}, content=sql[8:]),
    "form": lambda url, sql: httpx.post(url, files={"query": (None, sql)}),
    "comment": lambda url, sql: httpx.post(url, content="/* INSERT INTO otel.audit_log VALUES */" + sql),
    "line comment": lambda url, sql: httpx.post(url, content=f"-- nothing\n{sql} -- INSERT"),
    "log settings": lambda url, sql: httpx.post(
        url, params={"log_queries": "0", "log_comment": "", "query_id": "x" * 300}, content=sql
    ),
    "settings clause": lambda url, sql: httpx.post(url, content=f"{sql} SETTINGS max_threads = 1"),
    "format": lambda url, sql: httpx.post(url, content=f"{sql} FORMAT Null"),
    "explain": lambda url, sql: httpx.post(url, content=f"EXPLAIN {sql}"),
    "with": lambda url, sql: httpx.post(url, content=f"WITH 1 AS one {sql}"),
    "bracket": lambda url, sql: httpx.post(url, content=f"({sql})"),
    "trail": lambda url, sql: httpx.post(url, content=sql.replace("audit_events", "audit_trail")),
    "gzip answer": lambda url, sql: httpx.post(url, params={"compress": "1"}, content=sql),
    "session": lambda url, sql: httpx.post(url, params={"session_id": "s", "database": "otel"}, content=sql),
    "refused": lambda url, sql: httpx.post(url, content=f"{sql} INTO OUTFILE '/tmp/x'"),
    "two": lambda url, sql: httpx.post(url, content=f"SELECT 1; {sql}"),
    "wrong": lambda url, sql: httpx.post(url, content=f"{sql} WHERE nothing = 1"),
    "write": lambda url, sql: httpx.post(url, content=f"CREATE TABLE x ENGINE = Null AS {sql}"),
}


def test_no_way_of_asking_leaves_it_out(server: Serving, store: StoreClient) -> None:
    """Whatever the method, the place of the statement, comments, settings, formats; answered or refused."""
    answers = {
        way: ask(server.clickhouse, f"SELECT 'mark {way} end', count() FROM otel.audit_events")
        for way, ask in WAYS.items()
    }
    for way, answer in answers.items():
        [found] = recorded(store, f"mark {way} end")
        assert (found["outcome"] == "success") == (answer.status_code == 200), way
        assert bool(found["error"]) == (answer.status_code != 200), way


def test_a_client_that_does_not_wait_for_the_answer_is_on_record(server: Serving, store: StoreClient) -> None:
    """It may have read a part of it."""
    host, port = server.clickhouse.removeprefix("http://").split(":")
    sql = "SELECT 'impatient', count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"GET /?query={urllib.parse.quote(sql)} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    )
    time.sleep(1)
    connection.close()
    [found] = recorded(store, "impatient")
    assert found["outcome"] == "failure"


def test_the_same_question_is_counted_and_another_is_not_hidden_by_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One record, and one that says how often; a time in it makes no other question, a name does."""
    directory = tmp_path_factory.mktemp("repeated")
    with serving(directory) as running:
        ask = [
            f"SELECT 'panel' FROM otel.audit_events WHERE timestamp > '2026-01-01 00:00:{second:02d}'"
            for second in range(40)
        ]
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda sql: httpx.post(running.clickhouse, content=sql).is_success, ask))
        for name in ("alice", "bob"):
            httpx.post(
                running.clickhouse,
                content=f"SELECT 'person' FROM otel.audit_events WHERE actor_id = '{name}'",
            )
    with serving(directory) as again:
        client = StoreClient(again.clickhouse)
        panels = recorded(client, "'panel'", 2)
        first = [json.loads(row["more"]) for row in panels if "repeated" not in row["more"]]
        counts = [json.loads(row["more"]) for row in panels if "repeated" in row["more"]]
        # Those that are asked at the same moment, before the first is on record, each have a record.
        assert 1 <= len(first) <= 4
        assert sum(more["repeated"] for more in counts) + len(first) == 40
        assert {more["first"] for more in counts} <= {row["id"] for row in panels}
        people = recorded(client, "'person'", 2)
        assert [row["message"].rpartition("= ")[2] for row in people] == ["'alice'", "'bob'"]
        client.close()


def test_secrets_of_a_question_are_redacted_and_its_text_is_bounded(
    server: Serving, store: StoreClient
) -> None:
    """In the text, the parameters and the name of the client."""
    secret = "hunter2hunter2"
    httpx.post(
        server.clickhouse,
        content=f"SELECT 'redacted', {{password:String}} FROM otel.audit_events "
        f"WHERE message = 'password={secret}'",
        params={"param_password": secret},
        headers={"User-Agent": f"curl password={secret}"},
    )
    [found] = recorded(store, "'redacted'")
    whole = store.query("SELECT * FROM otel.other_events WHERE record_id = {id:UUID}", {"id": found["id"]})
    assert secret not in json.dumps(whole)
    httpx.post(server.clickhouse, content=f"SELECT 'bounded', '{'x' * 100_000}', 1 FORMAT Null")
    [long] = recorded(store, "'bounded'")
    assert len(long["message"].encode()) <= MOST_TEXT
    httpx.post(
        server.clickhouse,
        content="SELECT 'many', {p1:String}",
        params={f"param_p{number}": "y" * 900 for number in range(60)},
    )
    [many] = recorded(store, "'many'")
    assert len(many["more"]) < 3 * MOST_TEXT


def test_odd_characters_are_recorded_as_well(server: Serving, store: StoreClient) -> None:
    """A question is not left out because its text is not plain."""
    for number, odd in enumerate(("\0", "\x1b[2J", "\u202e", "😀", "\ufffe", "\\xff")):
        httpx.post(server.clickhouse, content=f"SELECT 'odd {number}', '{odd}' FROM otel.audit_events")
        assert len(recorded(store, f"'odd {number}'")) == 1


def test_inserts_and_health_checks_are_no_questions(server: Serving, store: StoreClient) -> None:
    """The Collector writes here as well, and writing down that it did would never end."""
    land(store, [record("shop.order.update", "UPDATE", at=NOW, target=Target("shop.Order", "not asked"))])
    httpx.get(f"{server.clickhouse}/ping")
    httpx.get(f"{server.http}/ready")
    httpx.post(server.clickhouse, content="SELECT 'a question'")
    assert recorded(store, "'a question'")
    assert not [row for row in store.query(ON_RECORD) if row["message"].startswith("INSERT")]
    time.sleep(2)  # had a record made a record, there would be more and more
    before = store.query("SELECT count() AS n FROM otel.other_events WHERE log = 'access'")
    time.sleep(2)
    after = store.query("SELECT count() AS n FROM otel.other_events WHERE log = 'access'")
    assert after[0]["n"] - before[0]["n"] <= 1


def test_the_name_of_the_token_stands_for_who_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not the user name, which anybody may write there."""
    with serving(tmp_path_factory.mktemp("named"), OTEL_AUDIT_SERVER_TOKEN="s3cret-token!") as running:
        headers = {"X-ClickHouse-User": "somebody else", "X-ClickHouse-Key": "s3cret-token!"}
        httpx.post(running.clickhouse, content="SELECT 'by token'", headers=headers)
        client = StoreClient(StoreConfig(url=running.clickhouse, token="s3cret-token!"))
        [found] = recorded(client, "'by token'")
        assert (found["actor_id"], found["actor_type"]) == ("token", "service")
        assert found["source_ip"] == "127.0.0.1"
        assert "s3cret" not in json.dumps(client.query("SELECT * FROM otel.other_events"))
        client.close()


def test_a_question_that_was_answered_is_on_record_after_kill_9(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It was on disk before the answer; the next start brings it into the store."""
    directory = tmp_path_factory.mktemp("killed")
    with serving(directory) as running:
        for number in range(20):
            answer = httpx.post(running.clickhouse, content=f"SELECT 'killed {number}'")
            assert answer.status_code == 200
        os.kill(running.pid, signal.SIGKILL)
    with serving(directory) as again:
        client = StoreClient(again.clickhouse)
        assert len({row["message"] for row in recorded(client, "'killed", 20)}) == 20
        client.close()


def full(directory: Path, on_error: str) -> Questions:
    """Make what records questions, with a spool that has no room."""
    config = AuditConfig(on_error=on_error, spool=SpoolConfig(max_bytes=65536, block_timeout=0.0))  # type: ignore[arg-type]
    questions = Questions(config, directory, "http://127.0.0.1:9/v1/audit", "")
    for number in range(200):
        try:
            questions.asked(question(f"SELECT {number} -- {'x' * 3000}"))
        except Busy:
            break
    return questions


def question(text: str) -> Question:
    return Question(Asker("", "10.0.0.1"), text, {}, 1, 0.1)


def test_on_error_decides_about_a_question_that_cannot_be_kept(tmp_path: Path) -> None:
    """``fail_closed``: it is not answered; ``fail_open``: it is, and the loss is counted."""
    closed = full(tmp_path / "closed", "fail_closed")
    again = question(f"SELECT 'again' -- {'x' * 4000}")
    with pytest.raises(Busy, match="could not be recorded"):
        closed.asked(again)
    with pytest.raises(Busy):  # it is not among those that count as recorded
        closed.asked(again)
    closed.close()
    opened = full(tmp_path / "open", "fail_open")
    opened.asked(again)
    assert opened.dropped > 0
    opened.close()


def test_a_question_that_cannot_be_kept_is_not_answered(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503, and no row of the trail; when there is room again, it is answered."""
    directory = tmp_path_factory.mktemp("closed")
    closed: dict[str, Any] = {"OTEL_AUDIT_ON_ERROR": "fail_closed", "OTEL_AUDIT_SPOOL_SEGMENT_BYTES": "4096"}
    with serving(directory, **closed) as running:
        assert httpx.post(running.clickhouse, content="SELECT 'first'").text == "first\n"
        spool = directory / "data" / "questions"
        kept = directory / "elsewhere"
        spool.rename(kept)
        spool.write_text("in the way")
        answers = [
            httpx.post(running.clickhouse, content=f"SELECT 'never {number}', '{'x' * 3000}'")
            for number in range(4)
        ]
        for answer in answers[2:]:  # each takes most of a segment, and no other can be made
            assert answer.status_code == 503
            assert "never" not in answer.text
            assert "could not be recorded" in answer.text
        spool.unlink()
        kept.rename(spool)
        assert httpx.post(running.clickhouse, content="SELECT 'room'").text == "room\n"


def test_a_repeated_question_costs_no_write(tmp_path: Path) -> None:
    """What a dashboard asks again and again is a look into a table, and memory stays bounded."""
    questions = Questions(AuditConfig(), tmp_path / "q", "http://127.0.0.1:9/v1/audit", "")
    questions.asked(question("SELECT 'same'"))
    before = questions.written
    for _ in range(1000):
        questions.asked(question("SELECT 'same'"))
    assert questions.written == before
    questions.close()
    assert questions.written == before + 1  # how often


def test_many_threads_lose_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is either recorded or counted."""
    questions = Questions(AuditConfig(), tmp_path / "q", "http://127.0.0.1:9/v1/audit", "", period=0.01)
    kept: list[Any] = []
    monkeypatch.setattr(questions, "_keep", kept.extend)

    def ask(thread: int) -> None:
        for number in range(100):
            questions.asked(question(f"SELECT {number % 7}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    questions.close()
    assert sum(one.attributes.get("repeated", 1) for one in kept) == 400


def test_it_can_be_switched_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By one setting of the server, and by none of a client."""
    directory = tmp_path_factory.mktemp("off")
    with serving(directory, OTEL_AUDIT_SERVER_RECORD_QUERIES="false") as running:
        httpx.post(running.clickhouse, content="SELECT 'unseen'")
        time.sleep(2)
        client = StoreClient(running.clickhouse)
        assert client.query(ON_RECORD) == []
        client.close()
        assert not (directory / "data" / "questions").exists()


def test_the_command_line_shows_them_when_asked_for_that_log(server: Serving, tmp_path: Path) -> None:
    """`query --log access`, and not `query`."""

    def run(*arguments: str) -> str:
        return subprocess.run(
            [*COMMAND, "query", *arguments, "--url", server.clickhouse, "--json"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean_environment(),
            check=True,
        ).stdout

    assert "QUERY" not in run()
    for _ in range(20):
        if "QUERY" in (shown := run("--log", "access")):
            break
    assert "FROM otel" in shown
