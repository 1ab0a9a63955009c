"""The shop (Django) calls the warehouse (FastAPI, async SQLAlchemy): one story."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_audit.propagation.signed_context import NAME, Key, SignedContext, sign
from tests.e2e.browser import expectations, logged_in, story
from tests.e2e.running import (
    Fulfilment,
    Store,
    eventually,
    postgresql_address,
    prepared_shop,
    running_fulfilment,
    running_store,
)
from tests.services import free_port

SHIPMENT = {
    "recipient": "Ana Reis",
    "address": "Rua das Flores 12",
    "lines": [{"tea": "sencha", "quantity": 1}],
}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_afternoon_is_one_story_over_both_services(
    tmp_path: Path, request: pytest.FixtureRequest, database: str
) -> None:
    """All the demo expects, of both; one trace from the click to the other service's rows; one history."""
    address = ""
    if database == "postgresql":
        address = postgresql_address(request.getfixturevalue("postgresql")).replace("://", "+asyncpg://", 1)
    with (
        running_store(tmp_path) as store,
        running_fulfilment(tmp_path, store.sink, database=address) as warehouse,
        prepared_shop(tmp_path, store.sink, environment=warehouse.shop_settings) as shop,
    ):
        shop.start()
        numbers = story.act(shop.url, lambda _who, _what: None, warehouse.url)
        assert numbers.shipment

        def missing() -> list[str]:
            # Here `manage.py seed` ran without us.
            return [
                what for what in expectations.missing(store.ask, numbers) if not what.startswith("the seed")
            ]

        eventually(lambda: not missing(), "everything is on record", 20)
        kept = f"shop.Order/{numbers.kept}"
        (created,) = store.ask("--target", kept, "--action", "CREATE")

        def trace() -> list[dict[str, Any]]:
            lines = store.cli("trace", "--json", created["trace_id"], status=None).splitlines()
            return [json.loads(line) for line in lines if line.startswith("{")]

        eventually(lambda: not expectations.missing_in_trace(trace()), "the trace joins both services")
        shown = store.cli("trace", created["trace_id"])
        assert "CREATE fulfilment.Shipment/1 by shop (service) for 1 [ana]" in shown

        for_ana = store.ask("--service", "fulfilment", "--on-behalf-of", "ana")
        assert {each["action"] for each in for_ana} == {"CREATE", "UPDATE", "ACCEPT", "REDIRECT"}

        lines = store.cli("history", "--json", kept).splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        assert [(each["service"], each["action"]) for each in entries] == [
            ("shop", "REQUEST"),
            ("shop", "CREATE"),
            ("shop", "UPDATE"),
            ("fulfilment", "ACCEPT"),
            ("shop", "UPDATE"),
            ("fulfilment", "REDIRECT"),
            ("fulfilment", "PACK"),
            ("shop", "UPDATE"),
            ("shop", "UPDATE"),
        ]
        origins = {
            (record.origin.actor, record.origin.request)
            for record in store.records(service="fulfilment")
            if record.origin is not None and record.target and record.target.id == str(numbers.kept)
        }
        requests = {record.request.id for record in store.records(actor_name="ana")}
        assert origins
        assert all(actor == "1" and number in requests for actor, number in origins)
        shop.stop()


def test_who_began_the_work_is_believed_only_if_it_is_signed_for_the_service(tmp_path: Path) -> None:
    """The same call with seven headers: the right one names a user, the others nobody; the caller stays."""
    with running_store(tmp_path) as store, running_fulfilment(tmp_path, store.sink) as warehouse:
        right, wrong = Key("test", warehouse.key), Key("test", "x" * 64)
        headers = {
            1: _header(right, warehouse.host),
            2: _header(wrong, warehouse.host),
            3: _header(Key("other", warehouse.key), warehouse.host),
            4: _header(right, "billing.internal:8001"),
            5: _header(right, warehouse.host, lifetime=-3600),
            6: "audit.actor.id=3,otel_audit.on_behalf_of=3,user.id=3",
            7: f"{_header(wrong, warehouse.host)},{_header(right, warehouse.host)}",
        }
        for order, header in headers.items():
            _call(warehouse, order, header, "the-shop-may-ask-for-parcels")
        packed = httpx.post(
            f"{warehouse.url}/shipments/1/pack",
            json={"tracking": "KL-1"},
            headers={"Authorization": "Bearer tom-may-pack-parcels", "Baggage": headers[2]},
        )
        assert packed.is_success
        warehouse.stop()
        eventually(lambda: len(_seen(store)) == 8, "every call is on record")
        seen = _seen(store)
    assert seen.pop("1 PACK") == ("tom", "", None)
    assert seen.pop("1 ACCEPT") == ("shop", "3", "3")
    assert seen == {f"{order} ACCEPT": ("shop", "", None) for order in range(2, 8)}


def test_an_order_is_kept_and_recorded_while_the_warehouse_does_not_answer(tmp_path: Path) -> None:
    """Ana sees her order; the trail has it as a success; the log says what was not handed over."""
    environment = {"SHOP_FULFILMENT_URL": f"http://127.0.0.1:{free_port()}"}
    with (
        running_store(tmp_path) as store,
        prepared_shop(tmp_path, store.sink, environment=environment) as shop,
    ):
        shop.start()
        with logged_in("ana", shop.url) as ana:
            order = ana.buy(sencha_asahi=1)
        assert order is not None
        shop.stop()
        assert shop.process is not None
        assert "on_commit" in shop.process.output()
        shop.drain()
        actions = [(each["action"], each["outcome"]) for each in store.ask("--target", f"shop.Order/{order}")]
    assert actions == [("UPDATE", "success"), ("CREATE", "success")]


def _header(key: Key, audience: str, lifetime: int = 60) -> str:
    context = SignedContext(audience, int(time.time()) + lifetime, initiator="3", kind="user", request="r1")
    return f"{NAME}={sign(context, key)}"


def _call(warehouse: Fulfilment, order: int, baggage: str, token: str) -> None:
    response = httpx.put(
        f"{warehouse.url}/orders/{order}/shipment",
        json=SHIPMENT,
        headers={"Authorization": f"Bearer {token}", "Baggage": baggage},
    )
    assert response.is_success, response.text


def _seen(store: Store) -> dict[str, tuple[str, str, str | None]]:
    """Return ``order action`` to who acted, for whom, and who began it."""
    return {
        f"{record.target.id} {record.action}": (
            record.actor.id,
            record.actor.on_behalf_of,
            record.origin.actor if record.origin else None,
        )
        for record in store.records()
        if record.target and record.target.type == "shop.Order"
    }
