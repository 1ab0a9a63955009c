"""The afternoon of the demo, on every server and database: all of it must be on record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import expectations, story
from tests.e2e.running import eventually, postgresql_address, prepared_shop, running_store


@pytest.mark.parametrize(
    ("server", "database"),
    [
        ("gunicorn", "postgresql"),
        ("uvicorn", "sqlite"),
        pytest.param("gunicorn", "sqlite", marks=pytest.mark.attack),
        pytest.param("uvicorn", "postgresql", marks=pytest.mark.attack),
    ],
)
def test_an_afternoon_in_the_shop_is_on_record(
    tmp_path: Path, request: pytest.FixtureRequest, server: str, database: str
) -> None:
    """Three people and a stranger act; the trail names all the demo expects, and joins it to traces."""
    address = postgresql_address(request.getfixturevalue("postgresql")) if database == "postgresql" else ""
    with running_store(tmp_path) as store, prepared_shop(tmp_path, store.sink, database=address) as shop:
        shop.start(server)
        numbers = story.act(shop.url, lambda _who, _what: None)

        def missing() -> list[str]:
            # Here `manage.py seed` ran without us.
            return [
                what for what in expectations.missing(store.ask, numbers) if not what.startswith("the seed")
            ]

        eventually(lambda: not missing(), "everything is on record", 20)

        (created,) = store.ask("--target", f"shop.Order/{numbers.kept}", "--action", "CREATE")
        assert created["route"] == "basket/buy/"
        assert created["method"] == "POST"
        assert created["service"] == "shop"

        def trace() -> str:
            return store.cli("trace", created["trace_id"], status=None)

        eventually(lambda: "POST basket/buy/" in trace(), "the span of the request is in the store")
        assert "shop.Order" in trace()
        assert "Rua da Rosa 7" in store.cli("history", f"shop.Order/{numbers.kept}")
        shop.stop()


def test_failed_records_of_a_rolled_back_checkout_claim_nothing(tmp_path: Path) -> None:
    """The order the bank declined is `failure` throughout; no record of it says `success`."""
    with running_store(tmp_path) as store, prepared_shop(tmp_path, store.sink) as shop:
        shop.start()
        story.act(shop.url, lambda _who, _what: None)
        shop.stop()
        shop.drain()
        records = store.records()
    declined = [r for r in records if r.action == "CREATE" and r.outcome == "failure" and r.target]
    (order,) = [r for r in declined if r.target and r.target.type == "shop.Order"]
    together = [r for r in records if r.request.id == order.request.id and r.database.transaction]
    assert {r.database.transaction for r in together} == {order.database.transaction}
    assert {r.outcome for r in together} == {"failure"}
    assert {r.target.type for r in together if r.target} == {"shop.Order", "shop.OrderLine", "shop.Product"}
