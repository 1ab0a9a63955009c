"""A warehouse with every kind of model and field that capture must get right."""

from __future__ import annotations

import datetime
import uuid
import zlib
from decimal import Decimal
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Now


class Color(models.TextChoices):
    RED = "red"
    BLUE = "blue"


class Supplier(models.Model):
    name = models.CharField(max_length=50)


class Item(models.Model):
    """Every column type with a trap."""

    name = models.CharField(max_length=50)
    quantity = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    color = models.CharField(max_length=10, choices=Color.choices, default=Color.RED)
    facts = models.JSONField(null=True)
    weight = models.FloatField(null=True)
    active = models.BooleanField(default=True)
    due = models.DateTimeField(null=True)
    serial = models.UUIDField(default=uuid.uuid4)
    blob = models.BinaryField(null=True)
    supplier = models.ForeignKey(Supplier, models.SET_NULL, null=True, related_name="items")
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        raise AssertionError("capture must never call __str__")


class Ledger(models.Model):
    """Nothing that may change in place but JSON."""

    name = models.CharField(max_length=50)
    entries = models.JSONField(null=True)
    notes = models.JSONField(null=True)


class ItemOnSale(Item):
    class Meta:
        proxy = True


class Pallet(models.Model):
    """Deleted with its boxes."""

    label = models.CharField(max_length=50)
    items = models.ManyToManyField(Item)


class Box(models.Model):
    pallet = models.ForeignKey(Pallet, models.CASCADE, related_name="boxes")
    number = models.IntegerField(default=0)

    class Meta:
        order_with_respect_to = "pallet"


class Place(models.Model):
    name = models.CharField(max_length=50)
    rating = models.IntegerField(default=0)


class Shop(Place):
    """Two tables."""

    staff = models.IntegerField(default=0)


class Kiosk(Shop):
    """Three tables."""

    hours = models.IntegerField(default=0)


class Stock(models.Model):
    """A natural key, unique together, and a database default."""

    code = models.CharField(max_length=20, primary_key=True)
    shelf = models.IntegerField(default=0)
    level = models.IntegerField(default=0)
    note = models.CharField(max_length=50, default="")
    seen = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["shelf", "level"], name="shelf_level")]


class Reading(models.Model):
    """A composite key."""

    pk = models.CompositePrimaryKey("sensor", "at")
    sensor = models.IntegerField()
    at = models.IntegerField()
    value = models.IntegerField(default=0)


class Sealed(models.Model):
    """A key made by the application, and a value made by the database."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    base = models.IntegerField(default=1)
    double = models.GeneratedField(
        expression=models.F("base") * 2, output_field=models.IntegerField(), db_persist=True
    )


class CountingField(models.IntegerField):  # type: ignore[type-arg]
    """Counts calls of ``pre_save``: a second one would be a side effect of ours."""

    calls = 0

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        type(self).calls += 1
        return super().pre_save(model_instance, add)


class EncryptedField(models.CharField):  # type: ignore[type-arg]
    """Stores its text reversed."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else value[::-1]

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value[::-1]


class Vault(models.Model):
    counter = CountingField(default=0)
    combination = EncryptedField(max_length=50, default="")
    password = models.CharField(max_length=50, default="")


class LowerField(models.CharField):  # type: ignore[type-arg]
    """Stores its text in lower case, whatever the instance holds."""

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return value.lower() if value else value


class SlugOfNameField(models.CharField):  # type: ignore[type-arg]
    """Made while saving; the instance never has it."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        return model_instance.name.lower()  # type: ignore[attr-defined]


class Point:
    """Without equality and without a text of its own."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y


class PointField(models.TextField):  # type: ignore[type-arg]
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Point(*map(float, value.split(",")))

    def to_python(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Point) else Point(*map(float, value.split(",")))

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else f"{value.x},{value.y}"


class SealingField(models.CharField):  # type: ignore[type-arg]
    """Encrypts with another vector each time, in the step that may have effects."""

    sealed = 0

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if value is None or hasattr(value, "as_sql"):
            return value
        type(self).sealed += 1
        return f"{uuid.uuid4().hex}:{value[::-1]}"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value.partition(":")[2][::-1]


class CountingEncoder(DjangoJSONEncoder):
    encoded = 0

    def default(self, o: Any) -> Any:
        type(self).encoded += 1
        return super().default(o)


class Member(models.Model):
    """What is stored is not what the instance holds."""

    name = models.CharField(max_length=50)
    email = LowerField(max_length=50, default="")
    slug = SlugOfNameField(max_length=50, default="")
    cv = models.FileField(null=True, blank=True)
    place = PointField(null=True)
    motto = SealingField(max_length=100, null=True)
    log = models.JSONField(encoder=CountingEncoder, null=True)


class Money:
    """Its text does not tell what it is worth."""

    def __init__(self, amount: Any) -> None:
        self.amount = Decimal(amount)

    def __str__(self) -> str:
        return "money"


class MoneyField(models.DecimalField):  # type: ignore[type-arg]
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Money(value)

    def to_python(self, value: Any) -> Any:
        return super().to_python(value.amount if isinstance(value, Money) else value)

    def get_prep_value(self, value: Any) -> Any:
        return value.amount if isinstance(value, Money) else value

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return super().get_db_prep_save(self.get_prep_value(value), connection)


class ZippedField(models.BinaryField):  # type: ignore[type-arg]
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else zlib.decompress(bytes(value)).decode()

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        value = None if value is None else zlib.compress(value.encode())
        return super().get_db_prep_value(value, connection, prepared)


class ListField(models.TextField):  # type: ignore[type-arg]
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value.split(",")

    def get_prep_value(self, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


class SecondsField(models.IntegerField):  # type: ignore[type-arg]
    """A moment, stored as seconds since 1970."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else datetime.datetime.fromtimestamp(value, datetime.UTC)

    def get_prep_value(self, value: Any) -> Any:
        return int(value.timestamp()) if isinstance(value, datetime.datetime) else value


class Parcel(models.Model):
    """Fields that store their values in another form."""

    price = MoneyField(max_digits=9, decimal_places=2, null=True)
    letter = ZippedField(null=True)
    stops = ListField(null=True)
    sent = SecondsField(null=True)


class WithParent(models.Manager["Branch"]):
    def get_queryset(self) -> models.QuerySet[Branch]:
        return super().get_queryset().select_related("parent")


class Ticket(models.Model):
    """A key that is stored in lower case."""

    code = LowerField(max_length=20, primary_key=True)
    note = models.CharField(max_length=20, default="")


class Seat(models.Model):
    """A key of moments and numbers of any text."""

    pk = models.CompositePrimaryKey("at", "row")
    at = models.DateTimeField()
    row = models.DecimalField(max_digits=5, decimal_places=2)
    note = models.CharField(max_length=20, default="")


class Branch(models.Model):
    """A tree that is loaded with the branch it grows on."""

    name = models.CharField(max_length=20)
    level = models.IntegerField(default=0)
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    objects = WithParent()

    class Meta:
        base_manager_name = "objects"


class Shelf(models.Model):
    name = models.CharField(max_length=50)


class Label(models.Model):
    """Removed by the database itself, where Django lets it (from 6.1)."""

    shelf = models.ForeignKey(Shelf, getattr(models, "DB_CASCADE", models.CASCADE), null=True)
    text = models.CharField(max_length=50)


class Sticker(models.Model):
    """Removed by the database with its label."""

    label = models.ForeignKey(Label, getattr(models, "DB_CASCADE", models.CASCADE))
    color = models.CharField(max_length=20)


class Hook(models.Model):
    """Stays, without a shelf; a shelf knows nothing of it."""

    shelf = models.ForeignKey(
        Shelf, getattr(models, "DB_SET_NULL", models.SET_NULL), null=True, related_name="+"
    )
    metal = models.CharField(max_length=20)


class Ignored(models.Model):
    """Not audited."""

    name = models.CharField(max_length=50)


class Crew(models.Model):
    members = models.ManyToManyField(Supplier, through="Shift")


class Shift(models.Model):
    """Between crews and suppliers, and says more than that they belong together."""

    crew = models.ForeignKey(Crew, models.CASCADE)
    supplier = models.ForeignKey(Supplier, models.CASCADE)
    hours = models.IntegerField(default=0)
