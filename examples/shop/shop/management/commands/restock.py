"""Order what is running out."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from shop.models import Product


class Command(BaseCommand):
    """``manage.py restock``"""

    help = "Fill up every tea of which little is left."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what is little, how much is enough, and what the supplier knows us by."""
        parser.add_argument("--below", type=int, default=40, help="fill up teas of which less is left")
        parser.add_argument("--to", type=int, default=60, help="how much there is afterwards")
        parser.add_argument("--supplier-token", default="", help="what the supplier knows us by")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, one tea after the other."""
        for product in Product.objects.filter(stock__lt=options["below"]):
            missing = options["to"] - product.stock
            product.stock = options["to"]
            product.save(update_fields=["stock"])
            self.stdout.write(f"{product}: {missing} ordered")
