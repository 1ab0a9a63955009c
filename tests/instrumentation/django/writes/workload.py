"""A random workload on the warehouse: every way Django writes, with fresh and with stale instances.

Steps are methods of :class:`Workload` named ``step_*``; the driver runs each in autocommit, in a transaction
or in a savepoint, and takes some of them back.
"""

from __future__ import annotations

import copy
import datetime
import pickle
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.core import serializers
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Case, Count, F, Value, When
from django.db.models.functions import Concat
from django.utils import timezone

from tests.instrumentation.django.warehouse.models import (
    Box,
    Color,
    Item,
    ItemOnSale,
    Kiosk,
    Pallet,
    Place,
    Reading,
    Sealed,
    Shop,
    Stock,
    Supplier,
    Vault,
)


class TakenBack(Exception):
    """Raised to roll a step back."""


class Workload:
    """``held`` are instances kept over many steps, so that they grow stale."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.held: list[Any] = []
        self.serial = 0
        self.errors = 0
        self.ran: dict[str, int] = {}
        self.steps: list[tuple[str, Callable[[], None]]] = [
            (name, getattr(self, name)) for name in sorted(dir(self)) if name.startswith("step_")
        ]

    # --- the driver ----------------------------------------------------------------------------

    def run(self) -> str:
        """Run one random step one random way; give both their names."""
        name, step = self.random.choice(self.steps)
        way = self.random.choice(
            [
                "autocommit",
                "atomic",
                "atomic",
                "savepoint",
                "rolled_back",
                "savepoint_undone",
                "retried",
                "several",
            ]
        )
        self.ran[name] = self.ran.get(name, 0) + 1
        try:
            getattr(self, f"_{way}")(step)
        except TakenBack:
            pass
        except (DatabaseError, ValueError):
            self.errors += 1
        return f"{name} {way}"

    def _autocommit(self, step: Callable[[], None]) -> None:
        step()

    def _atomic(self, step: Callable[[], None]) -> None:
        with transaction.atomic():
            step()

    def _savepoint(self, step: Callable[[], None]) -> None:
        with transaction.atomic():
            with transaction.atomic():
                step()
            self.random.choice(self.steps)[1]()

    def _rolled_back(self, step: Callable[[], None]) -> None:
        with transaction.atomic():
            step()
            raise TakenBack

    def _savepoint_undone(self, step: Callable[[], None]) -> None:
        with transaction.atomic():
            try:
                with transaction.atomic():
                    step()
                    raise TakenBack
            except (TakenBack, DatabaseError):
                pass
            self.random.choice(self.steps)[1]()

    def _retried(self, step: Callable[[], None]) -> None:
        instance = self._instance()
        self._touch(instance)
        try:
            with transaction.atomic():
                instance.save()
                step()
                raise TakenBack
        except (TakenBack, DatabaseError):
            pass
        with transaction.atomic():
            instance.save()

    def _several(self, step: Callable[[], None]) -> None:
        with transaction.atomic():
            step()
            for _ in range(self.random.randint(1, 3)):
                self.random.choice(self.steps)[1]()

    # --- material ------------------------------------------------------------------------------

    def _text(self) -> str:
        self.serial += 1
        return f"{self.random.choice(['pear', 'plum', 'fig', 'ünï'])}{self.serial}"

    def _one(self, model: Any) -> Any:
        keys = list(model._base_manager.order_by("pk").values_list("pk", flat=True))
        if not keys:
            return self._new(model)
        return model._base_manager.get(pk=self.random.choice(keys))

    def _some(self, model: Any) -> Any:
        keys = list(model._base_manager.order_by("pk").values_list("pk", flat=True))
        return model._base_manager.filter(pk__in=self.random.sample(keys, min(len(keys), 4)))

    def _new(self, model: Any) -> Any:
        values: dict[Any, Callable[[], dict[str, Any]]] = {  # type: ignore[assignment,no-untyped-call]
            Item: lambda: {"name": self._text(), "quantity": 1, "facts": {"n": 1, "list": [1, 2]}},
            Supplier: lambda: {"name": self._text()},
            Pallet: lambda: {"label": self._text()},
            Box: lambda: {"pallet": self._one(Pallet)},
            Kiosk: lambda: {"name": self._text(), "staff": 1, "hours": 2},
            Shop: lambda: {"name": self._text(), "staff": 1},
            Stock: lambda: {"code": self._text(), "shelf": self.serial},
            Reading: lambda: {"sensor": self.random.randint(1, 3), "at": self._number()},
            Sealed: lambda: {"base": self.random.randint(1, 9)},
            Vault: lambda: {"counter": 1},
        }[model]()
        return model._base_manager.create(**values)

    def _number(self) -> int:
        self.serial += 1
        return self.serial

    def _instance(self) -> Any:
        """An instance that may have been loaded long ago."""
        if self.held and self.random.random() < 0.6:
            return self.random.choice(self.held)
        instance = self._one(self.random.choice([Item, Item, Kiosk, Shop, Stock, Reading, Sealed, Vault]))
        self.held.append(instance)
        del self.held[:-12]
        return instance

    def _touch(self, instance: Any) -> None:
        """Change something, or nothing."""
        pick = self.random.random()
        if isinstance(instance, Item):
            changes: list[Callable[[], None]] = [
                lambda: setattr(instance, "quantity", self.random.randint(0, 5)),
                lambda: setattr(instance, "quantity", str(self.random.randint(0, 5))),
                lambda: setattr(instance, "price", self.random.choice(["1.50", 1.5, Decimal("2.345"), 3])),
                lambda: setattr(instance, "color", self.random.choice(list(Color))),
                lambda: setattr(
                    instance, "facts", self.random.choice([None, {"a": [1.5, True]}, "text", [1]])
                ),
                lambda: instance.facts.update(n=self.serial) if isinstance(instance.facts, dict) else None,
                lambda: setattr(instance, "weight", self.random.choice([None, 1, 0.1, 1e300])),
                lambda: setattr(instance, "active", self.random.choice([True, False, 1, "0"])),
                lambda: setattr(
                    instance,
                    "due",
                    self.random.choice(
                        [
                            None,
                            timezone.now(),
                            datetime.datetime(
                                2026, 5, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
                            ),
                        ]
                    ),
                ),
                lambda: setattr(instance, "blob", self.random.choice([None, b"\x00ab", memoryview(b"cd")])),
                lambda: setattr(instance, "serial", self.random.choice([uuid.uuid4(), str(uuid.uuid4())])),
                lambda: setattr(instance, "supplier", self._one(Supplier)),
            ]
            for change in self.random.sample(changes, self.random.randint(0, 3)):
                change()
        elif pick < 0.3:
            return
        elif isinstance(instance, Kiosk):
            instance.hours = self.random.randint(0, 9)
            instance.rating = self.random.randint(0, 3)
        elif isinstance(instance, Place):
            instance.name = self._text()
        elif isinstance(instance, Stock):
            instance.note = self._text()
        elif isinstance(instance, Reading):
            instance.value = self.random.randint(0, 9)
        elif isinstance(instance, Sealed):
            instance.base = self.random.randint(0, 9)
        elif isinstance(instance, Vault):
            instance.counter = self.random.randint(0, 9)

    # --- instances -----------------------------------------------------------------------------

    def step_create(self) -> None:
        model = self.random.choice([Item, Supplier, Pallet, Box, Kiosk, Shop, Stock, Reading, Sealed, Vault])
        self.held.append(self._new(model))

    def step_save(self) -> None:
        instance = self._instance()
        self._touch(instance)
        instance.save()

    def step_save_twice(self) -> None:
        instance = self._instance()
        for _ in range(2):
            self._touch(instance)
            instance.save()

    def step_save_update_fields(self) -> None:
        item = self._one(Item)
        item.quantity += 1
        item.name = self._text()
        item.save(update_fields=self.random.choice([["quantity"], ["name", "quantity"], ["supplier"]]))

    def step_save_expression(self) -> None:
        item = self._one(Item)
        item.quantity = F("quantity") + 1
        item.save()
        if self.random.random() < 0.5:
            item.refresh_from_db()
            item.name = self._text()
            item.save()

    def step_save_changed_key(self) -> None:
        item = self._one(Item)
        item.pk = self.random.choice([None, self._one(Item).pk])
        item.name = self._text()
        item.save()

    def step_save_by_hand(self) -> None:
        """An instance that was never loaded, with the key of a row that is (or is not) there."""
        Stock(
            code=self.random.choice([self._one(Stock).code, self._text()]),
            shelf=self._number(),
            note=self._text(),
        ).save()

    def step_save_copy(self) -> None:
        item = self._one(Item)
        other = copy.copy(item)
        other.quantity += 1
        other.save()
        item.name = self._text()
        item.save()

    def step_save_two_instances(self) -> None:
        one = self._one(Item)
        two = Item.objects.get(pk=one.pk)
        one.quantity += 3
        one.save()
        two.name = self._text()
        two.save()

    def step_save_unpickled(self) -> None:
        item = pickle.loads(pickle.dumps(self._one(Item)))
        item.quantity += 1
        item.save()

    def step_save_deferred(self) -> None:
        key = self._one(Item).pk
        item = self.random.choice([Item.objects.only("name"), Item.objects.defer("quantity", "facts")]).get(
            pk=key
        )
        item.quantity = self.random.randint(0, 9)
        item.save()

    def step_save_after_update(self) -> None:
        """What an overridden save() that updates its own row does."""
        instance = self._instance()
        column = {Item: "quantity", Kiosk: "hours", Reading: "value", Vault: "counter"}.get(type(instance))
        if column is not None:
            type(instance)._base_manager.filter(pk=instance.pk).update(**{column: 77})
        instance.save()

    def step_save_after_refresh(self) -> None:
        item = self._one(Item)
        Item.objects.filter(pk=item.pk).update(quantity=F("quantity") + 1, name=self._text())
        item.refresh_from_db(fields=self.random.choice([None, ["quantity"]]))
        item.quantity += 1
        item.save()

    def step_save_raw(self) -> None:
        instance = self._one(self.random.choice([Item, Kiosk, Stock]))
        for one in serializers.deserialize("json", serializers.serialize("json", [instance])):
            one.object.name = one.object.note = self._text()  # type: ignore[attr-defined]
            one.save()

    def step_save_in_conflict(self) -> None:
        """A save the database refuses."""
        one, two = self._new(Stock), self._new(Stock)
        two.shelf = one.shelf
        try:
            with transaction.atomic():
                two.save()
        except IntegrityError:
            two.shelf = self._number()
            two.save()

    def step_proxy(self) -> None:
        item = ItemOnSale.objects.get(pk=self._one(Item).pk)
        item.price = Decimal(self.random.randint(1, 9))
        item.save()
        ItemOnSale.objects.filter(pk=item.pk).update(quantity=self.random.randint(0, 5))

    def step_get_or_create(self) -> None:
        Stock.objects.get_or_create(
            code=self.random.choice(["fixed", self._text()]), defaults={"shelf": self._number()}
        )
        Supplier.objects.update_or_create(
            name="fixed", defaults={"name": self.random.choice(["fixed", self._text()])}
        )

    # --- deletes -------------------------------------------------------------------------------

    def step_delete(self) -> None:
        self._one(self.random.choice([Item, Pallet, Kiosk, Stock, Reading, Sealed])).delete()

    def step_delete_set_null(self) -> None:
        supplier = self._new(Supplier)
        self._some(Item).update(supplier=supplier)
        supplier.delete()

    def step_delete_query(self) -> None:
        self._some(self.random.choice([Item, Box, Place, Stock, Reading, Sealed])).delete()

    def step_delete_joined(self) -> None:
        Box.objects.filter(pallet__label__startswith="f").delete()

    def step_raw_delete(self) -> None:
        queryset = self._some(Sealed)
        queryset._raw_delete(queryset.db)

    # --- bulk ----------------------------------------------------------------------------------

    def step_bulk_create(self) -> None:
        Item.objects.bulk_create(
            [Item(name=self._text(), price=self.random.choice(["1.005", 2.5])) for _ in range(5)],
            batch_size=self.random.choice([None, 2]),
        )
        Sealed.objects.bulk_create([Sealed(base=n) for n in range(3)])

    def step_bulk_create_ignoring(self) -> None:
        Stock.objects.bulk_create(
            [Stock(code=code, shelf=self._number()) for code in ("fixed", self._text(), self._text())],
            ignore_conflicts=True,
        )

    def step_upsert(self) -> None:
        Stock.objects.bulk_create(
            [
                Stock(code=code, shelf=self._number(), note=self._text())
                for code in {"fixed", self._text(), self._one(Stock).code}
            ],
            update_conflicts=True,
            unique_fields=["code"],
            update_fields=["note"],
        )

    def step_bulk_update(self) -> None:
        items = list(self._some(Item))
        for item in items:
            item.quantity = self.random.randint(0, 3)
            item.facts = {"bulk": self._number()}
        Item.objects.bulk_update(items, ["quantity", "facts"])

    def step_update(self) -> None:
        self._some(Item).update(
            color=self.random.choice(["red", "blue"]), weight=self.random.choice([None, 0.5]), facts={"u": 1}
        )

    def step_update_expression(self) -> None:
        self._some(Item).update(
            quantity=F("quantity") + 1,
            name=Concat(F("name"), Value("!")),
            price=Case(When(quantity__gt=2, then=Value(Decimal("9.99"))), default=F("price")),
        )

    def step_update_joined(self) -> None:
        Item.objects.filter(supplier__name__startswith="f").update(quantity=self.random.randint(0, 9))
        Pallet.objects.annotate(n=Count("items")).filter(n__gt=0).update(label=self._text()[:50])

    def step_update_inherited(self) -> None:
        self._some(Kiosk).update(hours=F("hours") + 1, rating=5, name=self._text())
        self._some(Shop).update(rating=self.random.randint(0, 4))

    def step_update_composite(self) -> None:
        Reading.objects.filter(sensor=self.random.randint(1, 3)).update(value=F("value") + 1)

    def step_update_nothing(self) -> None:
        Item.objects.filter(pk=-1).update(quantity=1)
        Item.objects.none().update(quantity=1)
        item = self._one(Item)
        Item.objects.filter(pk=item.pk).update(quantity=item.quantity)

    # --- relations -----------------------------------------------------------------------------

    def step_many_to_many(self) -> None:
        pallet = self._one(Pallet)
        items = list(self._some(Item)) or [self._new(Item)]
        self.random.choice(
            [
                lambda: pallet.items.add(*items),
                lambda: pallet.items.set(items),
                lambda: pallet.items.remove(*items),
                pallet.items.clear,
                lambda: pallet.items.create(name=self._text()),
                lambda: items[0].pallet_set.add(pallet),
            ]
        )()

    def step_reverse_key(self) -> None:
        supplier = self._one(Supplier)
        items = list(self._some(Item)) or [self._new(Item)]
        supplier.items.add(*items)
        self.random.choice(
            [
                lambda: supplier.items.remove(items[0]),
                supplier.items.clear,
                lambda: supplier.items.set(items[:1]),
            ]
        )()

    def step_order(self) -> None:
        pallet = self._new(Pallet)
        boxes = [Box.objects.create(pallet=pallet, number=n) for n in range(3)]
        pallet.set_box_order([box.pk for box in reversed(boxes)])
