"""Buying: everything that happens to the database when a basket becomes an order, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from opentelemetry import trace

from shop import fulfilment, tasks
from shop.basket import Line
from shop.models import Card, Customer, Order, OrderLine, Product

CARD_LIMIT = Decimal(250)
tracer = trace.get_tracer(__name__)


class CheckoutError(Exception):
    """The order cannot be placed; nothing of it stays."""


class PaymentDeclined(CheckoutError):
    """The bank said no."""


class OutOfStock(CheckoutError):
    """Someone else was faster."""


@transaction.atomic
def place(customer: Customer, lines: Sequence[Line], note: str = "") -> Order:
    """Write the order and its lines, take the products from stock and charge the card.

    Raises:
        CheckoutError: nothing was written.
    """
    order = Order.objects.create(customer=customer, address=customer.address, note=note)
    OrderLine.objects.bulk_create(
        OrderLine(order=order, product=line.product, quantity=line.quantity, price=line.product.price)
        for line in lines
    )
    take_from_stock(lines)
    order.total = sum((line.total for line in lines), Decimal(0))
    charge(customer, order.total)
    order.status = Order.Status.PAID
    order.save(update_fields=["total", "status"])
    fulfilment.send(order)
    tasks.receipt(order.pk, customer.email)
    return order


@tracer.start_as_current_span("take from stock")
def take_from_stock(lines: Sequence[Line]) -> None:
    """Lower the stock of every product.

    Raises:
        OutOfStock: there is not enough of one of them.
    """
    for line in lines:
        taken = Product.objects.filter(pk=line.product.pk, stock__gte=line.quantity).update(
            stock=F("stock") - line.quantity
        )
        if not taken:
            raise OutOfStock(f"There are not {line.quantity} of {line.product} left.")


@tracer.start_as_current_span("charge the card")
def charge(customer: Customer, amount: Decimal) -> None:
    """Play the bank: it declines what is over the limit of the card.

    Raises:
        PaymentDeclined: there is no card, or the amount is too high for it.
    """
    card = Card.objects.filter(customer=customer).first()
    if card is None:
        raise PaymentDeclined("There is no card to charge.")
    if amount > CARD_LIMIT:
        raise PaymentDeclined(f"The bank declined {amount} EUR: the limit of this card is {CARD_LIMIT} EUR.")


@transaction.atomic
def cancel(order: Order) -> None:
    """Put the products back on the shelf and mark the order."""
    for line in order.lines.all():
        Product.objects.filter(pk=line.product_id).update(stock=F("stock") + line.quantity)
    order.status = Order.Status.CANCELLED
    order.save(update_fields=["status"])
    fulfilment.cancel(order.pk)
