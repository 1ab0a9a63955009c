"""What is done to make the records: each way of writing, reading and logging in once per round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from django.contrib.auth import authenticate, get_user_model
from django.db import DatabaseError, connection, transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Concat, Upper
from django.test import Client
from opentelemetry import trace

import otel_audit
from benchmarks.corpus.chance import Chance
from benchmarks.corpus.models import (
    Article,
    Box,
    Card,
    Exact,
    Odd,
    Pallet,
    Place,
    Plain,
    Reading,
    Shop,
    Snapshot,
    Stock,
    Supplier,
    Tag,
    Thing,
    Unaudited,
    Watched,
)

_tracer = trace.get_tracer("benchmarks.corpus")


class _Undo(Exception):
    """Rolls a transaction back."""


@contextmanager
def _rolled_back() -> Iterator[None]:
    with suppress(_Undo), transaction.atomic():
        yield
        raise _Undo


def prepare() -> None:
    """Make the rows that all rounds share."""
    users = get_user_model().objects
    users.create_user("ana", "ana@tea.example", "correct horse", is_staff=True)
    users.create_user("ben", "ben@tea.example", "battery staple")
    Supplier.objects.bulk_create(Supplier(name=f"supplier {number}") for number in range(5))
    Tag.objects.bulk_create(Tag(name=f"tag {number}") for number in range(10))
    Watched.objects.bulk_create(Watched(name=f"watched {number}", secret="x") for number in range(30))


def creates(chance: Chance) -> None:
    with transaction.atomic():
        for _ in range(6):
            Article.objects.create(**chance.article(), supplier_id=chance.randint(1, 5))
            Plain.objects.create(**chance.plain())
        Card.objects.create(**chance.card())
        Supplier(name=chance.text(), api_token=chance.text()).save()
        Odd.objects.create(id=chance.uuid(), hidden=chance.text()[:90], base=chance.randint(0, 99))
        Shop.objects.create(name=chance.text(), staff=3)
    Plain.objects.create(**chance.plain())
    Article.objects.create(**chance.article())
    Plain(id=10**6 + chance.randint(0, 10**9), name="a key of its own").save(force_insert=True)
    Plain.objects.get_or_create(name=f"only one {chance.randint(0, 50)}", defaults={"count": 1})
    Plain.objects.update_or_create(name=f"only one {chance.randint(0, 50)}", defaults={"count": 2})


def _change(chance: Chance, row: Any, values: dict[str, Any]) -> None:
    for name in chance.sample(sorted(values), chance.randint(1, min(3, len(values)))):
        setattr(row, name, values[name])


def saves(chance: Chance) -> None:
    articles = list(Article.objects.order_by("-pk")[:20])
    plain = list(Plain.objects.order_by("-pk")[:20])
    with transaction.atomic():
        for row in chance.sample(articles, min(6, len(articles))):
            _change(chance, row, chance.article())
            row.save()
        for row in chance.sample(plain, min(6, len(plain))):
            _change(chance, row, chance.plain())
            row.save()
        card = Card.objects.order_by("-pk")[0]
        _change(chance, card, chance.card())
        card.save()
    for row in chance.sample(articles, min(3, len(articles))):
        _change(chance, row, chance.article())
        row.save(update_fields=["name", "stock", "facts"])
    plain[0].count += 1
    plain[0].save()
    plain[0].save()  # changes nothing
    plain[1].name = None  # type: ignore[assignment]
    with suppress(DatabaseError), transaction.atomic():
        plain[1].save()


def saves_in_doubt(chance: Chance) -> None:
    """Save what another instance, an update or a rollback has changed meanwhile; and what was deferred."""
    first, second = (Plain.objects.order_by("-pk")[0] for _ in range(2))
    with transaction.atomic():
        first.name, second.note = chance.text(), chance.text()
        first.save()
        second.save()
        Plain.objects.filter(pk=first.pk).update(count=F("count") + 1)
        first.note = chance.text()
        first.save()
    with _rolled_back():
        first.count = 5
        first.save()
    first.save()
    partial = Article.objects.only("name").order_by("-pk")[0]
    partial.name = chance.text()
    partial.save()
    partial = Article.objects.defer("facts", "description").order_by("-pk")[0]
    partial.stock = chance.randint(0, 99)
    partial.save()
    partial.refresh_from_db(fields=["facts"])
    partial.facts = chance.json()
    partial.save()
    unknown = Plain(pk=first.pk, name=chance.text(), count=1)
    unknown.save()
    article = Article.objects.order_by("-pk")[0]
    if isinstance(article.facts, dict):
        article.facts["changed in place"] = chance.json()
    article.save()


def kinds_of_models(chance: Chance) -> None:
    """Save where old values are exact, rows whole, keys composite, tables two."""
    for model in (Exact, Snapshot):
        row = model.objects.create(name=chance.text())
        row.count, row.name = 3, chance.text()
        row.save()
        row = model.objects.get(pk=row.pk)
        row.count += 1
        row.save(update_fields=["count"])
        model.objects.filter(pk=row.pk).update(name=chance.text())
    snapshot = Snapshot.objects.order_by("-pk")[0]
    snapshot.facts = chance.json()
    snapshot.save()
    sensor = chance.randint(0, 10**9)
    Reading.objects.create(sensor=sensor, at=1, value=2)
    reading = Reading.objects.get(pk=(sensor, 1))
    reading.value = chance.randint(3, 99)
    reading.save()
    Reading.objects.filter(sensor=sensor).update(value=F("value") + 1)
    reading.delete()
    shop = Shop.objects.create(name=chance.text(), rating=1, staff=2)
    shop.rating, shop.staff = 2, 3
    shop.save()
    Shop.objects.filter(pk=shop.pk).update(rating=4, staff=5)
    Place.objects.filter(pk=shop.pk).update(name=chance.text())
    shop.delete()
    odd = Odd.objects.create(id=chance.uuid(), hidden=chance.text()[:90])
    odd.hidden, odd.base = chance.text()[:90], 7
    odd.save()
    odd.delete()
    Unaudited.objects.create(name="nobody's")


def expressions(chance: Chance) -> None:
    row = Plain.objects.create(**chance.plain())
    row.count = F("count") + 1
    row.name = Upper("name")
    row.save()
    row = Plain.objects.get(pk=row.pk)
    row.count = Value(chance.randint(0, 99))
    row.save()
    with transaction.atomic():
        rows = Plain.objects.filter(pk__gt=row.pk - 3, pk__lte=row.pk)
        rows.update(count=F("count") * 2, note=Concat("name", Value("!")))
        rows.update(name=Case(When(count__gt=5, then=Value("many")), default=Value("few")))


def deletes(chance: Chance) -> None:
    with transaction.atomic():
        for _ in range(3):
            Plain.objects.create(**chance.plain()).delete()
        for row in list(Article.objects.order_by("-pk")[:2]):
            row.delete()
        Card.objects.create(**chance.card()).delete()
        pallet = Pallet.objects.create(label=chance.text()[:50])
        boxes = [Box.objects.create(pallet=pallet, number=number) for number in range(2)]
        Thing.objects.bulk_create(Thing(box=box, name="thing") for box in boxes)
    pallet.delete()
    Plain.objects.create(**chance.plain()).delete()
    supplier = Supplier.objects.create(name=chance.text())
    Article.objects.create(**chance.article(), supplier=supplier)
    supplier.delete()
    Plain(pk=-1).delete()  # is not there


def bulk(chance: Chance) -> None:
    for size in (1, 3, 12):
        with transaction.atomic():
            articles = Article.objects.bulk_create(Article(**chance.article()) for _ in range(size))
            keys = [row.pk for row in articles]
            Article.objects.filter(pk__in=keys).update(stock=F("stock") + 1, name=chance.text())
            for row in articles:
                _change(chance, row, chance.article())
            Article.objects.bulk_update(articles, ["name", "facts", "price"])
            Article.objects.filter(pk__in=keys).delete()
    cards = Card.objects.bulk_create(Card(**chance.card()) for _ in range(4))
    Card.objects.filter(pk__in=[card.pk for card in cards]).update(pin="1234", email=chance.text()[:90])
    Card.objects.filter(pk__in=[card.pk for card in cards[:2]]).delete()
    level = chance.randint(0, 10**9)
    stocks = [Stock(code=f"code-{level}-{number}", level=level + number) for number in range(3)]
    Stock.objects.bulk_create(stocks)
    Stock.objects.bulk_create(stocks, ignore_conflicts=True)
    for stock in stocks:
        stock.level += 10**9
    Stock.objects.bulk_create(stocks, update_conflicts=True, unique_fields=["code"], update_fields=["level"])
    Stock.objects.filter(level__gte=10**9).delete()
    Plain.objects.filter(pk=-1).update(name="nobody")
    Plain.objects.filter(pk=-1).delete()
    Plain.objects.bulk_create([])


def large_bulk(chance: Chance) -> None:
    """Write more rows than a record lists in full, and than it lists at all."""
    for size in (35, 70):
        rows = Plain.objects.bulk_create(Plain(**chance.plain()) for _ in range(size))
        keys = [row.pk for row in rows]
        Plain.objects.filter(pk__in=keys).update(note=chance.text())
        Plain.objects.filter(pk__in=keys).delete()


def many_to_many(chance: Chance) -> None:
    article = Article.objects.create(**chance.article())
    tags = list(Tag.objects.order_by("pk"))
    article.tags.add(*chance.sample(tags, 3))
    article.tags.set(chance.sample(tags, 2))
    article.tags.remove(tags[0])
    article.tags.add(tags[0], through_defaults={})
    article.tags.clear()
    tags[1].article_set.add(article)
    article.tags.create(name=chance.text()[:50])


def failures(chance: Chance) -> None:
    with _rolled_back():
        Article.objects.create(**chance.article())
        Plain.objects.filter(pk__lt=4).update(note=chance.text())
    level = chance.randint(0, 10**9)
    Stock.objects.create(code=f"a{level}", level=level)
    with suppress(DatabaseError):
        Stock.objects.create(code=f"b{level}", level=level)
    with suppress(DatabaseError), transaction.atomic():
        Stock.objects.create(code=f"c{level}", level=level + 1)
        Stock.objects.filter(code=f"c{level}").update(level=level)
    with suppress(DatabaseError), transaction.atomic():
        Plain.objects.bulk_create([Plain(name="a"), Plain(name=None)])  # type: ignore[misc]
    Stock.objects.filter(code__startswith="a").delete()


def nested(chance: Chance) -> None:
    with transaction.atomic():
        kept = Plain.objects.create(**chance.plain())
        with _rolled_back():
            kept.name = "undone"
            kept.save()
            with transaction.atomic():
                Plain.objects.create(**chance.plain())
        kept.refresh_from_db()
        with transaction.atomic():
            kept.note = chance.text()
            kept.save()
            with suppress(DatabaseError), transaction.atomic():
                Plain.objects.create(name=None)  # type: ignore[misc]
        savepoint = transaction.savepoint()
        kept.delete()
        transaction.savepoint_rollback(savepoint)
    with _rolled_back(), transaction.atomic():
        Plain.objects.create(**chance.plain())


def contexts(chance: Chance) -> None:
    """Change actor, reason and attributes within transactions."""
    with transaction.atomic():
        for _ in range(3):
            with otel_audit.context(
                actor=str(chance.randint(1, 50)), reason=chance.text(), branch=chance.text()
            ):
                row = Plain.objects.create(**chance.plain())
                with otel_audit.context(
                    on_behalf_of=chance.randint(1, 50), tenant=f"t{chance.randint(0, 3)}"
                ):
                    row.note = chance.text()
                    row.save()
                    with _tracer.start_as_current_span("inside"):
                        row.count += 1
                        row.save()
                with otel_audit.context(system="other", password="hunter2"):
                    row.delete()
    with _tracer.start_as_current_span("outside"), otel_audit.context(actor=otel_audit.Actor("x", "service")):
        Article.objects.create(**chance.article())
        with transaction.atomic():
            Plain.objects.create(**chance.plain())
            Plain.objects.filter(pk__lt=3).update(note=chance.text())


def own_records(chance: Chance) -> None:
    for _ in range(3):
        otel_audit.record(
            "shop.invoice.export",
            "EXPORT",
            target=otel_audit.Target("shop.Invoice", str(chance.randint(0, 99))),
            changes=[otel_audit.Change("state", chance.text(), chance.json())],
            message=chance.text(),
            attributes={"amount": chance.randint(0, 99), "note": chance.text(), "more": chance.json()},
        )
    otel_audit.record(
        "shop.invoice.fail",
        "EXECUTE",
        outcome="failure",
        error="ValueError",
        related=[otel_audit.Target("shop.Order", "7")],
        attributes={"odd": {1: float("nan"), "half": "\ud800", "set": {1}, "bytes": b"\xff"}},
        log="activity",
        event_type="billing",
        fields=["a", "b"],
    )
    otel_audit.record(
        "shop.large", "EXECUTE", attributes={"text": chance.long_text() * 20}, message="x" * 70_000
    )


def raw_sql(chance: Chance) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE corpus_plain SET note = %s WHERE id = %s", [chance.text(), 3])
        cursor.execute("DELETE FROM corpus_plain WHERE id = -1")
        cursor.execute("INSERT INTO corpus_tag (name) VALUES ('raw')")
    with _rolled_back(), connection.cursor() as cursor:
        cursor.execute("UPDATE corpus_supplier SET name = 'nobody' WHERE id = 1")


def reads(chance: Chance) -> None:
    list(Watched.objects.order_by("pk")[: chance.randint(1, 30)])
    Watched.objects.get(pk=chance.randint(1, 30))
    list(Watched.objects.order_by("pk").values("name", "secret")[:3])
    list(Watched.objects.order_by("pk").values_list("pk", flat=True)[:2])
    Watched.objects.filter(pk__lt=5).count()
    list(Watched.objects.filter(pk__lt=5).iterator())
    list(Plain.objects.order_by("pk")[:3])
    with transaction.atomic():
        row = Watched.objects.select_for_update().get(pk=chance.randint(1, 30))
        row.name = chance.text()
        row.save()


def requests(chance: Chance) -> None:
    client = Client(raise_request_exception=False, headers={"user-agent": f"Browser/{chance.randint(1, 3)}"})
    client.get("/watched/")
    client.get("/members/")
    client.post("/nope/")
    authenticate(username=chance.choice(("ana", "nobody")), password=chance.text())
    if client.login(username=chance.choice(("ana", "ben")), password="correct horse"):
        client.get("/members/")
    articles = Article.objects.order_by("-pk")[:5]
    for key in [row.pk for row in articles][:3]:
        client.post(f"/articles/{key}/", {"name": chance.text()})
        client.post(f"/nested/{key}/", {"name": chance.text()})
    with _tracer.start_as_current_span("request"):
        client.post("/fail/7/", {"name": chance.text()})
        client.post("/articles/3/", {"name": chance.text()})
    client.get("/refused/")
    client.logout()


WORK: Final[tuple[Callable[[Chance], None], ...]] = (
    creates,
    saves,
    saves_in_doubt,
    kinds_of_models,
    expressions,
    deletes,
    bulk,
    large_bulk,
    many_to_many,
    failures,
    nested,
    contexts,
    own_records,
    raw_sql,
    reads,
    requests,
)
