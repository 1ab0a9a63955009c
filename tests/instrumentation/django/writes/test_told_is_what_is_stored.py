"""What a record tells of a value is what the database holds, whatever the application handed over."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.models import Value
from django.db.models.functions import Concat, Lower
from msgspec import UNSET

from otel_audit.audit_record import AuditRecord
from otel_audit.testing import CapturedAudit
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.warehouse.models import (
    Branch,
    CountingEncoder,
    Item,
    Member,
    Money,
    Parcel,
    Point,
    Sealed,
    SealingField,
    Seat,
    Stock,
    Supplier,
    Ticket,
)


def changes(audit: CapturedAudit) -> list[tuple[str, Any, Any]]:
    """Every change on record, as (field, old, new)."""
    return [(change.field, change.old, change.new) for record in audit for change in record.changes]


def told(record: AuditRecord) -> dict[str, Any]:
    return {change.field: change.new for change in record.changes}


def stored(pk: int) -> dict[str, Any]:
    names = ("name", "email", "slug", "cv")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(names)} FROM warehouse_member WHERE id = %s", [pk])
        return dict(zip(names, cursor.fetchone(), strict=True))


# --- equality ------------------------------------------------------------------------------------


def _save(item: Item, value: Any) -> None:
    item = Item.objects.get(pk=item.pk)
    item.facts = value
    item.save()


def _save_again(item: Item, value: Any) -> None:
    item.facts = value
    item.save(update_fields=["facts"])


def _update(item: Item, value: Any) -> None:
    Item.objects.filter(pk=item.pk).update(facts=value)


def _bulk_update(item: Item, value: Any) -> None:
    item.facts = value
    Item.objects.bulk_update([item], ["facts"])


@pytest.mark.parametrize("write", [_save, _save_again, _update, _bulk_update])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"on": True}, {"on": 1}),
        ({"on": [0]}, {"on": [False]}),
        ({"on": 1}, {"on": 1.5}),
        (True, 1),
        (0, False),
        ([1, {"a": [True]}], [1, {"a": [1]}]),
    ],
)
def test_true_and_one_differ_in_json(
    audit: CapturedAudit, write: Callable[[Item, Any], None], old: Any, new: Any
) -> None:
    item = Item.objects.create(name="i", facts=old)
    audit.clear()
    write(item, new)
    assert [repr(change) for change in changes(audit) if change[0] == "facts"] == [repr(("facts", old, new))]


@pytest.mark.parametrize("write", [_save, _save_again, _update, _bulk_update])
def test_the_same_json_in_another_order_is_no_change(
    audit: CapturedAudit, write: Callable[[Item, Any], None]
) -> None:
    item = Item.objects.create(name="i", facts={"a": 1, "b": [True]})
    audit.clear()
    write(item, {"b": [True], "a": 1})
    assert changes(audit) == []


def test_values_of_another_class_that_a_column_holds_as_the_same_are_no_change(audit: CapturedAudit) -> None:
    item = Item.objects.create(name="i", quantity=1, weight=1, price="1.5", active=1)
    audit.clear()
    item.quantity, item.weight, item.price, item.active = "1", 1.0, Decimal("1.50"), True
    item.save()
    item = Item.objects.get()
    item.weight, item.active, item.price = 1, 1, 1.5
    item.save()
    Item.objects.update(weight=1, active=1, price="1.5")
    assert changes(audit) == []


# --- what a field stores -------------------------------------------------------------------------


def test_create_tells_what_the_fields_prepared(audit: CapturedAudit) -> None:
    member = Member.objects.create(name="Ana", email="Ana@X.com", place=Point(1, 2), motto="1234")
    new = told(audit.one())
    assert {name: new[name] for name in ("name", "email", "slug", "cv")} == stored(member.pk)
    assert (new["place"], new["motto"]) == ("1.0,2.0", "[redacted]")


def test_bulk_create_tells_what_the_fields_prepared(audit: CapturedAudit) -> None:
    Member.objects.bulk_create([Member(name="P", email="P@x"), Member(name="Q", email="Q@x")])
    bulk = audit.one().bulk
    if bulk is None or not bulk.columns:
        pytest.fail(f"no columns: {bulk}")
    new = {column.field: column.new for column in bulk.columns}
    assert (new["email"], new["slug"], new["cv"]) == (["p@x", "q@x"], ["p", "q"], ["", ""])


def test_an_update_tells_what_the_field_prepared_and_is_silent_where_that_is_the_same(
    audit: CapturedAudit,
) -> None:
    pk = Member.objects.create(name="Ana", email="ana@x").pk
    audit.clear()
    member = Member.objects.get(pk=pk)
    member.email = "Bob@X"
    member.save()
    assert changes(audit) == [("email", "ana@x", "bob@x")]
    audit.clear()
    member.email = "BOB@x"
    member.save()
    Member.objects.get(pk=pk).save()
    Member.objects.filter(pk=pk).update(email="BoB@x")
    assert changes(audit) == []
    Member.objects.filter(pk=pk).update(email="Zed@X")
    assert changes(audit) == [("email", "bob@x", "zed@x")]


def test_a_file_field_without_a_file_is_stored_as_empty_text(audit: CapturedAudit) -> None:
    pk = Member.objects.create(name="Ana").pk
    with connection.cursor() as cursor:
        cursor.execute("UPDATE warehouse_member SET cv = NULL")
    audit.clear()
    member = Member.objects.get(pk=pk)
    member.name = "Zoe"
    member.save()
    assert ("cv", None, "") in changes(audit)
    assert stored(pk)["cv"] == ""


def test_objects_of_an_unknown_class_are_compared_and_told_as_their_field_prepares_them(
    audit: CapturedAudit,
) -> None:
    Member.objects.create(name="a", place=Point(1, 2))
    audit.clear()
    Member.objects.get().save()
    Member.objects.update(place=Point(1, 2))
    assert changes(audit) == []
    member = Member.objects.get()
    assert member.place is not None
    member.place.x = 9.0
    member.save()
    assert changes(audit) == [("place", "1.0,2.0", "9.0,2.0")]
    audit.clear()
    Member.objects.all().delete()
    assert {change.field: change.old for change in audit.one().changes}["place"] == "9.0,2.0"


_NOON = datetime.datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("field", "old", "new", "recorded"),
    [
        ("price", Money("1.5"), Money("2.5"), ("1.50", "2.50")),
        ("letter", "hello", "bye", ("hello", "bye")),
        ("stops", [1, 2], ("3",), (["1", "2"], ["3"])),
        (
            "sent",
            _NOON,
            _NOON + datetime.timedelta(days=1),
            ("2026-01-01T12:00:00+00:00", "2026-01-02T12:00:00+00:00"),
        ),
    ],
)
def test_a_value_stored_in_another_form_is_told_as_it_is_read_back(
    audit: CapturedAudit, field: str, old: Any, new: Any, recorded: tuple[Any, Any]
) -> None:
    Parcel.objects.create(**{field: old})
    assert told(audit.one())[field] == recorded[0]
    audit.clear()
    parcel = Parcel.objects.get()
    parcel.save()
    setattr(parcel, field, old)
    parcel.save()
    Parcel.objects.bulk_update([parcel], [field])
    Parcel.objects.update(**{field: old})
    assert changes(audit) == []
    setattr(parcel, field, new)
    parcel.save()
    Parcel.objects.update(**{field: old})
    setattr(parcel, field, new)
    Parcel.objects.bulk_update([parcel], [field])
    Parcel.objects.all().delete()
    before, after = recorded
    assert [change for change in changes(audit) if change[0] == field] == [
        (field, before, after),
        (field, after, before),
        (field, before, after),
        (field, after, UNSET),
    ]


def test_a_value_encrypted_anew_with_each_save_is_no_change_and_is_encrypted_once(
    audit: CapturedAudit,
) -> None:
    Member.objects.create(name="a", motto="1234")
    audit.clear()
    member, before = Member.objects.get(), SealingField.sealed
    member.save()
    Member.objects.update(motto="1234")
    assert changes(audit) == []
    assert SealingField.sealed - before == 2
    member.motto = "4321"
    member.save()
    assert changes(audit) == [("motto", "[redacted]", "[redacted]")]
    assert SealingField.sealed - before == 3


def test_json_with_an_encoder_is_told_as_it_is_read_back_and_is_encoded_once(audit: CapturedAudit) -> None:
    day = datetime.date(2026, 1, 2)
    before = CountingEncoder.encoded
    Member.objects.create(name="a", log={"day": day})
    assert told(audit.one())["log"] == {"day": "2026-01-02"}
    assert CountingEncoder.encoded - before == 1
    audit.clear()
    member = Member.objects.get()
    member.log = {"day": day}
    member.save()
    Member.objects.update(log={"day": day})
    assert changes(audit) == []
    assert CountingEncoder.encoded - before == 3


# --- expressions ---------------------------------------------------------------------------------


def test_expressions_on_create_are_told_as_the_database_made_them(audit: CapturedAudit) -> None:
    item = Item.objects.create(name=Lower(Value("ABC")), quantity=1)
    assert told(audit.one())["name"] == "abc"
    audit.clear()
    Item.objects.bulk_create(
        [Item(name=Concat(Value("q"), Value("q")), quantity=2), Item(name="plain", quantity=3)]
    )
    bulk = audit.one().bulk
    assert bulk is not None
    assert {column.field: column.new for column in bulk.columns}["name"] == ["qq", "plain"]
    audit.clear()
    # What the instance holds is still the expression, which writes once more.
    item.quantity = 5
    item.save()
    assert [change for change in changes(audit) if change[0] != "modified"] == [("quantity", 1, 5)]


def test_generated_columns_that_an_update_changes_are_told(audit: CapturedAudit) -> None:
    sealed = Sealed.objects.create(base=1)
    Sealed.objects.create(base=1)
    audit.clear()
    sealed.base = 2
    sealed.save()
    assert changes(audit) == [("base", 1, 2), ("double", 2, 4)]
    audit.clear()
    sealed = Sealed.objects.get(pk=sealed.pk)
    sealed.base = 3
    sealed.save(update_fields=["base"])
    assert changes(audit) == [("base", 2, 3), ("double", 4, 6)]
    audit.clear()
    Sealed.objects.get(pk=sealed.pk).save()
    assert not audit.records
    Sealed.objects.update(base=5)
    bulk = audit.one().bulk
    assert bulk is not None
    columns = {column.field: (column.old, column.new) for column in bulk.columns}
    assert columns["double"][0] in ([2, 6], [6, 2])
    assert columns["double"][1] == [10, 10]


# --- one row has one id ----------------------------------------------------------------------------


def _ids(audit: CapturedAudit) -> list[str]:
    ids: list[str] = []
    for record in audit:
        assert record.target is not None
        ids += record.bulk.keys if record.bulk is not None else [record.target.id]
    return ids


def test_a_row_has_one_id_however_its_key_is_written(audit: CapturedAudit) -> None:
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    at = datetime.datetime(2026, 1, 1, 9, tzinfo=tokyo)
    Seat.objects.create(at=at, row="1.5", note="a")
    Seat(at=at.astimezone(datetime.UTC), row=1.5, note="b").save()
    seat = Seat.objects.get()
    seat.note = "c"
    seat.save()
    Seat.objects.update(note="d")
    Seat.objects.all().delete()
    assert _ids(audit) == ['["2026-01-01T00:00:00+00:00","1.50"]'] * 5


def test_a_row_has_one_id_where_its_field_stores_another_key(audit: CapturedAudit) -> None:
    Ticket.objects.create(code="ABC")
    Ticket(code="Abc", note="b").save()
    ticket = Ticket.objects.get()
    ticket.note = "c"
    ticket.save()
    Ticket.objects.bulk_create([Ticket(code="DEF"), Ticket(code="GHI")])
    Ticket.objects.all().delete()
    assert sorted(_ids(audit)) == ["abc"] * 4 + ["def"] * 2 + ["ghi"] * 2


# --- what an instance was loaded with --------------------------------------------------------------


def _branch() -> Branch:
    root = Branch.objects.create(name="root", level=5)
    return Branch.objects.create(name="twig", level=1, parent=root)


@pytest.mark.parametrize("fields", [None, ["level", "parent"]])
def test_refresh_from_db_takes_no_values_of_the_rows_loaded_with_it(
    audit: CapturedAudit, fields: list[str] | None
) -> None:
    twig = Branch.objects.get(pk=_branch().pk)
    audit.clear()
    twig.refresh_from_db(fields=fields)
    twig.level = 2
    twig.save()
    assert changes(audit) == [("level", 1, 2)]
    audit.clear()
    twig.refresh_from_db(from_queryset=Branch.objects.prefetch_related("branch_set"))
    twig.level = 5
    twig.save()
    assert changes(audit) == [("level", 2, 5)]


def test_what_raw_sql_gave_a_column_is_no_old_value(audit: CapturedAudit) -> None:
    pk = Supplier.objects.create(name="abc").pk
    audit.clear()
    supplier = Supplier.objects.raw("SELECT id, upper(name) AS name FROM warehouse_supplier")[0]
    supplier.save()
    assert changes(audit) == [("name", "abc", "ABC")]
    audit.clear()
    supplier = Supplier.objects.raw("SELECT id, upper(name) AS name FROM warehouse_supplier")[0]
    assert supplier.pk == pk
    supplier.save()
    assert changes(audit) == []


def test_an_instance_made_by_hand_over_a_row_tells_only_what_differs(audit: CapturedAudit) -> None:
    Stock.objects.create(code="a", shelf=1, note="x")
    audit.clear()
    Stock(code="a", shelf=1, note="y").save()
    assert [change for change in changes(audit) if change[0] != "seen"] == [("note", "x", "y")]


def test_fixtures_loaded_twice_change_nothing(audit: CapturedAudit, tmp_path: Path) -> None:
    fixture = tmp_path / "suppliers.json"
    fixture.write_text('[{"model": "warehouse.supplier", "pk": 1, "fields": {"name": "a"}}]')
    call_command("loaddata", str(fixture), verbosity=0)
    assert audit.one().action == "CREATE"
    audit.clear()
    call_command("loaddata", str(fixture), verbosity=0)
    assert not audit.records


# --- refused by the driver -------------------------------------------------------------------------


def _refuse(vendor: str) -> dict[str, Any]:
    return {"quantity": 2**70} if vendor == "sqlite" else {"name": "a\ud800"}


def _create(vendor: str) -> None:
    Item.objects.create(**{"name": "bad"} | _refuse(vendor))


def _change(vendor: str) -> None:
    item = Item.objects.get(name="good")
    for name, value in _refuse(vendor).items():
        setattr(item, name, value)
    item.save()


def _change_all(vendor: str) -> None:
    Item.objects.update(**_refuse(vendor))


@pytest.mark.parametrize("write", [_create, _change, _change_all])
@pytest.mark.parametrize("mode", ["autocommit", "atomic", "manual"])
def test_what_the_driver_refuses_to_send_has_failed(
    vendor: str, write: Callable[[str], None], mode: str
) -> None:
    Item.objects.create(name="good")
    with auditing() as audit:
        try:
            if mode == "manual":
                transaction.set_autocommit(False)
            block = transaction.atomic() if mode == "atomic" else nullcontext()
            with pytest.raises((ValueError, OverflowError)), block:
                write(vendor)
            if mode == "manual":
                transaction.commit()
        finally:
            if mode == "manual":
                transaction.rollback()
                transaction.set_autocommit(True)
    assert [record.outcome for record in audit] == ["failure"]


# --- PostgreSQL's own fields -----------------------------------------------------------------------


@pytest.fixture
def shapes(postgres: str) -> Iterator[Any]:
    """A model with an array, decimals in one, and a range; it is gone afterwards."""
    from django.apps import apps
    from django.contrib.postgres.fields import ArrayField, DateRangeField, IntegerRangeField

    class Shapes(models.Model):
        numbers = ArrayField(models.IntegerField(), null=True)
        grid = ArrayField(ArrayField(models.IntegerField()), null=True)
        prices = ArrayField(models.DecimalField(max_digits=8, decimal_places=2), null=True)
        span = IntegerRangeField(null=True)
        days = DateRangeField(null=True)

        class Meta:
            app_label = "warehouse"

    with connection.schema_editor() as editor:
        editor.create_model(Shapes)
    try:
        yield Shapes
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Shapes)
        del apps.all_models["warehouse"]["shapes"]
        apps.clear_cache()


def test_equal_arrays_and_ranges_in_other_clothes_are_no_change(shapes: Any) -> None:
    from django.db.backends.postgresql.psycopg_any import DateRange, NumericRange

    day = datetime.date(2026, 1, 1)
    later = day + datetime.timedelta(days=3)
    with auditing() as audit:
        shapes.objects.create(
            numbers=[1, 2],
            grid=[[1], [2]],
            prices=[Decimal("1.50"), None],
            span=NumericRange(1, 5),
            days=DateRange(day, later),
        )
        audit.clear()
        same = {
            "numbers": ["1", "2"],
            "grid": [["1"], [2]],
            "prices": [1.5, None],
            "span": NumericRange(1, 4, "[]"),
            "days": DateRange(day - datetime.timedelta(days=1), later, "()"),
        }
        for name, value in same.items():
            row = shapes.objects.get()
            setattr(row, name, value)
            row.save()
            shapes.objects.update(**{name: value})
        row = shapes.objects.get()
        row.span = (1, 5)
        row.save()
        assert changes(audit) == []
        shapes.objects.update(numbers=["4", "5"], span=NumericRange(3, 7, "[]"))
        assert changes(audit) == [("numbers", [1, 2], [4, 5]), ("span", "[1, 5)", "[3, 8)")]


# --- objects in columns of text ------------------------------------------------------------------


class Plain(enum.Enum):
    RED = "r"


class Text(str, enum.Enum):  # noqa: UP042 - as many are; its text is another
    RED = "r"


class StrEnum(enum.StrEnum):
    RED = "r"


class Choice(models.TextChoices):
    RED = "r"


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Named:
    def __str__(self) -> str:
        return "named"


OBJECTS: dict[str, Any] = {
    "enum": Plain.RED,
    "text enum": Text.RED,
    "str enum": StrEnum.RED,
    "choice": Choice.RED,
    "flag": enum.Flag("Bits", ["ONE"]).ONE,  # type: ignore[attr-defined]
    "subclass of str": Shouting("abc"),
    "object": Named(),
    "list": [1, "a"],
    "dict": {"a": 1},
    "tuple": (1, 2),
    "set": {1},
    "bytearray": bytearray(b"ab"),
    "range": range(3),
}


def _created(value: Any) -> Any:
    return Supplier.objects.create(name=value).pk


def _created_in_transaction(value: Any) -> Any:
    with transaction.atomic():
        return _created(value)


def _created_with_another(value: Any) -> Any:
    return Supplier.objects.bulk_create([Supplier(name=value), Supplier(name="other")])[0].pk


def _saved(value: Any) -> Any:
    supplier = Supplier.objects.get(pk=_created("before"))
    supplier.name = value
    supplier.save()
    return supplier.pk


def _saved_stale(value: Any) -> Any:
    supplier = Supplier(pk=_created("before"), name=value)
    supplier.save(force_update=True)
    return supplier.pk


def _updated(value: Any) -> Any:
    pk = _created("before")
    Supplier.objects.filter(pk=pk).update(name=value)
    return pk


@pytest.mark.parametrize(
    "write",
    [_created, _created_in_transaction, _created_with_another, _saved, _saved_stale, _updated],
)
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_in_a_column_of_text_is_told_as_the_text_that_is_stored(
    audit: CapturedAudit, name: str, write: Callable[[Any], Any]
) -> None:
    pk = write(OBJECTS[name])
    written = Supplier.objects.get(pk=pk)
    record = audit.records[-1]
    if record.bulk is None:
        assert told(record)["name"] == written.name
    else:
        assert {column.field: column.new for column in record.bulk.columns}["name"] == [
            written.name,
            "other",
        ]
    audit.clear()
    written.name = OBJECTS[name]  # the same once more
    written.save()
    assert changes(audit) == []
