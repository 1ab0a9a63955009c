"""G3: ``success`` means committed, rolled back is ``failure``, a crash between the two is ``unknown``.

Nothing committed goes unrecorded, nothing unwritten is claimed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from otel_audit.audit_record import AuditRecord
from tests.attack.effort import counted, effort
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    audit,
    auditing,
    default_database,
    mariadb_warehouse,
    postgresql_warehouse,
    sqlite_warehouse,
    vendor,
)
from tests.instrumentation.django.warehouse.models import Supplier
from tests.pipeline.spooling import spooled_records, start_script, wait_until

PROJECT = """
import json, random, django
from django.conf import settings
spool, out, database = sys.argv[1:]
settings.configure(
    DATABASES={"default": json.loads(database)}, INSTALLED_APPS=["tests.instrumentation.django.warehouse"],
    USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from otel_audit.instrumentation.django import DjangoAuditInstrumentor
from otel_audit.config.model import DjangoConfig
from tests.instrumentation.django.warehouse.models import Supplier
config = audit_config(spool, django=DjangoConfig(models=["warehouse.*"]))
provider.start(config)
DjangoAuditInstrumentor().instrument(config=config)
from django.db import transaction
"""

WRITER = (
    PROJECT
    + """
def thread():
    while True:
        name = "".join(random.choices("ghjkmnpqrstvwxyz", k=24))  # of a few UUIDs a part passes for a card
        way = random.randrange(4)
        try:
            if way == 0:
                Supplier.objects.create(name=name)
            elif way == 1:
                with transaction.atomic():
                    supplier = Supplier.objects.create(name=name)
                    supplier.name = name + "+"
                    supplier.save()
            elif way == 2:
                with transaction.atomic():
                    Supplier.objects.bulk_create([Supplier(name=name), Supplier(name=name + "b")])
            else:
                with transaction.atomic():
                    Supplier.objects.create(name=name)
                    raise KeyError
        except KeyError:
            pass
        Path(out).touch()

threads = [threading.Thread(target=thread, daemon=True) for _ in range(2)]
for one in threads:
    one.start()
for one in threads:
    one.join()
"""
)

DYING = (
    PROJECT
    + """
from otel_audit.pipeline.spool.writer import SpoolWriter
Supplier.objects.bulk_create([Supplier(name=name) for name in ("a", "b", "c")])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
SpoolWriter.settle = die  # the statement is done, its outcome is not on disk yet
rows = Supplier.objects.filter(name__in=["a", "b"])
how = Path(out).read_text()
if how == "delete":
    rows.delete()
elif how == "raw delete":
    rows._raw_delete("default")
elif how == "update":
    rows.update(name="d")
else:
    rows.get(name="a").delete()
"""
)


def claims(records: list[AuditRecord]) -> dict[tuple[str, str], str]:
    """(key, name written) to outcome."""
    found: dict[tuple[str, str], str] = {}
    for record in records:
        if not record.event_name.startswith("warehouse.supplier"):
            continue
        assert record.target is not None
        if record.bulk is not None:
            (column,) = record.bulk.columns
            written = zip(record.bulk.keys, column.new, strict=True)  # type: ignore[arg-type]
        else:
            written = zip([record.target.id], [change.new for change in record.changes], strict=True)
        for key, name in written:
            found[key, name] = record.outcome
    return found


@effort(short=4, long=200)
def test_killed_at_any_moment_every_commit_is_found_and_none_is_invented(
    request: pytest.FixtureRequest,
    vendor: str,  # noqa: F811
    tmp_path: Path,
    rounds: int,
) -> None:
    database = request.getfixturevalue(f"{'mariadb' if vendor == 'mysql' else vendor}_warehouse")
    if vendor == "sqlite":
        database = database | {"OPTIONS": database["OPTIONS"] | {"timeout": 30}}
    connection.close()
    committed = 0
    for attempt in range(rounds):
        before = set(Supplier.objects.values_list("pk", flat=True))
        connection.close()
        spool, out = tmp_path / f"spool{attempt}", tmp_path / f"out{attempt}"
        process = start_script(WRITER, spool, out, json.dumps(database))
        wait_until(lambda: out.exists() or process.poll() is not None, "a first write", 60)  # noqa: B023
        assert process.poll() is None, process.communicate()[1]
        time.sleep(random.uniform(0.05, 0.6))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        counted("processes killed while they wrote to a database")
        rows = {
            (str(key), name) for key, name in Supplier.objects.values_list("pk", "name") if key not in before
        }
        told = claims(spooled_records(spool))
        committed += len(rows)  # of one round perhaps none: all it had time for was rolled back
        unknown_statements = [
            record
            for record in spooled_records(spool)
            if record.outcome == "unknown" and record.target is not None and not record.target.id
        ]
        missing = {row for row in rows if told.get(row) not in ("success", "unknown")}
        # In autocommit the key of a row does not exist before the statement: its intent has the values.
        without_key = {record.changes[0].new for record in unknown_statements if record.changes}
        assert {name for _, name in missing} <= without_key, unknown_statements
        # What succeeded is there, or was overwritten by a later success for the same key.
        latest = {key: name for (key, name), outcome in told.items() if outcome == "success"}
        there = {key for key, _ in rows}
        assert set(latest) <= there
        # By name: SQLite gives the key of a row that was rolled back to the next one.
        failed = {name for (_, name), outcome in told.items() if outcome == "failure"}
        assert not failed & {name for _, name in rows}
    counted("rows they had committed", committed)
    assert committed >= rounds


@pytest.mark.parametrize("how", ["update", "delete", "raw delete", "delete of an instance"])
def test_a_statement_in_autocommit_whose_process_dies_names_its_rows(
    request: pytest.FixtureRequest,
    vendor: str,  # noqa: F811
    tmp_path: Path,
    how: str,
) -> None:
    """Keys and old values stand in the intent; whether it was committed is what is not known."""
    database = request.getfixturevalue(f"{'mariadb' if vendor == 'mysql' else vendor}_warehouse")
    connection.close()
    (tmp_path / "how").write_text(how)
    process = start_script(DYING, tmp_path / "spool", tmp_path / "how", json.dumps(database))
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    [record] = [record for record in spooled_records(tmp_path / "spool") if record.outcome == "unknown"]
    [created] = [record for record in spooled_records(tmp_path / "spool") if record.action == "CREATE"]
    assert created.bulk is not None
    before = set(zip(created.bulk.keys, ["a", "b", "c"], strict=True))
    if record.bulk is not None:
        [names] = [column for column in record.bulk.columns if column.field == "name"]
        named = set(zip(record.bulk.keys, names.old or (), strict=True))
    else:
        assert record.target is not None
        named = {(record.target.id, change.old) for change in record.changes if change.field == "name"}
    assert named <= before
    one = how == "delete of an instance"
    assert len(named) == (1 if one else 2)
    assert record.old_values == ("as_loaded" if one else "exact")


def test_random_transactions_agree_with_the_database(audit: Any) -> None:  # noqa: F811
    """Nested, released and undone savepoints, errors swallowed at any level, in random order."""
    chance = random.Random(7)
    names = iter(range(10**6))

    def block(depth: int) -> None:
        for _ in range(chance.randint(1, 3)):
            Supplier.objects.create(name=f"n{next(names)}")
            if depth and chance.random() < 0.6:
                try:
                    with transaction.atomic(savepoint=chance.random() < 0.8):
                        block(depth - 1)
                        if chance.random() < 0.4:
                            raise KeyError
                except (KeyError, DatabaseError):
                    pass

    for _ in range(40):
        try:
            with transaction.atomic(durable=chance.random() < 0.2):
                block(3)
                if chance.random() < 0.2:
                    raise KeyError
        except (KeyError, DatabaseError):
            pass
    told = {name: outcome for (_, name), outcome in claims(audit.records).items()}
    there = set(Supplier.objects.values_list("name", flat=True))
    assert {name for name, outcome in told.items() if outcome == "success"} == there
    assert len(told) > len(there) > 20
    assert set(told.values()) == {"success", "failure"}


def test_threads_have_transactions_of_their_own(audit: Any) -> None:  # noqa: F811
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time; the processes above cover it")
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            barrier.wait()
            for step in range(10):
                try:
                    with transaction.atomic():
                        Supplier.objects.create(name=f"{number}-{step}")
                        if step % 2:
                            raise KeyError
                except KeyError:
                    pass
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {name: outcome for (_, name), outcome in claims(audit.records).items()}
    assert told == {
        f"{number}-{step}": "failure" if step % 2 else "success" for number in range(8) for step in range(10)
    }


def test_nothing_in_a_transaction_is_claimed_before_it_ends(audit: Any) -> None:  # noqa: F811
    with pytest.raises(KeyError), transaction.atomic():
        for number in range(50):
            Supplier.objects.create(name=str(number))
        assert len(audit) == 0
        raise KeyError
    assert {record.outcome for record in audit} == {"failure"}
    assert len(audit) == 50
