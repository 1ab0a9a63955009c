"""The basket: product id to quantity, kept in the session."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from django.http import HttpRequest

from shop.models import Product

KEY = "basket"
MOST = 99


class Line(NamedTuple):
    """One product in the basket."""

    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        """Price of today times quantity."""
        return self.product.price * self.quantity


def quantities(request: HttpRequest) -> dict[str, int]:
    """Read the basket: product id, as text because sessions are JSON, to quantity."""
    found: dict[str, int] = request.session.get(KEY, {})
    return found


def put(request: HttpRequest, product: Product, quantity: int) -> None:
    """Set the quantity of a product; 0 takes it out."""
    basket = dict(quantities(request))
    basket.pop(str(product.pk), None)
    if quantity > 0:
        basket[str(product.pk)] = min(quantity, MOST)
    request.session[KEY] = basket


def lines(request: HttpRequest) -> list[Line]:
    """Look the products up, in the order they were put in."""
    basket = quantities(request)
    products = {str(product.pk): product for product in Product.objects.filter(pk__in=list(basket))}
    return [Line(products[key], quantity) for key, quantity in basket.items() if key in products]


def empty(request: HttpRequest) -> None:
    """Take everything out."""
    request.session.pop(KEY, None)


def in_templates(request: HttpRequest) -> dict[str, Any]:
    """Tell every template how many things are in the basket."""
    return {"basket_count": sum(quantities(request).values())}
