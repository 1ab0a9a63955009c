"""The store is away, and comes back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.e2e.browser import logged_in
from tests.e2e.running import Store, eventually, prepared_shop


def test_records_wait_for_the_store_and_arrive_once(tmp_path: Path) -> None:
    """The shop starts without a store, sells, and every order is on record, once, when the store is there."""
    store = Store(tmp_path)
    with prepared_shop(tmp_path, store.sink) as shop:
        try:
            shop.start()
            with logged_in("ana", shop.url) as ana:
                first = [ana.buy(f"while away {n}", cape_rooibos=1) for n in range(5)]
                assert all(first)
                assert shop.spool_status()["waiting"] >= 5

                store.start()
                eventually(lambda: shop.spool_status()["waiting"] == 0, "the spool is empty")
                store.stop()

                second = [ana.buy(f"away again {n}", cape_rooibos=1) for n in range(5)]
                store.start()
                eventually(
                    lambda: len(store.records(target_type="shop.Order", action="CREATE")) == 10,
                    "all ten orders are on record",
                )
            shop.stop()
            orders = store.records(target_type="shop.Order", action="CREATE")
            assert Counter(record.target.id for record in orders if record.target) == Counter(
                str(number) for number in (*first, *second)
            )
            assert shop.spool_status()["waiting"] == 0
        finally:
            if store.process is not None:
                store.process.kill()


def test_a_shop_that_is_stopped_while_the_store_is_away_loses_nothing(tmp_path: Path) -> None:
    """What was not delivered stays in the spool; `otel-audit spool drain` delivers it."""
    store = Store(tmp_path)
    with prepared_shop(tmp_path, store.sink, environment={"OTEL_AUDIT_SINK_SHUTDOWN_TIMEOUT": "0.2"}) as shop:
        try:
            shop.start()
            with logged_in("ana", shop.url) as ana:
                number = ana.buy("last of the day", cape_rooibos=1)
            shop.stop()
            assert shop.spool_status()["waiting"] > 0

            store.start()
            shop.drain()

            assert shop.spool_status()["waiting"] == 0
            (created,) = store.records(target_type="shop.Order", action="CREATE")
            assert created.target is not None
            assert created.target.id == str(number)
            assert created.actor.name == "ana"
        finally:
            if store.process is not None:
                store.process.kill()
