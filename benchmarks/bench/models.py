"""The same ten-field row for everyone who is measured."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Row(models.Model):
    name = models.CharField(max_length=100)
    sku = models.CharField(max_length=40)
    description = models.TextField()
    category = models.CharField(max_length=40)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField()
    weight = models.FloatField()
    active = models.BooleanField(default=True)
    released = models.DateField()
    updated = models.DateTimeField()

    class Meta:
        abstract = True


class Article(Row):
    """Plain, and audited by otel-audit where that is switched on."""


class Category(models.Model):
    """Never audited."""

    name = models.CharField(max_length=40)


class Product(models.Model):
    """Ten fields again, a JSONField and a foreign key among them."""

    name = models.CharField(max_length=100)
    sku = models.CharField(max_length=40)
    description = models.TextField()
    stock = models.IntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    active = models.BooleanField(default=True)
    made = models.DateTimeField()
    updated = models.DateTimeField()
    category = models.ForeignKey(Category, models.CASCADE)
    facts = models.JSONField()


if settings.PEERS:
    from auditlog.registry import auditlog
    from simple_history.models import HistoricalRecords

    class LoggedArticle(Row):
        """Audited by django-auditlog."""

    class HistoricArticle(Row):
        """Audited by django-simple-history."""

        history = HistoricalRecords()

    auditlog.register(LoggedArticle)

    if settings.POSTGRESQL:
        import pghistory

        @pghistory.track(pghistory.InsertEvent(), pghistory.UpdateEvent(), pghistory.DeleteEvent())
        class TriggeredArticle(Row):
            """Audited by django-pghistory, by triggers of the database."""
