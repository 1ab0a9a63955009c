"""A vault: models whose keys are secrets, as those of sessions and tokens are, and what refers to them."""

from __future__ import annotations

import uuid

from django.db import models


class AuthToken(models.Model):
    """Known by its name, as knox's is."""

    digest = models.CharField(max_length=128, primary_key=True)
    label = models.CharField(max_length=50, default="")


class Invitation(models.Model):
    """Known by the name of its key, a UUID."""

    token = models.UUIDField(primary_key=True, default=uuid.uuid4)
    label = models.CharField(max_length=50, default="")


class MagicLink(models.Model):
    """The key is all there is to know: whoever has it is logged in."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    label = models.CharField(max_length=50, default="")


class AccessToken(models.Model):
    """The key is a plain UUID: the secret is another field."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    token = models.CharField(max_length=64, unique=True)


class Voucher(models.Model):
    """Known by the configuration only."""

    code = models.CharField(max_length=50, primary_key=True)
    label = models.CharField(max_length=50, default="")


class SignedInvitation(Invitation):
    """A child: its key is its parent's."""

    signer = models.CharField(max_length=50, default="")


class Share(models.Model):
    """Two columns make its key, one of them secret."""

    pk = models.CompositePrimaryKey("link", "number")
    link = models.ForeignKey(MagicLink, models.CASCADE)
    number = models.IntegerField()


class Card(models.Model):
    name = models.CharField(max_length=50, default="")


class Device(models.Model):
    """Refers to every one of them."""

    name = models.CharField(max_length=50, default="")
    login = models.ForeignKey(AuthToken, models.CASCADE, null=True)
    invited_by = models.ForeignKey(Invitation, models.CASCADE, null=True)
    link = models.OneToOneField(MagicLink, models.CASCADE, null=True)
    access = models.ForeignKey(AccessToken, models.CASCADE, to_field="token", null=True)
    voucher = models.ForeignKey(Voucher, models.SET_NULL, null=True)
    card = models.ForeignKey(Card, models.SET_NULL, null=True)
    grants = models.ManyToManyField(AuthToken, related_name="granted")
    sessions = models.ManyToManyField("sessions.Session", db_constraint=False)  # made by a migration, later
