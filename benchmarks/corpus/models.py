"""One model for each thing that capture treats in its own way."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models


class Supplier(models.Model):
    name = models.CharField(max_length=200)
    api_token = models.CharField(max_length=200, default="")


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Article(models.Model):
    """Fields of every class, a JSONField among them."""

    name = models.CharField(max_length=300)
    description = models.TextField(default="")
    stock = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    weight = models.FloatField(null=True)
    active = models.BooleanField(default=True)
    released = models.DateField(null=True)
    updated = models.DateTimeField(null=True)
    opens = models.TimeField(null=True)
    lasts = models.DurationField(null=True)
    serial = models.UUIDField(null=True)
    picture = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    facts = models.JSONField(null=True)
    supplier = models.ForeignKey(Supplier, models.SET_NULL, null=True)
    tags = models.ManyToManyField(Tag)


class Plain(models.Model):
    """No JSONField, and little else."""

    name = models.CharField(max_length=300)
    note = models.TextField(default="")
    count = models.IntegerField(default=0)
    updated = models.DateTimeField(null=True)


class Card(models.Model):
    """Redacted by names, by values and by strategies of its own."""

    holder = models.CharField(max_length=300)
    number = models.CharField(max_length=40)
    pin = models.CharField(max_length=10)
    email = models.CharField(max_length=100)
    phone = models.CharField(max_length=40)
    password = models.CharField(max_length=100)
    details = models.JSONField(default=dict)


class Exact(models.Model):
    name = models.CharField(max_length=300)
    count = models.IntegerField(default=0)


class Snapshot(models.Model):
    name = models.CharField(max_length=300)
    count = models.IntegerField(default=0)
    facts = models.JSONField(null=True)


class Watched(models.Model):
    """Its reads are recorded, too."""

    name = models.CharField(max_length=300)
    secret = models.CharField(max_length=100, default="")


class ReversedField(models.CharField):  # type: ignore[type-arg]
    """Stores its text reversed."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else value[::-1]

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value[::-1]


class Odd(models.Model):
    """A key and a field of its own, and a value that the database makes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    hidden = ReversedField(max_length=100, default="")
    base = models.IntegerField(default=1)
    double = models.GeneratedField(
        expression=models.F("base") * 2, output_field=models.IntegerField(), db_persist=True
    )


class Reading(models.Model):
    pk = models.CompositePrimaryKey("sensor", "at")
    sensor = models.IntegerField()
    at = models.IntegerField()
    value = models.IntegerField(default=0)


class Place(models.Model):
    name = models.CharField(max_length=300)
    rating = models.IntegerField(default=0)


class Shop(Place):
    """Two tables."""

    staff = models.IntegerField(default=0)


class Pallet(models.Model):
    """Deleted with its boxes, and what is in them."""

    label = models.CharField(max_length=50)


class Box(models.Model):
    pallet = models.ForeignKey(Pallet, models.CASCADE)
    number = models.IntegerField(default=0)


class Thing(models.Model):
    box = models.ForeignKey(Box, models.CASCADE)
    owner = models.ForeignKey(Supplier, models.SET_NULL, null=True)
    name = models.CharField(max_length=50, default="")


class Stock(models.Model):
    code = models.CharField(max_length=40, primary_key=True)
    level = models.IntegerField(default=0, unique=True)


class Unaudited(models.Model):
    name = models.CharField(max_length=50)
