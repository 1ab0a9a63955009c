"""A small clinic: patients are sensitive, what surrounds them is not."""

from __future__ import annotations

import uuid

from django.db import models


class Ward(models.Model):
    name = models.CharField(max_length=50)


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Patient(models.Model):
    name = models.CharField(max_length=50)
    email = models.CharField(max_length=50, default="")
    card = models.CharField(max_length=50, default="")
    balance = models.IntegerField(default=0)
    ward = models.ForeignKey(Ward, models.CASCADE, null=True, related_name="patients")
    referrer = models.ForeignKey("self", models.SET_NULL, null=True)
    tags = models.ManyToManyField(Tag)

    def __str__(self) -> str:
        return f"{self.name}"


class PatientOnFile(Patient):
    """A proxy: the same patients."""

    class Meta:
        proxy = True


class Inpatient(Patient):
    """A child in a table of its own."""

    bed = models.IntegerField(default=0)


class Visit(models.Model):
    patient = models.ForeignKey(Patient, models.CASCADE, null=True, related_name="visits")
    note = models.CharField(max_length=50, default="")


class Sample(models.Model):
    """Sensitive as well; its key needs a converter on SQLite."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    result = models.CharField(max_length=50)


class Dose(models.Model):
    """Sensitive as well; two columns make its key."""

    pk = models.CompositePrimaryKey("patient_id", "number")
    patient = models.ForeignKey(Patient, models.CASCADE)
    number = models.IntegerField()
    drug = models.CharField(max_length=50)
