"""What happens in the shop on one afternoon."""

from __future__ import annotations

from typing import Any, NamedTuple

from tour.visitors import Told, Visitor

PASSWORD = "steep-for-3-minutes"
HOME = "198.51.100.42"
CARE = "203.0.113.20"
OFFICE = "203.0.113.21"
WAREHOUSE = "203.0.113.30"
STRANGER = "192.0.2.66"
TOM = "tom-may-pack-parcels"
GUESSES = 12
"""More than the shop lets through, also where each of its two workers counts for itself."""
FORGED = "otel_audit.context=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIzIn0.mia"


class Numbers(NamedTuple):
    """The numbers of the orders of the story."""

    kept: int
    deleted: int
    by_phone: int
    shipment: int = 0
    """What the warehouse made of the kept order; 0 if there is no warehouse."""
    background: bool = False
    """Whether there was a worker for tasks, and a command filled up the shelf."""


def act(base_url: str, told: Told, warehouse_url: str = "") -> Numbers:
    """Play it, over HTTP; raise if the shop or the warehouse, if there is one, answers what it should not."""
    kept, deleted = customer(Visitor("ana", base_url, HOME, "safari", told))
    care(Visitor("ben", base_url, CARE, "firefox", told))
    shipment = 0
    if warehouse_url:
        shipment = packer(Visitor("tom", warehouse_url, WAREHOUSE, "scanner", told), kept)
    by_phone = manager(Visitor("mia", base_url, OFFICE, "edge", told), kept, deleted)
    stranger(Visitor("stranger", base_url, STRANGER, "curl", told))
    if warehouse_url:
        intruder(Visitor("stranger", warehouse_url, STRANGER, "curl", told), shipment)
    return Numbers(kept, deleted, by_phone, shipment)


def customer(ana: Visitor) -> tuple[int, int]:
    """Ana mistypes her password, buys twice, corrects an address, and asks too much of her card."""
    ana.does("mistypes her password")
    ana.login("steep-for-30-minutes")
    ana.does("logs in")
    ana.login(PASSWORD)
    ana.does("buys three Sencha Asahi and one Jasmine Pearls")
    kept = ana.buy("Please ring twice", sencha_asahi=3, jasmine_pearls=1)
    ana.does("buys two Chamomile Meadow and one Cape Rooibos")
    deleted = ana.buy(chamomile_meadow=2, cape_rooibos=1)
    if kept is None or deleted is None:
        raise RuntimeError("ana: the shop did not take the order")
    ana.does(f"corrects the address of order {kept}")
    ana.fill(f"/orders/{kept}/", address="Rua da Rosa 7, Lisboa")
    ana.does("orders twenty Silver Needle; the bank declines, all rolls back")
    if ana.buy("For the whole office", silver_needle=20) is not None:
        raise RuntimeError("ana: the bank should have declined 20 tins of Silver Needle")
    ana.does("logs out")
    ana.logout()
    ana.close()
    return kept, deleted


def care(ben: Visitor) -> None:
    """Ben answers the phone: he corrects Ana's number, and looks at her card."""
    ben.does("logs in at customer care")
    ben.login(PASSWORD)
    ben.get("/desk/")
    ben.does("corrects Ana's phone number")
    ben.fill("/desk/customers/1/", phone="+351 21 555 0177")
    ben.does("opens Ana's card")
    ben.get("/desk/customers/1/card/")
    ben.logout()
    ben.close()


def packer(tom: Visitor, order: int) -> int:
    """Tom works in the warehouse: he packs what the shop has asked for, and says so to the service there."""
    token = {"Authorization": f"Bearer {TOM}"}
    shipments = {each["order"]: each for each in tom.call("GET", "/shipments", **token)}
    shipment = shipments[order]["id"]
    tom.does(f"packs the parcel of order {order}, in the warehouse")
    tom.call("POST", f"/shipments/{shipment}/pack", {"tracking": "KL-2048-PT"}, **token)
    tom.close()
    return int(shipment)


def manager(mia: Visitor, kept: int, deleted: int) -> int:
    """Mia works in the admin, makes a sale, and deletes an order with its lines."""
    mia.does("logs in to the Django admin")
    mia.login(PASSWORD, at="/admin/login/?next=/admin/")
    mia.does("takes an order by phone, for Noor")
    added = mia.fill(
        "/admin/shop/order/add/",
        customer="2",
        address="Weserstr. 40, Berlin",
        note="by phone",
        total="12.40",
        **line(0, TOTAL_FORMS="1", product="4", quantity="1", price="12.40"),
        _continue="1",
    )
    by_phone = int(added.url.path.split("/")[-3])
    mia.does(f"packs order {kept}, and makes it two Jasmine Pearls")
    mia.fill(f"/admin/shop/order/{kept}/change/", status="packed", **line(1, quantity="2"))
    mia.does("raises the price of Iron Goddess")
    mia.fill("/desk/tea/iron-goddess/", price="16.00")
    mia.does("takes 10 % off every black tea, by one UPDATE")
    mia.fill("/desk/sale/", tag="1", percent="10", reason="Autumn sale")
    mia.does("exports the list of customers")
    mia.get("/desk/customers.csv")
    mia.does("changes the tags of Jasmine Pearls")
    mia.fill("/admin/shop/product/1/change/", tags=["2", "3", "5"])
    mia.does("ships two orders, by an action of the admin")
    mia.post("/admin/shop/order/", action="ship", _selected_action=[str(kept), str(by_phone)], index="0")
    mia.does(f"deletes order {deleted}, lines and all")
    mia.post(f"/admin/shop/order/{deleted}/delete/", post="yes")
    mia.does("logs out")
    mia.logout()
    mia.close()
    return by_phone


def line(number: int, **fields: str) -> dict[str, Any]:
    """Name the fields of one line as the admin's form of an order does."""
    return {
        f"lines-{name}" if name.isupper() else f"lines-{number}-{name}": value
        for name, value in fields.items()
    }


def stranger(visitor: Visitor) -> None:
    """Someone who never logged in tries a card page, with a header that claims to be Mia."""
    visitor.does("tries to open Ana's card, not logged in, and is refused")
    visitor.get("/desk/customers/1/card/", expect=403, baggage="audit.actor.id=mia,otel_audit.actor.id=3")
    visitor.does("guesses Ana's password, until the shop has had enough")
    if not any(visitor.guess("ana", f"steep-for-{number}-hours") == 429 for number in range(GUESSES)):
        raise RuntimeError(f"stranger: the shop let {GUESSES} guesses of a password through")
    visitor.close()


def intruder(visitor: Visitor, shipment: int) -> None:
    """The same stranger tries the warehouse without a token, with a forged context that names Mia."""
    visitor.does("claims to be Mia in the warehouse by a forged header; is refused")
    visitor.call("POST", f"/shipments/{shipment}/pack", {"tracking": "mine"}, 401, baggage=FORGED)
    visitor.close()
