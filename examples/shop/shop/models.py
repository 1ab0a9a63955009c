"""Customers and their cards, products and their tags, orders and their lines."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse


class Customer(models.Model):
    """Someone who buys; the user account is for logging in only."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="customer")
    name = models.CharField(max_length=100)
    email = models.EmailField()
    phone = models.CharField(max_length=30, blank=True)
    address = models.CharField(max_length=200, blank=True)
    notes = models.TextField(blank=True)
    since = models.DateField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Card(models.Model):
    """How a customer pays. Every look at this table is recorded, see ``otel-audit.toml``."""

    customer = models.OneToOneField(Customer, on_delete=models.CASCADE, related_name="card")
    holder = models.CharField(max_length=100)
    card_number = models.CharField(max_length=19)
    expires = models.DateField()

    def __str__(self) -> str:
        return f"card of {self.holder}"


class Tag(models.Model):
    """What products are found by."""

    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """A tea."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(unique=True)
    origin = models.CharField(max_length=80)
    blurb = models.CharField(max_length=200)
    price = models.DecimalField(
        max_digits=8, decimal_places=2, validators=[MinValueValidator(Decimal("0.01"))]
    )
    stock = models.PositiveIntegerField(default=0)
    colour = models.CharField(max_length=7, default="#7a8f5a")
    tags = models.ManyToManyField(Tag, related_name="products", blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("product", args=[self.slug])


class Order(models.Model):
    """What a customer bought, and how far it has got."""

    class Status(models.TextChoices):
        PLACED = "placed", "Placed"
        PAID = "paid", "Paid"
        PACKED = "packed", "Packed"
        SHIPPED = "shipped", "Shipped"
        CANCELLED = "cancelled", "Cancelled"

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="orders")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PLACED)
    address = models.CharField(max_length=200)
    note = models.CharField(max_length=200, blank=True)
    total = models.DecimalField(max_digits=10, decimal_places=2, default=Decimal(0))
    placed_at = models.DateTimeField(auto_now_add=True)
    receipt_sent_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("-placed_at", "-pk")

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("order", args=[self.pk])

    @property
    def open(self) -> bool:
        """Whether the customer may still change it."""
        return self.status in (self.Status.PLACED, self.Status.PAID)


class OrderLine(models.Model):
    """One product of an order, at the price of the day."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="lines")
    quantity = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product_id}"

    @property
    def total(self) -> Decimal:
        """Price times quantity."""
        return self.price * self.quantity
