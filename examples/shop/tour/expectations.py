"""What must be on record after the story, said as questions to the trail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tour.story import CARE, HOME, OFFICE, STRANGER, WAREHOUSE, Numbers

Entry = Mapping[str, Any]
"""One line of ``otel-audit query --json``."""
Ask = Callable[..., list[Entry]]
"""Runs ``otel-audit query --json`` with more arguments, gives all it answers."""
ASSAM = "shop.Product/5"
RECEIPT = "shop.tasks.send_receipt"


class Expectation(NamedTuple):
    """One thing that must be on record, and how to recognise it."""

    what: str
    recognised: Callable[[Entry], bool]
    at_least: int = 1


def expectations(numbers: Numbers) -> list[Expectation]:
    """List what the story must have left behind."""
    return (
        of_the_shop(numbers)
        + of_the_requests(numbers)
        + (of_the_background(numbers) if numbers.background else [])
        + (of_the_warehouse(numbers) + of_the_calls(numbers) if numbers.shipment else [])
    )


def is_(
    action: str,
    target: str = "",
    *,
    who: str = "",
    source: str = "",
    outcome: str = "success",
    fields: Iterable[str] = (),
    **values: tuple[str | None, str],
) -> Callable[[Entry], bool]:
    """Return what recognises an entry by its parts; those not given may be anything."""

    def recognised(entry: Entry) -> bool:
        return (
            entry["action"] == action
            and entry["outcome"] == outcome
            and (not target or target in (address(entry), address(entry).partition("/")[0]))
            and (not who or entry.get("actor", {}).get("name") == who)
            and (not source or entry.get("source") == source)
            and set(fields) <= changed(entry).keys() | set(entry.get("fields", ()))
            and all(changed(entry).get(field) == pair for field, pair in values.items())
        )

    return recognised


def of_the_shop(numbers: Numbers) -> list[Expectation]:
    """List what the shop must have recorded."""
    kept, deleted = f"shop.Order/{numbers.kept}", f"shop.Order/{numbers.deleted}"
    by_phone = f"shop.Order/{numbers.by_phone}"
    return [
        Expectation("a failed login", is_("LOGIN", source=HOME, outcome="failure")),
        Expectation("the login of Ana", is_("LOGIN", who="ana", source=HOME)),
        Expectation("the login of Ben", is_("LOGIN", who="ben", source=CARE)),
        Expectation("the login of Mia", is_("LOGIN", who="mia", source=OFFICE)),
        Expectation("Ana's first order", is_("CREATE", kept, who="ana", source=HOME)),
        Expectation("Ana's second order", is_("CREATE", deleted, who="ana")),
        Expectation("the lines of both orders", is_("CREATE", "shop.OrderLine", who="ana"), 4),
        Expectation(
            "stock taken from the shelf", is_("UPDATE", "shop.Product", who="ana", fields=["stock"]), 4
        ),
        Expectation(
            "the new address, from and to",
            is_("UPDATE", kept, who="ana", address=("Rua das Flores 12, Lisboa", "Rua da Rosa 7, Lisboa")),
        ),
        Expectation(
            "the checkout that was rolled back", is_("CREATE", "shop.Order", who="ana", outcome="failure")
        ),
        Expectation(
            "its stock, rolled back too",
            is_("UPDATE", "shop.Product", who="ana", outcome="failure", fields=["stock"]),
        ),
        Expectation("Ana's new phone number", is_("UPDATE", "shop.Customer/1", who="ben", fields=["phone"])),
        Expectation("Ben's look at Ana's card", is_("READ", "shop.Card", who="ben", source=CARE)),
        Expectation("the order by phone, in the admin", is_("CREATE", by_phone, who="mia", source=OFFICE)),
        Expectation(
            "the order packed, in the admin",
            is_("UPDATE", kept, who="mia", status=("paid", "packed")),
        ),
        Expectation(
            "a line changed, in the admin",
            is_("UPDATE", "shop.OrderLine", who="mia", quantity=("1", "2")),
        ),
        Expectation(
            "a price changed by hand", is_("UPDATE", "shop.Product", who="mia", price=("15.20", "16.00"))
        ),
        Expectation("prices changed by a bulk update", price_of_the_sale),
        Expectation("customers exported, by the shop's own call", is_("EXPORT", "shop.Customer", who="mia")),
        Expectation("tags changed", lambda entry: "tags" in address(entry) and entry["outcome"] == "success"),
        Expectation(
            "the order shipped, by a bulk update",
            is_("UPDATE", kept, who="mia", status=("packed", "shipped")),
        ),
        Expectation("the order deleted", is_("DELETE", deleted, who="mia", source=OFFICE)),
        Expectation("its lines deleted with it", is_("DELETE", "shop.OrderLine", who="mia"), 2),
        Expectation("the logout of Ana", is_("LOGOUT", who="ana")),
        Expectation("the logout of Mia", is_("LOGOUT", who="mia")),
        Expectation(
            "the stranger, refused, and not believed",
            lambda entry: (
                is_("ACCESS", "http.route", source=STRANGER, outcome="failure")(entry)
                and entry.get("actor", {}).get("id", "anonymous") == "anonymous"
            ),
        ),
        Expectation(
            "the seed, by the command that ran it",
            lambda entry: (
                entry["action"] == "CREATE"
                and address(entry).partition("/")[0] == "shop.Product"
                and entry.get("actor", {}).get("type") == "system"
            ),
            9,
        ),
    ]


def of_the_requests(numbers: Numbers) -> list[Expectation]:
    """List what must be on record of requests themselves, and of those that were refused."""
    kept = f"shop.Order/{numbers.kept}"

    def request(route: str, **parts: str) -> Callable[[Entry], bool]:
        return is_("REQUEST", f"http.route/{route}".rstrip("/"), **parts)

    return [
        Expectation(
            "the request that made the order, about the order",
            lambda entry: (
                request("basket/buy/", who="ana", source=HOME)(entry) and kept in entry.get("related", ())
            ),
        ),
        Expectation("Ben's request of the card", request("desk/customers/<int:pk>/card/", who="ben")),
        Expectation(
            "the stranger's request of it, answered 403",
            request("desk/customers/<int:pk>/card/", source=STRANGER, outcome="failure"),
        ),
        Expectation(
            "the guesses of a password, refused in the end",
            is_("REFUSE", "http.route/login", source=STRANGER, outcome="failure"),
        ),
    ]


def of_the_background(numbers: Numbers) -> list[Expectation]:
    """List what must be on record of tasks and commands."""
    kept = f"shop.Order/{numbers.kept}"

    def task(event: str) -> Callable[[Entry], bool]:
        return lambda entry: (
            entry["event_name"] == event and address(entry).startswith(f"{RECEIPT}/") and good(entry)
        )

    return [
        Expectation(
            "the receipts asked for, by Ana",
            lambda entry: task("task.publish")(entry) and entry["actor"].get("name") == "ana",
            2,
        ),
        Expectation(
            "the receipts sent, by the task, for her",
            lambda entry: task("task.run")(entry) and entry.get("customer_known_as") == "ana",
            2,
        ),
        Expectation(
            "the time of the receipt on the order, by the task, for her",
            lambda entry: (
                is_("UPDATE", kept, fields=["receipt_sent_at"])(entry)
                and entry["actor"]["id"] == RECEIPT
                and entry.get("customer_known_as") == "ana"
            ),
        ),
        Expectation("the command that restocks", is_("EXECUTE", "command/restock")),
        Expectation(
            "the stock it has filled up, by the command",
            lambda entry: (
                is_("UPDATE", "shop.Product", fields=["stock"])(entry)
                and entry["actor"]["id"] == "manage.py restock"
            ),
            4,
        ),
    ]


def of_the_calls(numbers: Numbers) -> list[Expectation]:
    """List what must be on record of the shop's calls to the warehouse, on both sides."""
    return [
        Expectation(
            "the shop's calls to the warehouse, for Ana",
            lambda entry: (
                is_("CALL", "http.host/127.0.0.1", who="ana")(entry)
                and entry["service"] == "shop"
                and entry.get("slug") == "tell-the-warehouse"
            ),
            3,
        ),
        Expectation(
            "the same in the warehouse, by the shop for her",
            lambda entry: (
                is_("REQUEST", "http.route//orders/{order}/shipment")(entry)
                and entry["service"] == "fulfilment"
                and entry["actor"]["id"] == "shop"
                and entry.get("customer_known_as") == "ana"
            ),
            3,
        ),
    ]


def of_the_warehouse(numbers: Numbers) -> list[Expectation]:
    """List what the fulfilment service must have recorded: of the shop's calls, for whom it called."""
    kept, deleted = f"shop.Order/{numbers.kept}", f"shop.Order/{numbers.deleted}"
    shipment = f"fulfilment.Shipment/{numbers.shipment}"

    def called(recognised: Callable[[Entry], bool], for_: str) -> Callable[[Entry], bool]:
        return lambda entry: (
            recognised(entry)
            and entry["service"] == "fulfilment"
            and entry["actor"]["id"] == "shop"
            and entry["actor"]["type"] == "service"
            and entry.get("customer_known_as") == for_
        )

    return [
        Expectation(
            "the shipment of Ana's order, by the shop for her", called(is_("CREATE", shipment), "ana")
        ),
        Expectation(
            "its lines, by the shop for her", called(is_("CREATE", "fulfilment.ShipmentLine"), "ana"), 4
        ),
        Expectation("the order accepted by the warehouse", called(is_("ACCEPT", kept), "ana")),
        Expectation(
            "the new address in the warehouse, by the shop for Ana",
            called(
                is_(
                    *("UPDATE", shipment),
                    address=("Rua das Flores 12, Lisboa", "Rua da Rosa 7, Lisboa"),
                ),
                "ana",
            ),
        ),
        Expectation(
            "the parcel packed, by Tom",
            lambda entry: (
                is_("UPDATE", shipment, source=WAREHOUSE, tracking=(None, "KL-2048-PT"))(entry)
                and entry["actor"]["id"] == "tom"
                and not entry["actor"].get("on_behalf_of")
            ),
        ),
        Expectation(
            "the shipment of the deleted order deleted, by the shop for Mia",
            called(is_("DELETE", "fulfilment.Shipment", fields=["recipient"]), "mia"),
        ),
        Expectation("the deleted order cancelled in the warehouse", called(is_("CANCEL", deleted), "mia")),
        Expectation(
            "the stranger in the warehouse, refused, and the forged header not believed",
            lambda entry: (
                is_("ACCESS", source=STRANGER, outcome="failure")(entry)
                and entry["service"] == "fulfilment"
                and entry.get("actor", {}).get("id", "anonymous") == "anonymous"
                and not entry.get("actor", {}).get("on_behalf_of")
            ),
        ),
    ]


def missing_in_trace(trace: Sequence[Entry]) -> list[str]:
    """Name what the trace of a checkout lacks to be one story over both services.

    Args:
        trace: what ``otel-audit trace --json`` prints.
    """
    spans = [each for each in trace if each["kind"] == "span"]
    roots = [each["name"] for each in trace if each["depth"] == 0]
    wanted = {
        "one root, the request of the visitor": roots == ["POST basket/buy/"],
        "the span in which the card is charged": any(each["name"] == "charge the card" for each in spans),
        "the shop's call, in OpenTelemetry's span": any(
            each["service"] == "shop" and each["span_kind"] == "client" for each in spans
        ),
        "the request in the warehouse": any(
            each["service"] == "fulfilment" and each["span_kind"] == "server" for each in spans
        ),
        "the shipment, recorded within it": any(
            each["kind"] == "record"
            and each["depth"] > 2
            and address(each).startswith("fulfilment.Shipment/")
            for each in trace
        ),
    }
    return [f"{what}, in the trace" for what, there in wanted.items() if not there]


def good(entry: Entry) -> bool:
    """Say whether what an entry is about went well."""
    return bool(entry["outcome"] == "success")


def price_of_the_sale(entry: Entry) -> bool:
    """Recognise one row of the bulk update of prices: old and new, with its reason."""
    return (
        entry["action"] == "UPDATE"
        and changed(entry).get("price") == ("7.80", "7.02")
        and entry.get("reason") == "Autumn sale"
    )


def missing(ask: Ask, numbers: Numbers) -> list[str]:
    """Name everything that must be on record and is not.

    The trail as a whole shows a bulk statement as one record; asked for one object, it shows its row.
    """
    entries = ask("--log=audit") + ask("--log=activity") + ask("--log=pageview")
    if len(entries) >= 20:  # else it is too early for the details
        entries += ask("--target", ASSAM) + ask("--target", f"shop.Order/{numbers.kept}")
    return [
        expected.what
        for expected in expectations(numbers)
        if sum(rows(entry) for entry in entries if expected.recognised(entry)) < expected.at_least
    ]


def rows(entry: Entry) -> int:
    """Say how many rows an entry is about."""
    return 1 if entry.get("ordinal") else max(1, entry.get("rows", 0))


def address(entry: Entry) -> str:
    """Return the target as ``type/id``."""
    target = entry.get("target") or {}
    return f"{target.get('type', '')}/{target.get('id', '')}".rstrip("/")


def changed(entry: Entry) -> dict[str, tuple[str | None, str]]:
    """Return field to (old, new)."""
    return {change["field"]: (change.get("old"), change.get("new")) for change in entry.get("changes", ())}
