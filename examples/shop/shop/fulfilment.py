"""The warehouse: told by HTTP what to send, once that is committed.

``SHOP_FULFILMENT_URL`` says where it is; without it nobody is told. Nothing here is about tracing or audit:
OpenTelemetry adds the trace to each call, otel-audit adds who acts, signed.
"""

from __future__ import annotations

import os

import httpx
from django.db import transaction

from shop.models import Order

URL = os.environ.get("SHOP_FULFILMENT_URL", "")
TOKEN = os.environ.get("SHOP_FULFILMENT_TOKEN", "the-shop-may-ask-for-parcels")
_warehouse = (
    httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5) if URL else None
)


def send(order: Order) -> None:
    """Ask the warehouse to send an order, or to send it elsewhere, once its transaction is committed.

    If the warehouse does not answer, the order stays as it is and the log says so.
    """
    warehouse = _warehouse
    if warehouse is None:
        return

    def put() -> None:
        lines = order.lines.select_related("product")
        wanted = {
            "recipient": order.customer.name,
            "address": order.address,
            "note": order.note,
            "lines": [{"tea": line.product.slug, "quantity": line.quantity} for line in lines],
        }
        warehouse.put(f"/orders/{order.pk}/shipment", json=wanted).raise_for_status()

    transaction.on_commit(put, robust=True)


def cancel(number: int) -> None:
    """Ask the warehouse not to send an order, once that is committed."""
    warehouse = _warehouse
    if warehouse is None:
        return

    def delete() -> None:
        warehouse.delete(f"/orders/{number}/shipment").raise_for_status()

    transaction.on_commit(delete, robust=True)
