"""What the shop does later, in Celery's worker: ``celery --app shop.tasks worker``.

The broker is a directory, so that nothing has to be installed; ``SHOP_BROKER`` says which. Without it nobody
is sent a receipt.
"""

from __future__ import annotations

import os
from pathlib import Path

import django
from celery import Celery
from celery.signals import worker_init
from django.db import transaction
from django.utils import timezone

BROKER = os.environ.get("SHOP_BROKER", "")
if BROKER:
    for directory in ("messages", "control"):
        Path(BROKER, directory).mkdir(parents=True, exist_ok=True)
app = Celery("shop", broker="filesystem://")
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {
    "data_folder_in": str(Path(BROKER, "messages")),
    "data_folder_out": str(Path(BROKER, "messages")),
    "control_folder": str(Path(BROKER, "control")),
    "store_processed": False,
}


def receipt(order: int, to: str) -> None:
    """Have the receipt of an order sent once it is committed."""
    if BROKER:
        transaction.on_commit(lambda: send_receipt.delay(order, to=to), robust=True)


@worker_init.connect
def prepare(**_: object) -> None:
    """Load Django in the worker."""
    django.setup()


@app.task(name="shop.tasks.send_receipt")
def send_receipt(order: int, *, to: str) -> None:
    """Send the receipt of an order, and note when; the mail itself is left to the reader."""
    from shop.models import Order

    found = Order.objects.get(pk=order)
    found.receipt_sent_at = timezone.now()
    found.save(update_fields=["receipt_sent_at"])
