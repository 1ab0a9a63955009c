"""A worker dies by SIGKILL in the middle of a request, again and again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from otel_audit.audit_record import AuditRecord
from tests.e2e.browser import logged_in
from tests.e2e.running import Shop, eventually, postgresql_address, prepared_shop, running_store
from tests.e2e.truth import Change, execute, told, watch

TABLES = {"shop.Order": ("shop_order", "note"), "shop.Product": ("shop_product", "stock")}


class Customer(threading.Thread):
    """Someone who buys and corrects orders without a pause, and counts the requests that broke."""

    def __init__(self, number: int, url: str, halt: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.url, self.halt = number, url, halt
        self.broken = 0
        self.done = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with logged_in("ana", self.url) as visitor:
                order: int | None = None
                step = 0
                while not self.halt.is_set():
                    step += 1
                    token = f"token-{self.number}-{step}"
                    try:
                        if order is None or step % 3 == 0:
                            order = visitor.buy(token, sencha_asahi=1, cape_rooibos=1) or order
                        else:
                            visitor.post(f"/orders/{order}/", address=f"Street {step}", note=token)
                        self.done += 1
                    except (httpx.RemoteProtocolError, httpx.ReadError):
                        self.broken += 1
                    except httpx.ConnectError:
                        pass
        except Exception as error:  # noqa: BLE001  (the test shows it)
            self.failure = error


def claimed(records: list[AuditRecord]) -> dict[str, Counter[Change]]:
    """Return the changes of watched columns the trail speaks of, by outcome."""
    found: dict[str, Counter[Change]] = {"success": Counter(), "unknown": Counter(), "failure": Counter()}
    for record in records:
        table, column = TABLES.get(record.target.type if record.target else "", ("", ""))
        if not table:
            continue
        assert record.target is not None
        if record.bulk is not None:
            for watched in record.bulk.columns:
                if watched.field == column and watched.old and watched.new:
                    for key, old, new in zip(record.bulk.keys, watched.old, watched.new, strict=True):
                        found[record.outcome][Change(table, key, str(old), str(new))] += 1
        for change in record.changes:
            if change.field == column and change.old != change.new:
                old = None if record.action == "CREATE" else str(change.old)
                found[record.outcome][Change(table, record.target.id, old, str(change.new))] += 1
    return found


def kill_workers(shop: Shop, customers: list[Customer], times: int) -> None:
    """Kill one worker after another until ``times`` requests have broken for it."""
    choose = random.Random(20)
    deadline = time.monotonic() + 240
    while sum(customer.broken for customer in customers) < times:
        assert time.monotonic() < deadline, shop.process and shop.process.output()
        for customer in customers:
            assert customer.failure is None, customer.failure
        time.sleep(choose.uniform(0.01, 0.06))
        workers = shop.workers()
        if len(workers) < 2:
            continue
        os.kill(choose.choice(workers), signal.SIGKILL)
        answered = sum(customer.done for customer in customers)
        eventually(lambda seen=answered: sum(c.done for c in customers) > seen, "the shop goes on", 60)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("database", "options", "times"), [("sqlite", ["--preload"], 50), ("postgresql", [], 8)]
)
def test_every_committed_change_is_on_record_and_none_is_invented(
    tmp_path: Path, request: pytest.FixtureRequest, database: str, options: list[str], times: int
) -> None:
    """The database's own triggers say what was committed: `success` must be all of it, and nothing else.

    `unknown` may be either; a change of a request that broke may be on record as nothing but that.
    """
    address = postgresql_address(request.getfixturevalue("postgresql")) if database == "postgresql" else ""
    with running_store(tmp_path) as store, prepared_shop(tmp_path, store.sink, database=address) as shop:
        address = shop.environment["SHOP_DATABASE"]
        execute(address, ["UPDATE shop_product SET stock = 1000000"])
        watch(address)
        shop.start("gunicorn", *options)
        halt = threading.Event()
        customers = [Customer(number, shop.url, halt) for number in range(4)]
        for customer in customers:
            customer.start()
        eventually(lambda: all(c.done or c.failure for c in customers), "every customer has bought", 60)
        kill_workers(shop, customers, times)
        halt.set()
        for customer in customers:
            customer.join(60)
            assert customer.failure is None, customer.failure
        shop.stop()
        shop.drain()

        truth = Counter(told(address))
        records = store.records()
    trail = claimed(records)
    committed, unknown = trail["success"], trail["unknown"]
    assert sum(truth.values()) > times
    assert committed - truth == Counter(), "invented"
    assert truth - committed - unknown == Counter(), "missing"
    assert max(committed.values()) == 1, "told twice"
    # An attempt killed before its COMMIT may have meant the same change as a later one that succeeded (the
    # same piece of the stock): that is two transactions. One transaction has one end.
    ends = {
        outcome: {r.database.transaction for r in records if r.outcome == outcome and r.database.transaction}
        for outcome in ("success", "unknown")
    }
    assert ends["success"].isdisjoint(ends["unknown"]), "told twice"
    # A request writes at most three watched rows; nothing else may be in doubt.
    assert sum(unknown.values()) <= 3 * sum(customer.broken for customer in customers)
