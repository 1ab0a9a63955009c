"""Moments of PostgreSQL read by the column are those that Django's loader reads of each of them."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.models import F

from otel_audit.instrumentation.django.writes.sql import rows
from otel_audit.instrumentation.django.writes.sql.moments import Moments, left_as_texts
from otel_audit.values import record_values
from tests.instrumentation.django.warehouse.databases import auditing, unseen
from tests.instrumentation.django.warehouse.models import Item

USUAL: list[str | None] = [
    "2026-11-29 12:30:00+00",
    "2026-11-29 12:30:00.1+00",
    "2026-11-29 12:30:00.000001+00",
    "2026-11-29 12:30:00.123456+00",
    "2026-10-25 00:30:00+00",  # twice in Berlin, by the clock
    "2026-10-25 01:30:00+00",
    "2026-03-29 01:00:00+00",
    "2011-12-30 10:00:00+00",  # a day that Samoa left out
    "1999-12-31 23:59:59.999999+00",
    None,
]
UNUSUAL: list[str | None] = [
    "1883-06-01 12:00:00+00",  # by local mean time, with seconds
    "0001-01-01 00:00:00+00",
    "0001-01-02 05:00:00+00",
    "9999-12-31 23:59:59.999999+00",
    "9999-12-31 10:00:00+00",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00+00 BC",
    "10000-01-01 00:00:00+00",
    "294276-12-31 23:59:59+00",
    "4713-01-01 00:00:00+00 BC",
]
ZONES = [
    "UTC",
    "Etc/UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/St_Johns",
    "Pacific/Apia",
    "Etc/GMT+12",
    "GMT",
]
STYLES = ["ISO, MDY", "ISO, DMY", "SQL, DMY", "German", "Postgres, MDY"]
LOADED: list[datetime.tzinfo | None] = [datetime.UTC, None, zoneinfo.ZoneInfo("Europe/Berlin")]


@pytest.fixture
def driver(postgres: str) -> Iterator[Any]:
    connection.ensure_connection()
    yield connection.connection
    connection.close()


def asked(driver: Any, timezone: datetime.tzinfo | None, texts: list[str | None]) -> Any:
    """Return a cursor of Django's that has asked for moments."""
    from django.db.backends.postgresql.psycopg_any import register_tzloader

    cursor = driver.cursor()
    register_tzloader(timezone, cursor)
    cursor.execute(
        "SELECT n, t::timestamptz FROM unnest(%s::text[]) WITH ORDINALITY AS x (t, n) ORDER BY n", [texts]
    )
    return cursor


def as_texts(cursor: Any) -> tuple[Moments, list[Any]]:
    found = left_as_texts(connection, cursor)
    assert list(found) == [1]
    return found[1], [row[1] for row in cursor.fetchall()]


def one_by_one(driver: Any, timezone: datetime.tzinfo | None, texts: list[str | None]) -> list[Any]:
    """Return what the loader makes of each moment, or the exception it raises."""
    found: list[Any] = []
    for text in texts:
        try:
            found += [row[1] for row in asked(driver, timezone, [text]).fetchall()]
        except (psycopg.Error, NotImplementedError) as error:
            found.append(error)
    return found


@pytest.mark.parametrize("timezone", LOADED, ids=str)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("style", STYLES)
def test_a_column_is_read_as_each_value_is(
    driver: Any, zone: str, style: str, timezone: datetime.tzinfo | None
) -> None:
    driver.execute(f"SET TimeZone = '{zone}'")
    driver.execute(f"SET DateStyle = '{style}'")
    alone: list[list[str | None]] = [[text] for text in UNUSUAL] if style == STYLES[0] else []
    for texts in [*alone, USUAL, USUAL + UNUSUAL]:
        known = one_by_one(driver, timezone, texts)
        moments, left = as_texts(asked(driver, timezone, texts))
        driver.execute("SET TimeZone = 'Asia/Tokyo'")  # it is read as it was when it was fetched
        read = moments.read(left)
        for value, text, expected in zip(read, left, known, strict=True):
            assert repr(value) == repr(text if isinstance(expected, Exception) else expected)
            assert not isinstance(value, datetime.datetime) or value.fold == expected.fold
        assert record_values(read) == record_values(
            [text if isinstance(value, Exception) else value for text, value in zip(left, known, strict=True)]
        )
        error = next((value for value in known if isinstance(value, Exception)), None)
        if error is None:
            assert repr(moments.load(left)) == repr(known)
        else:
            with pytest.raises(type(error)) as raised:
                moments.load(left)
            assert str(raised.value) == str(error)
        driver.execute(f"SET TimeZone = '{zone}'")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_usual_moments_are_read_at_once(driver: Any, zone: str) -> None:
    driver.execute(f"SET TimeZone = '{zone}'")
    for timezone in LOADED:
        moments, left = as_texts(asked(driver, timezone, USUAL))
        assert moments.at_once(left) == one_by_one(driver, timezone, USUAL)


def test_texts_that_postgresql_never_writes_are_left_to_the_loader(driver: Any) -> None:
    moments, _ = as_texts(asked(driver, datetime.UTC, USUAL))
    for text in (
        "",
        "+00",
        "2026-11-29 12:30:00.1234567+00",
        '2026-11-29 12:30:00","+00',
        "2026-11-29 12:30:00Z",
        "2026-02-30 12:30:00+00",
        "2026-11-29 24:00:00+00",
        "2026-11-29 12:30:60+00",
        "2026-11-29+00",
        "\ud800+00",
    ):
        assert moments.at_once([text]) is None
    assert moments.at_once(["2026-11-29 12:30:00+05:30"]) == [
        datetime.datetime(2026, 11, 29, 7, 0, tzinfo=datetime.UTC)
    ]
    value = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
    assert moments.load([value, None]) == [value, None]  # of a psycopg whose cursors keep their loaders


@pytest.mark.parametrize(
    "beside", ["ARRAY[now()]", "tstzrange(now(), NULL)", "ROW(now(), 1)", "array_agg(now()) OVER ()"]
)
def test_a_column_that_holds_moments_in_parts_keeps_all_as_they_are(driver: Any, beside: str) -> None:
    cursor = driver.cursor()
    cursor.execute(f"SELECT now(), {beside}")
    assert left_as_texts(connection, cursor) == {}
    assert type(cursor.fetchone()[0]) is datetime.datetime


def test_a_loader_of_the_applications_is_left_alone(driver: Any) -> None:
    from psycopg.types.string import TextLoader

    class Shouting(TextLoader):
        def load(self, data: Any) -> Any:
            return f"{bytes(data).decode()}!"

    cursor = driver.cursor()
    cursor.adapters.register_loader("timestamptz", Shouting)
    cursor.execute("SELECT now()")
    assert left_as_texts(connection, cursor) == {}
    with psycopg.connect(driver.info.dsn, password=driver.info.password) as server_side:
        cursor = server_side.cursor(binary=True)
        cursor.execute("SELECT now()")
        assert left_as_texts(connection, cursor) == {}
    assert left_as_texts(connection, object()) == {}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_records_say_the_same_as_where_each_value_is_loaded(
    postgres: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> list[Any]:
        Item.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT setval(pg_get_serial_sequence('warehouse_item', 'id'), 1000)")
            cursor.execute("SELECT set_config('TimeZone', %s, false)", [zone])
        serial = "5b2c8a9e-0000-4000-8000-000000000001"
        Item.objects.bulk_create([Item(name="a", due=text, serial=serial) for text in USUAL])
        Item.objects.update(modified="2026-11-29 12:00:00.5+00")
        with auditing() as captured:
            assert Item.objects.update(due=F("modified")) == len(USUAL)
            assert Item.objects.update(due=None, modified="2026-11-30 12:00+00") == len(USUAL)
            assert Item.objects.filter(name="a")._raw_delete(connection.alias) == len(USUAL)
        return [
            (record.event_name, record.bulk and (record.bulk.keys, record.bulk.columns), record.old_values)
            for record in captured.records
        ]

    quick = written()
    monkeypatch.setattr(rows, "_moments", lambda *_: {})
    assert quick == written()
    assert len(quick) >= 3


@pytest.mark.parametrize("style", STYLES[:3])
@pytest.mark.parametrize("kind", ["infinity", "10000-01-01 00:00:00+00", "0044-03-15 12:00:00+00 BC"])
def test_rows_with_moments_that_python_cannot_hold_are_written_and_recorded(
    postgres: str, kind: str, style: str
) -> None:
    Item.objects.bulk_create([Item(name="a"), Item(name="b")])
    unseen(f"UPDATE warehouse_item SET due = '{kind}' WHERE name = 'a'")
    with auditing() as captured:
        with connection.cursor() as cursor:
            cursor.execute(f"SET DateStyle = '{style}'")
        assert Item.objects.update(due=F("due"), quantity=3) == 2
        # delete() itself would load them, because of the relations of items.
        assert Item.objects.filter(quantity=3)._raw_delete(connection.alias) == 2
        with connection.cursor() as cursor:
            cursor.execute("RESET DateStyle")
    updated, deleted = captured.records[0], captured.one(event_name="warehouse.item.delete")
    assert updated.bulk is not None
    assert [(column.field, column.new) for column in updated.bulk.columns] == [("quantity", [3, 3])]
    assert deleted.bulk is not None
    [due] = [column.old for column in deleted.bulk.columns if column.field == "due"]
    assert isinstance(due, list)
    assert sorted(type(value).__name__ for value in due) == ["NoneType", "str"]  # in no order
