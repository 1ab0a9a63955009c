"""Fill the shop: three people, two customers, their cards, and a shelf of tea."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from shop.models import Card, Customer, Product, Tag

PASSWORD = "steep-for-3-minutes"


class Tea(NamedTuple):
    """One row of the shelf."""

    name: str
    origin: str
    blurb: str
    price: str
    stock: int
    colour: str
    tags: tuple[str, ...]


SHELF = (
    Tea("Jasmine Pearls", "Fujian, China", "Hand-rolled and scented six nights over fresh flowers.",
        "14.50", 40, "#8aa36a", ("Green", "Floral")),
    Tea("Sencha Asahi", "Shizuoka, Japan", "First flush, deep-steamed: grass, sea air, a little sweet corn.",
        "11.90", 60, "#5f8f4e", ("Green",)),
    Tea("Silver Needle", "Fuding, China", "Only the buds, only in March. Patient people taste melon.",
        "18.00", 25, "#c9c3a1", ("White",)),
    Tea("Darjeeling Second Flush", "West Bengal, India", "Muscatel and a dry, bright finish.",
        "12.40", 55, "#b9753a", ("Black",)),
    Tea("Assam Breakfast", "Assam, India", "Malt, body, and no fear of milk.",
        "7.80", 120, "#8a4326", ("Black",)),
    Tea("Iron Goddess", "Anxi, China", "Lightly roasted oolong: orchid first, toast later.",
        "15.20", 35, "#6d7f4b", ("Oolong", "Floral")),
    Tea("Lapsang Souchong", "Wuyi, China", "Dried over pine fires. Smells like a very good coat.",
        "9.60", 45, "#5a3a2e", ("Black",)),
    Tea("Cape Rooibos", "Cederberg, South Africa", "No caffeine, all sunshine.",
        "6.50", 80, "#b4502e", ("Herbal",)),
    Tea("Chamomile Meadow", "Hvar, Croatia", "Whole flowers. Good night.",
        "5.90", 70, "#d9a93f", ("Herbal", "Floral")),
)  # fmt: skip


class Command(BaseCommand):
    """``manage.py seed``"""

    help = "Fill an empty shop: people (ana, ben and mia), customers, cards and teas."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, once."""
        if Product.objects.exists():
            self.stdout.write("The shelf is full already.")
            return
        self.people()
        self.teas()
        self.stdout.write(f"Three people, password {PASSWORD!r}, and {len(SHELF)} teas.")

    def people(self) -> None:
        """Ana buys, Ben answers the phone, Mia runs the shop; Noor is a customer who never logs in here."""
        users = get_user_model().objects
        ana = users.create_user("ana", "ana@example.com", PASSWORD, first_name="Ana")
        users.create_user("ben", "ben@kettle.example", PASSWORD, first_name="Ben", is_staff=True)
        users.create_superuser("mia", "mia@kettle.example", PASSWORD, first_name="Mia")
        noor = users.create_user("noor", "noor@example.com", first_name="Noor")
        for user, name, phone, address, number in (
            (ana, "Ana Reis", "+351 21 555 0142", "Rua das Flores 12, Lisboa", "4242 4242 4242 4242"),
            (noor, "Noor Haddad", "+49 30 555 0199", "Weserstr. 40, Berlin", "5555 5555 5555 4444"),
        ):
            customer = Customer.objects.create(
                user=user, name=name, email=user.email, phone=phone, address=address
            )
            Card.objects.create(
                customer=customer, holder=name, card_number=number, expires=datetime.date(2029, 8, 31)
            )

    def teas(self) -> None:
        """Put the shelf up."""
        names = sorted({name for tea in SHELF for name in tea.tags})
        tags = {tag.name: tag for tag in Tag.objects.bulk_create(Tag(name=n, slug=n.lower()) for n in names)}
        products = Product.objects.bulk_create(
            Product(
                name=tea.name,
                slug=tea.name.lower().replace(" ", "-"),
                origin=tea.origin,
                blurb=tea.blurb,
                price=Decimal(tea.price),
                stock=tea.stock,
                colour=tea.colour,
            )
            for tea in SHELF
        )
        for product, tea in zip(products, SHELF, strict=True):
            product.tags.add(*(tags[name] for name in tea.tags))
