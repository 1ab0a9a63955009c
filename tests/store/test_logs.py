"""Each log has its own table, and no record is lost or mixed in because its sender did not route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_audit.audit_record import Target, new_record_id
from otel_audit.store.client import StoreClient
from otel_audit.store.filters import tables
from otel_audit.store.query import AuditStore
from otel_audit.store.schema import LOGS, LOGS_TABLE, OTHER_LOG, events, landing
from tests.engine_process import in_engine
from tests.store.test_migrations import ENGINE
from tests.trail import land, record

NOW = 1_790_000_000 * 10**9


def insert(client: StoreClient, table: str, *, log: str | None, record_id: str = "") -> str:
    """Insert the least there is to a record into a landing table."""
    record_id = record_id or new_record_id()
    attributes = {"audit.record.id": record_id, "audit.action": "READ", "audit.outcome": "success"}
    if log is not None:
        attributes["otel_audit.log"] = log
    client.insert(table, [{"Timestamp": "1790000000.1", "LogAttributes": attributes, "Body": record_id}])
    return record_id


def places(client: StoreClient, record_id: str) -> dict[str, list[Any]]:
    """Say which tables keep a record, and as of which log."""
    found = {}
    for log in LOGS:
        rows = client.rows(
            f"SELECT log FROM otel.{events(log.name)} WHERE record_id = {{id:UUID}}", {"id": record_id}
        )
        if rows:
            found[events(log.name)] = [row[0] for row in rows]
    return found


@pytest.mark.parametrize("log", [log.name for log in LOGS])
def test_a_record_in_its_own_landing_table_is_kept_in_its_own_table(client: StoreClient, log: str) -> None:
    kept = insert(client, landing(log), log=log)
    assert places(client, kept) == {events(log): [log]}


@pytest.mark.parametrize("log", ["audit", "activity", "pageview", "billing"])
@pytest.mark.parametrize("table", [landing(log.name) for log in LOGS])
def test_a_record_sent_to_another_log_is_kept_once_and_found(
    client: StoreClient, table: str, log: str
) -> None:
    """It does not lie among records of a log that is not its own, and who asks for its log finds it."""
    kept = insert(client, table, log=log)
    own = table == landing(log)
    assert places(client, kept) == {events(log) if own else "other_events": [log]}
    with AuditStore(client.config) as store:
        assert kept in [entry.id for entry in store.query(log=log, limit=1000)]
        assert kept not in [entry.id for entry in store.query(log=f"!{log}", limit=1000)]
        assert [entry.log for entry in store.with_fragment(kept)] == [log]


def test_a_record_that_names_no_log_is_audit(client: StoreClient) -> None:
    """As the record model has it; wherever it was sent."""
    assert places(client, insert(client, "audit_log", log=None)) == {"audit_events": ["audit"]}
    assert places(client, insert(client, "other_log", log="")) == {"other_events": ["audit"]}


@pytest.mark.parametrize("table", [landing(log.name) for log in LOGS])
def test_what_is_no_record_is_an_ordinary_log_wherever_it_was_sent(client: StoreClient, table: str) -> None:
    marker = f"no uuid {table}"
    insert(client, table, log="audit", record_id=marker)
    rows = client.rows("SELECT count() FROM otel.otel_logs WHERE Body = {body:String}", {"body": marker})
    assert rows == [[1]]


def test_a_record_sent_rightly_and_wrongly_is_one_entry(client: StoreClient) -> None:
    twice = insert(client, "activity_log", log="activity")
    insert(client, "audit_log", log="activity", record_id=twice)
    with AuditStore(client.config) as store:
        found = [entry.id for entry in store.query(log="activity", limit=1000)]
    assert found.count(twice) == 1


def test_pages_over_several_logs_hold_every_record_once_newest_first(client: StoreClient) -> None:
    """The logs are told as one story, whatever table a record lies in."""
    names = ["audit", "activity", "pageview", "billing"]
    made = [
        record("a.b", "READ", at=NOW + number, log=names[number % 4], target=Target("mixed.Thing", "1"))
        for number in range(23)
    ]
    land(client, made)
    with AuditStore(client.config) as store:
        found, cursor = [], None
        while True:
            page = store.query(log="*", target="mixed.Thing/1", limit=4, cursor=cursor)
            found += [entry.id for entry in page]
            cursor = page.cursor
            if cursor is None:
                break
    assert found == [each.id for each in reversed(made)]


def test_the_collector_routes_every_log_to_its_landing_table() -> None:
    """A log without its block would be taken for another one; a block without its log has no table."""
    config = yaml.safe_load((Path(__file__).parents[2] / "collector" / "config.yaml").read_text("utf-8"))
    exporters = config["exporters"].values()
    tables_written = [each["logs_table_name"] for each in exporters if "logs_table_name" in each]
    assert set(tables_written) - {LOGS_TABLE} == {landing(log.name) for log in LOGS}
    written = {
        name: config["exporters"][exporter]["logs_table_name"]
        for name, pipeline in config["service"]["pipelines"].items()
        if pipeline["receivers"] == ["audit_router"]
        for exporter in pipeline["exporters"]
    }
    assert written == {f"logs/{log.name}": landing(log.name) for log in LOGS}
    assert config["connectors"]["audit_router"]["otherwise"] == f"logs/{OTHER_LOG}"


def test_a_question_reads_only_the_tables_that_can_answer() -> None:
    assert tables(None) == ("audit_events", "other_events")
    assert tables("activity") == ("activity_events", "other_events")
    assert tables("billing") == ("other_events",)
    assert tables("*") == tuple(events(log.name) for log in LOGS)
    assert tables("!pageview") == ("audit_events", "activity_events", "other_events")


VERSION_1 = """
from otel_audit.store import migrations, tables
newest = tables.STEPS, schema.LOGS, schema.VIEWS
tables.STEPS, migrations.CURRENT = newest[0][:1], 1
others = schema._strays(schema.LOGS[0])._replace(name='audit_log_others_mv', target='otel_logs')
valid = schema._VALID
select = others.select.partition('WHERE')[0] + f'WHERE NOT ({valid})'
events_mv = next(view for view in schema.VIEWS if view.name == 'audit_events_mv')
kept = events_mv.select.replace(schema._is_kept(schema.LOGS[0]), valid)
assert kept != events_mv.select
later = 'attributes_form, observed_after, slug, parent, path, view'
first = events_mv._replace(select=f'SELECT * EXCEPT ({later}) FROM ({kept})')
schema.LOGS, schema.VIEWS = (), (first, others._replace(select=select))
migrate(connection.rows)
tables.STEPS, schema.LOGS, schema.VIEWS = newest
migrations.CURRENT = len(tables.STEPS)
"""


def test_a_database_of_the_first_version_gets_the_other_logs(tmp_path: Any) -> None:
    """Its views are altered in place, and what it has stays."""
    result = in_engine(
        tmp_path,
        ENGINE,
        VERSION_1 + "def put(table, log):\n"
        "    attributes = {schema.RECORD_ID: '01a2091d-b343-7f43-89f8-fff4a1fed36c', 'otel_audit.log': log}\n"
        "    row = json.dumps({'LogAttributes': attributes}).encode()\n"
        "    connection.insert(f'otel.{table}', (), 'JSONEachRow', [row])\n"
        "put('audit_log', 'audit')\n"
        "before = shape(connection, 'otel')\n"
        "result['before'] = [name for name, _ in before]\n"
        "result['applied'] = migrate(connection.rows)\n"
        "put('audit_log', 'activity')\n"
        "put('activity_log', 'activity')\n"
        "result['again'] = migrate(connection.rows)\n"
        "migrate(connection.rows, 'new')\n"
        "result['same'] = shape(connection, 'otel') == shape(connection, 'new')\n"
        "result['rows'] = [connection.rows(f'SELECT log FROM otel.{schema.events(log.name)}') "
        "for log in schema.LOGS]\n",
    )
    assert "activity_log" not in result["before"]
    assert result["applied"][0] == "logs"
    assert "audit_log_others_mv dropped" in result["applied"]
    assert (result["again"], result["same"]) == ([], True)
    assert result["rows"] == [[["audit"]], [["activity"]], [], [["activity"]]]


def test_a_log_added_later_gets_its_tables(tmp_path: Any) -> None:
    """One more entry in the list is all it takes."""
    result = in_engine(
        tmp_path,
        ENGINE,
        "from otel_audit.store import tables\n"
        "migrate(connection.rows)\n"
        "schema.LOGS = (*schema.LOGS[:-1], schema.Log('billing'), schema.LOGS[-1])\n"
        "result['applied'] = migrate(connection.rows)\n"
        "result['again'] = migrate(connection.rows)\n"
        "result['tables'] = [name for name, _ in shape(connection, 'otel') if 'billing' in name]\n",
    )
    assert result["applied"] == ["logs: billing", "attributes: billing", "work: billing", "names: billing"]
    assert result["again"] == []
    assert result["tables"] == ["billing_events", "billing_log"]
