"""Models with every type of field, random values for them, and one form in which witnesses can be compared.

They are made for one database: some fields are PostgreSQL's own.
"""

from __future__ import annotations

import datetime
import enum
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

from django.apps.registry import Apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from django.utils.safestring import mark_safe

from tests.instrumentation.django.warehouse.models import (
    Color,
    ListField,
    LowerField,
    Money,
    MoneyField,
    Point,
    PointField,
    SealingField,
    SecondsField,
    ZippedField,
)

APP: Final = "depot"
UNKNOWN: Final = "(not known)"


class Mood(enum.Enum):
    CALM = "c"
    CROSS = "x"


class EnumField(models.CharField):  # type: ignore[type-arg]
    """Stores the name of a member and gives the member back, as packages for enums do."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Mood[value]

    def to_python(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Mood) else Mood[value]

    def get_prep_value(self, value: Any) -> Any:
        return value.name if isinstance(value, Mood) else value


class InitialField(models.CharField):  # type: ignore[type-arg]
    """Made of another field while saving; the instance never has it."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        return str(model_instance.words)[:1]  # type: ignore[attr-defined]


class CitextField(models.TextField):  # type: ignore[type-arg]
    """A column that compares without regard to case."""

    def db_type(self, connection: Any) -> str:
        return "citext"


def make(vendor: str) -> list[type[models.Model]]:
    """Make the models for one database; the tables are not there yet."""
    registry = Apps()

    class Specimen(models.Model):
        name = models.CharField(max_length=60)
        words = models.TextField(default="")
        lower = LowerField(max_length=60, default="")
        initial = InitialField(max_length=60, default="")
        number = models.IntegerField(default=0)
        big = models.BigIntegerField(default=0)
        small = models.PositiveSmallIntegerField(default=0)
        amount = models.DecimalField(max_digits=8, decimal_places=2, default=0)
        precise = models.DecimalField(max_digits=12, decimal_places=4, null=True)
        ratio = models.FloatField(null=True)
        active = models.BooleanField(null=True)
        at = models.DateTimeField(null=True)
        day = models.DateField(null=True)
        hour = models.TimeField(null=True)
        took = models.DurationField(null=True)
        serial = models.UUIDField(default=uuid.uuid4)
        blob = models.BinaryField(null=True)
        address = models.GenericIPAddressField(null=True)
        color = models.CharField(max_length=10, choices=Color.choices, default=Color.RED)
        facts = models.JSONField(null=True)
        log = models.JSONField(encoder=DjangoJSONEncoder, null=True)
        cv = models.FileField(null=True)
        place = PointField(null=True)
        motto = SealingField(max_length=100, null=True)
        stops = ListField(null=True)
        sent = SecondsField(null=True)
        letter = ZippedField(null=True)
        price = MoneyField(max_digits=9, decimal_places=2, null=True)
        mood = EnumField(max_length=10, null=True)
        level = models.IntegerField(db_default=7)
        double = models.GeneratedField(
            expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=True
        )
        made = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = APP
            apps = registry

    class Marked(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        name = models.CharField(max_length=60)
        number = models.IntegerField(default=0)

        class Meta:
            app_label = APP
            apps = registry

    class Paired(models.Model):
        pk = models.CompositePrimaryKey("at", "row")
        at = models.DateTimeField()
        row = models.DecimalField(max_digits=5, decimal_places=2)
        name = models.CharField(max_length=60, default="")
        touched = models.DateTimeField(auto_now=True)

        class Meta:
            app_label = APP
            apps = registry

    class Tagged(models.Model):
        code = LowerField(max_length=20, primary_key=True)
        name = models.CharField(max_length=60, default="")
        amount = models.DecimalField(max_digits=8, decimal_places=2, default=0)

        class Meta:
            app_label = APP
            apps = registry

    made = [Specimen, Marked, Paired, Tagged]
    if vendor == "postgresql":
        made.append(_postgresql(registry))
    return made


def _postgresql(registry: Apps) -> type[models.Model]:
    from django.contrib.postgres import fields

    class Shaped(models.Model):
        name = models.CharField(max_length=60)
        numbers = fields.ArrayField(models.IntegerField(), null=True)
        grid = fields.ArrayField(fields.ArrayField(models.IntegerField()), null=True)
        prices = fields.ArrayField(models.DecimalField(max_digits=8, decimal_places=2), null=True)
        names = fields.ArrayField(models.CharField(max_length=60), null=True)
        moments = fields.ArrayField(models.DateTimeField(), null=True)
        labels = fields.HStoreField(null=True)
        span = fields.IntegerRangeField(null=True)
        amounts = fields.DecimalRangeField(null=True)
        period = fields.DateTimeRangeField(null=True)
        days = fields.DateRangeField(null=True)
        sign = CitextField(null=True)

        class Meta:
            app_label = APP
            apps = registry

    return Shaped


@contextmanager
def specimens() -> Iterator[list[type[models.Model]]]:
    """Make the tables of the models in the current database for the length of a ``with`` block."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS hstore")
            cursor.execute("CREATE EXTENSION IF NOT EXISTS citext")
        connection.close()  # the types are looked up when a connection is made
    made = make(connection.vendor)
    with connection.schema_editor() as editor:
        for model in made:
            editor.create_model(model)
    try:
        yield made
    finally:
        with connection.schema_editor() as editor:
            for model in made:
                editor.delete_model(model)


# --- random values -------------------------------------------------------------------------------

_ZONES: Final = [datetime.UTC, datetime.timezone(datetime.timedelta(hours=9))]


class Values:
    """Random values of each type of field, in the forms that applications hand over."""

    def __init__(self, source: random.Random) -> None:
        self._random = source

    def of(self, field: Any) -> Any:
        """Return a value for ``field``; now and then None, where it may be."""
        if field.null and self._random.random() < 0.15:
            return None
        for kind, make in self._makers():
            if type(field).__name__ == kind:
                return make()
        return self.text()

    def text(self) -> str:
        """A few letters that are seldom the same."""
        word = self._random.choice(["Pear", "plum", "Fig", "ünï", "a'b", "100%", "x" * 40])
        return f"{word}{self._random.randrange(50)}"

    def moment(self) -> datetime.datetime:
        """A moment in one of two time zones."""
        zone = self._random.choice(_ZONES)
        return datetime.datetime(2026, 1, self._random.randint(1, 28), 12, 30, 15, 250_000, zone)

    def _number(self) -> int:
        return self._random.randint(0, 9)

    def _makers(self) -> list[tuple[str, Callable[[], Any]]]:
        pick = self._random.choice
        number = self._number
        return [
            ("CharField", lambda: pick([self.text(), mark_safe(self.text()), Color.BLUE])),
            ("IntegerField", lambda: pick([number(), str(number()), True, -number()])),
            ("BigIntegerField", lambda: pick([2**63 - 1, -(2**63), number()])),
            ("PositiveSmallIntegerField", number),
            ("DecimalField", lambda: pick(["1.50", 1.5, Decimal("2.345"), 3, Decimal("-0.01"), number()])),
            ("FloatField", lambda: pick([0.1, 1, -2.5, 1e300, "2.5", number() / 3])),
            ("BooleanField", lambda: pick([True, False, 1, 0])),
            ("DateTimeField", self.moment),
            ("DateField", lambda: pick([self.moment().date(), "2026-02-03"])),
            ("TimeField", lambda: pick([self.moment().time(), datetime.time(1, 2)])),
            ("DurationField", lambda: datetime.timedelta(days=number(), seconds=number(), microseconds=5)),
            (
                "UUIDField",
                lambda: pick([uuid.UUID(int=self._random.getrandbits(128)), str(uuid.UUID(int=7))]),
            ),
            ("BinaryField", lambda: pick([b"\x00\xff", bytearray(b"plum"), memoryview(b"fig")])),
            ("GenericIPAddressField", lambda: pick(["10.0.0.1", "2001:db8::1", "2001:DB8:0::2"])),
            ("JSONField", self._json),
            ("FileField", lambda: pick(["cv/a.pdf", "cv/b.pdf", ""])),
            ("PointField", lambda: Point(number(), 0.5)),
            ("ListField", lambda: pick([["a", "b"], ("c",), [1, 2], ["ünï"]])),
            ("SecondsField", lambda: self.moment().replace(microsecond=0)),
            ("ZippedField", self.text),
            ("MoneyField", lambda: pick([Money("1.5"), Money(2), Decimal("3.25")])),
            ("EnumField", lambda: pick([*Mood, "CALM"])),
            ("ArrayField", lambda: None),
            ("HStoreField", lambda: pick([{"a": "1"}, {"a": None, "b": "ünï"}, {}])),
        ]

    def _json(self) -> Any:
        return self._random.choice(
            [
                {"on": True, "n": self._number()},
                {"n": 1, "on": 1},
                {"on": 1.0},
                [1, [2, {"deep": None}]],
                [True, "1", 1.5],
                "text",
                0,
                False,
                {"ü": "ï", "list": []},
            ]
        )

    def shaped(self, name: str) -> Any:
        """Return a value for one of PostgreSQL's own fields."""
        from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange

        low = self._number()
        first = self.moment()
        day = first.date()
        values: dict[str, list[Any]] = {
            "numbers": [[1, 2], ["1", "2"], [], [low, None]],
            "grid": [[[1, 2], [3, 4]], [[low], [5]]],
            "prices": [[Decimal("1.50"), None], [1.5], [low]],
            "names": [["a,b", 'q"'], [self.text()], ["NULL", ""]],
            "moments": [[first], [first, None]],
            "span": [NumericRange(low, low + 3), NumericRange(low, low + 2, "[]"), (low, None), (low, low)],
            "amounts": [NumericRange(Decimal("0.50"), Decimal(low + 1)), (None, Decimal("7.25"))],
            "period": [DateTimeTZRange(first, first + datetime.timedelta(days=1)), (first, None)],
            "days": [DateRange(day, day + datetime.timedelta(days=low), "[]"), (None, day)],
        }
        return self._random.choice(values[name])
