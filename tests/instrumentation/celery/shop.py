"""The tasks of a shop, for workers in this process and in others."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject

import otel_audit

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "memory://"), set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("SHOP_VISIBILITY", "3600")),
        "polling_interval": 0.05,
    },
    result_backend=os.environ.get("SHOP_RESULTS", "cache+memory://"),
    task_publish_retry=False,
    worker_hijack_root_logger=False,
    beat_schedule={"nightly": {"task": "shop.bill", "schedule": 0.5, "args": ("7",)}},
)


class Angry:
    """Must not be looked at."""

    looks = 0

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        type(self).looks += 1
        time.sleep(self.seconds)
        raise ValueError("do not look")

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@app.task(name="shop.bill")  # type: ignore[untyped-decorator]
def bill(order: Any, password: str = "", **more: Any) -> dict[str, Any]:
    otel_audit.record("shop.invoice.create", "CREATE", attributes={"order": type(order).__name__})
    return {"invoice": f"R-{order if isinstance(order, int) else 0}", "token": "result-secret"}


@app.task(name="shop.fail")  # type: ignore[untyped-decorator]
def fail(message: str = "no stock") -> None:
    raise KeyError(message)


@app.task(name="shop.retry", bind=True, max_retries=2, default_retry_delay=0)  # type: ignore[untyped-decorator]
def retry(self: Task) -> str:
    otel_audit.record("shop.try", "EXECUTE")
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError("busy"), countdown=0)
    return "done"


@app.task(name="shop.poll", bind=True)  # type: ignore[untyped-decorator]
def poll(self: Task) -> str:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return "done"


@app.task(name="shop.ignore")  # type: ignore[untyped-decorator]
def ignore() -> None:
    raise Ignore


@app.task(name="shop.reject", acks_late=True)  # type: ignore[untyped-decorator]
def reject() -> None:
    raise Reject("not for me", requeue=False)


@app.task(name="shop.note")  # type: ignore[untyped-decorator]
def note() -> None:
    otel_audit.annotate(slug="month-end", colour="red")
    otel_audit.relate("shop.Order/7")


@app.task(name="shop.again")  # type: ignore[untyped-decorator]
def again(times: int) -> None:
    """Publish itself."""
    if times:
        again.delay(times - 1)


@app.task(name="shop.add")  # type: ignore[untyped-decorator]
def add(*numbers: Any) -> int:
    return sum(sum(number) if isinstance(number, list) else number for number in numbers)


@app.task(name="shop.sleep", acks_late=bool(os.environ.get("SHOP_ACKS_LATE")))  # type: ignore[untyped-decorator]
def sleep(seconds: float, mark: str = "") -> None:
    if mark:
        with open(mark, "a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


@app.task(name="shop.exit")  # type: ignore[untyped-decorator]
def leave() -> None:
    raise SystemExit(3)


@app.task(name="shop.say")  # type: ignore[untyped-decorator]
def say(text: str) -> None:
    print(text)
