"""capture/ is enough for another library: a toy over sqlite3, audited by an instrumentor of 120 lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.audit_context import context
from otel_audit.audit_record import AuditRecord, Target
from otel_audit.config.model import AuditConfig, DjangoConfig
from otel_audit.testing import CapturedAudit, capture_audit
from tests.audited import audited
from tests.capture import toy_instrumentor
from tests.capture.toy import Database
from tests.capture.toy_instrumentor import ToyInstrumentor
from tests.pipeline.spooling import run_script, spooled_records

CONFIG = AuditConfig(django=DjangoConfig(models=["toy.*"], reads=["toy.person"]))


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Database]:
    database = Database(str(tmp_path / "toy.sqlite3"))
    database.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INTEGER)")
    yield database
    database.raw.close()


@pytest.fixture
def audit(toy: Database) -> Iterator[CapturedAudit]:
    with audited(ToyInstrumentor(), CONFIG) as captured:
        yield captured


def told(record: AuditRecord) -> tuple[str, str, str, dict[str, tuple[object, object]]]:
    return (
        record.action,
        str(record.target),
        record.outcome,
        {change.field: (change.old, change.new) for change in record.changes},
    )


def test_what_commits_by_itself(toy: Database, audit: CapturedAudit) -> None:
    with context(actor="7", reason="hired"):
        key = toy.insert("person", name="ann", age=30)
        toy.update("person", f"id = {key}", age=31)
    created, updated = audit
    assert (created.action, str(created.target), created.outcome) == (
        "CREATE",
        f"toy.person/{key}",
        "success",
    )
    assert {change.field: change.new for change in created.changes} == {"name": "ann", "age": 30}
    assert told(updated) == ("UPDATE", f"toy.person/{key}", "success", {"age": (30, 31)})
    assert (updated.database.system, updated.database.table, updated.old_values) == ("sqlite", "person", None)
    assert (created.actor.id, created.reason) == ("7", "hired")


def test_a_transaction_and_its_savepoints(toy: Database, audit: CapturedAudit) -> None:
    toy.begin()
    toy.insert("person", name="kept")
    point = toy.savepoint()
    toy.insert("person", name="undone")
    toy.rollback_to(point)
    toy.insert("person", name="after")
    assert [record.outcome for record in audit] == ["failure"]
    toy.commit()
    toy.begin()
    toy.insert("person", name="rolled back")
    toy.rollback()
    outcomes = [(record.changes[0].new, record.outcome) for record in audit]
    assert outcomes == [
        ("undone", "failure"),
        ("kept", "success"),
        ("after", "success"),
        ("rolled back", "failure"),
    ]
    assert [row[1] for row in toy.raw.execute("SELECT * FROM person")] == ["kept", "after"]
    transactions = [record.database.transaction for record in audit]
    assert len(set(transactions[:3])) == 1
    assert transactions[3] != transactions[0]


def test_many_rows_and_a_statement_that_changed_nothing(toy: Database, audit: CapturedAudit) -> None:
    for name in ("ann", "bob", "cleo"):
        toy.insert("person", name=name, age=30)
    audit.clear()
    assert toy.update("person", "name <> 'bob'", age=40) == 2
    assert toy.update("person", "name = 'nobody'", age=1) == 0
    assert toy.update("person", "name = 'bob'", age=30) == 1
    record = audit.one()
    assert record.bulk is not None
    assert (record.bulk.count, record.bulk.keys, record.completeness) == (2, ["1", "3"], "full")
    assert [(column.old, column.new) for column in record.bulk.columns] == [([30, 30], [40, 40])]


def test_what_the_database_refuses(toy: Database, audit: CapturedAudit) -> None:
    toy.insert("person", name="ann")
    with pytest.raises(Exception, match="UNIQUE"):
        toy.insert("person", name="ann")
    assert [(record.outcome, record.error) for record in audit] == [
        ("success", ""),
        ("failure", "IntegrityError"),
    ]


def test_a_read(toy: Database, audit: CapturedAudit) -> None:
    for name in ("ann", "bob"):
        toy.insert("person", name=name)
    audit.clear()
    assert len(list(toy.select("person"))) == 2
    assert len(list(toy.select("person", "name = 'bob'"))) == 1
    many, one = audit
    assert many.bulk is not None
    assert (many.action, many.bulk.keys, many.fields) == ("READ", ["1", "2"], ["id", "name", "age"])
    assert one.target == Target("toy.person", "2")


def test_it_is_taken_back_without_a_trace() -> None:
    before = dict(vars(Database))
    with capture_audit(CONFIG):
        ToyInstrumentor().instrument(config=CONFIG)
        assert vars(Database)["insert"] is not before["insert"]
        ToyInstrumentor().uninstrument()
    assert dict(vars(Database)) == before


CRASH = """
from otel_audit.config.model import DjangoConfig
from tests.capture.toy import Database
from tests.capture.toy_instrumentor import ToyInstrumentor

directory = Path(sys.argv[1])
config = audit_config(directory / "spool", django=DjangoConfig(models=["toy.*"]))
provider.start(config, ship=False)
ToyInstrumentor().instrument(config=config)
toy = Database(str(directory / "toy.sqlite3"))
toy.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)")
toy.insert("person", name="before")
toy.begin()
toy.insert("person", name="in flight")
assert not [name for name in sys.modules if name.partition(".")[0] == "django"], "Django was imported"
toy.raw.set_trace_callback(lambda sql: sql == "COMMIT" and os._exit(9))
toy.commit()
"""


def test_a_crash_at_commit_leaves_unknown_and_django_is_never_imported(tmp_path: Path) -> None:
    """In a process of its own."""
    run_script(CRASH, tmp_path, expect=9)
    found = {record.changes[0].new: record.outcome for record in spooled_records(tmp_path / "spool")}
    assert found == {"before": "success", "in flight": "unknown"}


def test_the_instrumentor_is_small() -> None:
    source = Path(toy_instrumentor.__file__).read_text()
    assert len(source.splitlines()) <= 120
