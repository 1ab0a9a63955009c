"""A store of the last version: every answer is as it was, before, while and after its rows are rewritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.semconv import to_attributes
from otel_audit.store.query import AuditStore
from otel_audit.store.schema import landing
from tests.attack.chance import Chance
from tests.engine_process import in_engine
from tests.server import otlp_messages
from tests.store.test_attributes import as_text, bulk, distorted, ordinary
from tests.trail import land, serving

FORMER = Path(__file__).parent / "former"
"""All statements of a new store of each former schema version, as that version made them."""
DAY = 86_400 * 10**9
EACH = 120

OPEN = f"""
import json, os, signal, sys
from pathlib import Path
from otel_audit.server.engine.datadir import DataDirectory
from otel_audit.server.engine.engine import Engine
from otel_audit.server.engine.upkeep import Upkeep
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import migrate
from otel_audit.store.rewriting import former, rewrite

STRUCTURE = ('Timestamp DateTime64(9), TraceId String, Body String, Pairs Array(Tuple(String, String)), '
             'ResourceAttributes Map(String, String)')
ANSWER = '''
SELECT toString(record_id), ordinal, toString(timestamp),
  arraySort(p -> p.1, CAST(attributes, 'Array(Tuple(String, String))')), attributes['audit.action'],
  mapContains(attributes, 'otel_audit.changes'), target,
  toString(cityHash64(* EXCEPT '^(attributes|slug|parent|path|view|work)$'))
FROM (SELECT * FROM otel.audit_trail UNION ALL SELECT * FROM otel.activity_trail
  UNION ALL SELECT * FROM otel.pageview_trail UNION ALL SELECT * FROM otel.other_trail)
ORDER BY record_id, ordinal'''
FORMS = 'SELECT attributes_form, count() AS n FROM otel.audit_events FINAL WHERE ordinal = 0 GROUP BY 1'

def begin(connection, version=3):
    for statement in Path({str(FORMER)!r}, f'version_{{version}}.sql').read_text().split(';\\n'):
        if statement.strip():
            connection.query(statement)

def insert(connection):
    for path in sorted(Path(sys.argv[1]).parent.glob('*_log.json')):
        connection.query(
            f"INSERT INTO otel.{{path.stem}} (Timestamp, TraceId, Body, LogAttributes, ResourceAttributes) "
            "SELECT Timestamp, TraceId, Body, CAST(Pairs, 'Map(LowCardinality(String), String)'), "
            "ResourceAttributes "
            f"FROM file('{{path}}', 'JSONEachRow', '{{STRUCTURE}}')")

data = DataDirectory.acquire(Path(sys.argv[1]))
engine = Engine(data.engine, memory_bytes=2**30, fsync=False)
with engine.connection() as connection:
    result = {{}}
"""


def rows_of(directory: Path) -> list[AuditRecord]:
    """Write rows of four months, as they land, to files by their table; return the records left as made."""
    chance = Chance(3)
    tables: dict[str, list[str]] = {}
    kept = []
    for number in range(4 * EACH):
        each = ordinary(chance) if number % 10 else bulk(chance)
        at = each.timestamp - number % 4 * 31 * DAY
        pairs = otlp_messages.key_values(to_attributes(each))
        if number % 3:
            pairs = distorted(chance, pairs)
        else:
            kept.append(each)
        row = {
            "Timestamp": f"{at // 10**9}.{at % 10**9:09d}",
            "TraceId": each.trace_id,
            "Body": each.message,
            "Pairs": as_text(pairs),
            "ResourceAttributes": {"service.name": "shop"},
        }
        tables.setdefault(landing(each.log), []).append(json.dumps(row))
    for table, lines in tables.items():
        (directory / f"{table}.json").write_text("\n".join(lines))
    return kept


def test_every_answer_is_the_same_before_while_and_after(tmp_path: Path) -> None:
    """Also of rows that came before the migration and come again while they are rewritten."""
    rows_of(tmp_path)
    result = in_engine(
        tmp_path,
        OPEN,
        "begin(connection)\n"
        "insert(connection)\n"
        "before = connection.rows(ANSWER)\n"
        "result['rows'] = len(before)\n"
        "result['applied'] = migrate(connection.rows)\n"
        "result['same'] = [connection.rows(ANSWER) == before]\n"
        "result['left'] = [each[:2] for each in former(connection.rows, Layout())]\n"
        "size = 'SELECT sum(byteSize(attributes)) FROM otel.audit_events'\n"
        "result['sizes'] = connection.rows(size)[0]\n"
        "def meanwhile(seconds):\n"
        "    with engine.connection() as other:\n"
        "        result['same'].append(other.rows(ANSWER) == before)\n"
        "    return False\n"
        "def begun(each):\n"
        "    result['same'].append(connection.rows(ANSWER) == before)\n"
        "result['whole'] = rewrite(connection.rows, Layout(), begun=begun, stopped=meanwhile)\n"
        "result['same'].append(connection.rows(ANSWER) == before)\n"
        "result['sizes'] += connection.rows(size)[0]\n"
        "result['forms'] = connection.rows(FORMS)\n"
        "insert(connection)\n"
        "result['same'].append(connection.rows(ANSWER) == before)\n"
        "result['again'] = [Upkeep(engine, 'otel').rewrite(), migrate(connection.rows)]\n"
        "result['again'].append(connection.rows(FORMS))\n",
    )
    assert result["rows"] > 4 * EACH
    assert "attributes" in result["applied"]
    assert len(result["left"]) >= 16  # four tables, four months
    assert len(result["same"]) > 16
    assert all(result["same"])
    assert result["whole"]
    assert int(result["sizes"][1]) < 0.7 * int(result["sizes"][0])
    forms = {int(form): int(count) for form, count in result["forms"]}
    assert 0 not in forms
    assert forms[1] < sum(forms.values()) / 2  # those nobody of ours would send
    assert result["again"][:2] == [True, []]
    again = {int(form): int(count) for form, count in result["again"][2]}
    assert (again[1], sum(again.values())) == (forms[1], sum(forms.values()))  # as new rows are written


def test_a_rewriting_that_was_killed_is_finished(tmp_path: Path) -> None:
    """Whenever it was: no row is lost, none is half rewritten, and the next run does the rest."""
    rows_of(tmp_path)
    opening = "begin(connection)\ninsert(connection)\nresult = connection.rows(ANSWER)\n"
    before = in_engine(tmp_path, OPEN, opening)
    for place in (1, 3):
        dying = (
            "    migrate(connection.rows)\n    begun = []\n"
            "    def until(sql):\n"
            "        rows = connection.rows(sql)\n"
            "        begun.extend([sql] if sql.startswith('ALTER') else [])\n"
            f"        return rows if len(begun) < {place} else os.kill(os.getpid(), signal.SIGKILL)\n"
            "    rewrite(until, Layout(), stopped=lambda _: False)\n"
        )
        killed = subprocess.run(
            [sys.executable, "-c", OPEN + dying, str(tmp_path / "engine")], check=False, timeout=120
        )
        assert killed.returncode == -9
        assert in_engine(tmp_path, OPEN, "result = connection.rows(ANSWER)\n") == before
    result = in_engine(
        tmp_path,
        OPEN,
        "result['whole'] = Upkeep(engine, 'otel').rewrite()\n"
        "result['left'] = former(connection.rows, Layout())\n"
        "result['answer'] = connection.rows(ANSWER)\n",
    )
    assert (result["whole"], result["left"]) == (True, [])
    assert result["answer"] == before


@pytest.mark.parametrize("version", [3, 4])
def test_a_store_of_a_former_version_is_served(tmp_path: Path, version: int) -> None:
    """Old records are read as they were made and found by what has a column only now, beside new ones."""
    kept = rows_of(tmp_path)
    in_engine(tmp_path, OPEN, f"begin(connection, {version})\ninsert(connection)\n")
    (tmp_path / "engine").rename(tmp_path / "data")
    with serving(tmp_path) as running, AuditStore(running.clickhouse) as store:
        new = ordinary(Chance(5))
        land(store._client, [new])
        assert store.get(new.id) == new
        for each in kept[::9]:
            found = store.get(each.id)
            assert found is not None
            assert to_attributes(found) == to_attributes(each)
        by_path = (
            "SELECT toString(record_id) AS id FROM otel.audit_trail WHERE path = '/orders/7/' AND ordinal = 0"
        )
        of_path = {row["id"] for row in store._client.query(by_path)}
        assert {each.id for each in kept if each.log == "audit" and each.request.path} <= of_path
