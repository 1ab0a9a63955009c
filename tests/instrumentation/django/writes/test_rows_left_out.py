"""Rows a trigger leaves out of an INSERT that returns nothing, because the application gives the keys."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.db import DatabaseError, connection, models, transaction
from django.test.utils import isolate_apps

from otel_audit.audit_record import AuditRecord
from tests.instrumentation.django.warehouse.databases import auditing

WAREHOUSE = "tests.instrumentation.django.warehouse"
PASS = (
    "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.name = 'skip' THEN {} RETURN NULL; END IF; RETURN NEW; END $$"
)
LEAVES_OUT = {
    "sqlite": [
        "CREATE TRIGGER t BEFORE INSERT ON {} WHEN new.name = 'skip' BEGIN SELECT RAISE(IGNORE); END",
    ],
    "postgresql": [
        PASS.format(""),
        "CREATE TRIGGER t BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION pass()",
    ],
    "mysql": [  # none of its triggers can leave a row out; one can refuse the statement
        (
            "CREATE TRIGGER t BEFORE INSERT ON {} FOR EACH ROW"
            " IF NEW.name = 'skip' THEN SIGNAL SQLSTATE '45000'; END IF"
        ),
    ],
}


@contextmanager
def table(*made: Any, more: Sequence[str] = (), drop: Sequence[str] = ()) -> Iterator[None]:
    with connection.schema_editor() as editor:
        for model in made:
            editor.create_model(model)
    try:
        sql(*more)
        yield
    finally:
        sql(*drop)
        with connection.schema_editor() as editor:
            for model in reversed(made):
                editor.delete_model(model)
        if connection.vendor == "postgresql":
            sql("DROP FUNCTION IF EXISTS pass() CASCADE")


def sql(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def thing() -> Iterator[Any]:
    """A model whose key the application gives."""
    with isolate_apps(WAREHOUSE):

        class Thing(models.Model):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            name = models.TextField()

            class Meta:
                app_label = "warehouse"
                db_table = "thing"

        yield Thing


def one(model: Any, word: str) -> None:
    model(name=word).save(force_insert=True)


def several(model: Any, *words: str, **options: Any) -> None:
    model.objects.bulk_create([model(name=word) for word in words], **options)


WAYS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "create": (lambda model: model.objects.create(name="a"), 1),
    "create, left out": (lambda model: model.objects.create(name="skip"), 0),
    "save": (lambda model: model(id=uuid.uuid4(), name="a").save(), 1),
    "save, left out": (lambda model: model(id=uuid.uuid4(), name="skip").save(), 0),
    "get_or_create, left out": (lambda model: model.objects.get_or_create(name="skip"), 0),
    "bulk_create": (lambda model: several(model, "a", "b"), 2),
    "bulk_create, one left out": (lambda model: several(model, "a", "skip", "c"), 2),
    "bulk_create, all left out": (lambda model: several(model, "skip", "skip"), 0),
    "bulk_create in batches": (lambda model: several(model, "a", "skip", "skip", "b", batch_size=2), 2),
    "ignore_conflicts, one left out": (lambda model: several(model, "a", "skip", ignore_conflicts=True), 1),
    "ignore_conflicts, all left out": (
        lambda model: several(model, "skip", "skip", ignore_conflicts=True),
        0,
    ),
}


def created(audit: Iterable[AuditRecord], outcome: str = "success") -> list[AuditRecord]:
    return [record for record in audit if record.action == "CREATE" and record.outcome == outcome]


def rows(records: Iterable[AuditRecord]) -> int:
    return sum(1 if record.bulk is None else record.bulk.count or 0 for record in records)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_no_more_rows_are_recorded_than_were_made(vendor: str, thing: Any, way: str, atomic: bool) -> None:
    write, made = WAYS[way]
    refused = vendor == "mysql" and "skip" in str(write.__code__.co_consts)
    with table(thing, more=[statement.format("thing") for statement in LEAVES_OUT[vendor]]):
        with (
            auditing() as audit,
            pytest.raises(DatabaseError) if refused else nullcontext(),
            transaction.atomic() if atomic else nullcontext(),
        ):
            write(thing)
        stored = {str(key) for key in thing.objects.values_list("id", flat=True)}
    told = created(audit)
    assert rows(told) == len(stored)
    assert refused or len(stored) == made
    named = [record.bulk.keys if record.bulk else [record.target.id] for record in told if record.target]
    assert {key for keys in named for key in keys} <= stored
    if "left out" not in way and "batches" not in way:
        assert {record.completeness for record in told} == {"full"}


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("atomic", [False, True])
def test_the_part_of_an_inherited_model_is_left_out(vendor: str, thing: Any, atomic: bool) -> None:
    """The key of the second table is the first one's: that INSERT returns nothing."""

    class Child(thing):
        more = models.TextField(default="")

        class Meta:
            app_label = "warehouse"
            db_table = "thing_child"

    trigger = [
        re.sub("(?i)new.name", "new.more", statement.format("thing_child"))
        for statement in LEAVES_OUT[vendor]
    ]
    with (
        table(thing, Child, more=trigger),
        auditing() as audit,
        transaction.atomic() if atomic else nullcontext(),
    ):
        Child.objects.create(name="a", more="skip")
        Child.objects.create(name="b", more="b")
    assert sorted(record.target.type for record in created(audit) if record.target) == [
        "warehouse.Child",
        "warehouse.Thing",
        "warehouse.Thing",
    ]


MOVES = [
    "CREATE TABLE thing_old () INHERITS (thing)",
    PASS.format("INSERT INTO thing_old VALUES (NEW.id, NEW.name);"),
    "CREATE TRIGGER t BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION pass()",
]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("words", [["skip"], ["skip", "skip"], ["a", "skip"]])
@pytest.mark.parametrize("options", [{}, {"ignore_conflicts": True}], ids=["plain", "ignore_conflicts"])
def test_rows_a_trigger_sends_to_a_child_of_the_table_are_recorded_without_a_count(
    postgres: str, thing: Any, words: list[str], atomic: bool, options: dict[str, Any]
) -> None:
    with table(thing, more=MOVES, drop=["DROP TABLE thing_old"]):
        with auditing() as audit, transaction.atomic() if atomic else nullcontext():
            if len(words) == 1 and not options:
                one(thing, words[0])
            else:
                several(thing, *words, **options)
        assert thing.objects.count() == len(words)
    told = created(audit)
    assert told
    assert "statement" in {record.completeness for record in told}


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("returned", ["NULL", "NEW"])
def test_what_a_trigger_does_instead_of_an_insert_into_a_view_is_recorded(
    postgres: str, thing: Any, atomic: bool, returned: str
) -> None:
    view = [
        "ALTER TABLE thing RENAME TO thing_rows",
        "CREATE VIEW thing AS SELECT id, name FROM thing_rows",
        (
            "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" INSERT INTO thing_rows VALUES (NEW.id, NEW.name); RETURN {returned}; END $$"
        ),
        "CREATE TRIGGER t INSTEAD OF INSERT ON thing FOR EACH ROW EXECUTE FUNCTION pass()",
    ]
    drop = ["DROP VIEW thing", "ALTER TABLE thing_rows RENAME TO thing"]
    with table(thing, more=view, drop=drop):
        with auditing() as audit, transaction.atomic() if atomic else nullcontext():
            one(thing, "a")
            several(thing, "b", "c")
        assert thing.objects.count() == 3
    told = created(audit)
    assert [record.completeness for record in told] == (
        ["full", "full"] if returned == "NEW" else ["statement", "statement"]
    )


@pytest.mark.parametrize("returned", ["NULL", "NEW"])
def test_what_a_trigger_does_instead_of_an_update_or_delete_of_a_view_is_recorded(
    postgres: str, thing: Any, returned: str
) -> None:
    view = [
        "ALTER TABLE thing RENAME TO thing_rows",
        "CREATE VIEW thing AS SELECT id, name FROM thing_rows",
        (
            "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF TG_OP = 'UPDATE' THEN UPDATE thing_rows SET name = NEW.name WHERE id = OLD.id;"
            f" RETURN {returned}; END IF;"
            f" DELETE FROM thing_rows WHERE id = OLD.id; RETURN {returned.replace('NEW', 'OLD')}; END $$"
        ),
        "CREATE TRIGGER t INSTEAD OF UPDATE OR DELETE ON thing FOR EACH ROW EXECUTE FUNCTION pass()",
    ]
    drop = ["DROP VIEW thing", "ALTER TABLE thing_rows RENAME TO thing"]
    with table(thing, more=view, drop=drop):
        sql(f"INSERT INTO thing_rows VALUES ('{uuid.uuid4()}', 'a')")
        with auditing() as audit:
            thing.objects.filter(name="a").update(name="b")
            thing.objects.filter(name="b")._raw_delete("default")
        assert thing.objects.count() == 0
    told = [(record.action, record.completeness) for record in audit]
    least = "statement" if returned == "NULL" else "count"
    assert told == [("UPDATE", least), ("DELETE", least)]


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("said", [-1, None])
def test_a_cursor_that_tells_no_row_count_is_taken_to_have_written_all(
    vendor: str, thing: Any, monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    """DB-API allows -1, and somebody's wrapper around the driver's cursor may say anything."""

    class Hiding:
        rowcount = said

        def __init__(self, cursor: Any) -> None:
            self._cursor = cursor

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cursor, name)

    create_cursor = connection.create_cursor
    with table(thing), auditing() as audit:
        monkeypatch.setattr(connection, "create_cursor", lambda name=None: Hiding(create_cursor(name)))
        with transaction.atomic():
            one(thing, "a")
        several(thing, "b", "c")
        monkeypatch.undo()
    assert [(record.completeness, rows([record])) for record in created(audit)] == [("full", 1), ("full", 2)]
