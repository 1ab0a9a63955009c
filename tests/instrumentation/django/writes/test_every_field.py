"""Every type of field, written every way, by stale instances, several threads and retries: told as it is."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Concat

from otel_audit.config.model import ModelConfig
from tests.attack.effort import counted, effort
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.writes import truth
from tests.instrumentation.django.writes.specimens import APP, Values, specimens
from tests.instrumentation.django.writes.witness import Models, Row, balance, compare, differ, replay, rows_of

Step = Callable[[], None]

CONFIG: Final[dict[str, Any]] = {
    "models": [f"{APP}.*"],
    # Masked by default, as a field that says that it encrypts.
    "model": {f"{APP}.*": ModelConfig(fields={"motto": "keep"})},
}


class TakenBack(Exception):
    """Raised to roll a step back."""


# --- what is written -----------------------------------------------------------------------------


class Workload:
    """Random writes to random rows; ``held`` are instances kept over many steps, so that they grow stale."""

    def __init__(self, made: Models, seed: int) -> None:
        self.models = made
        self.random = random.Random(seed)
        self.values = Values(self.random)
        self.held: list[Any] = []
        self.ran: Counter[str] = Counter()
        self.errors: list[DatabaseError] = []
        self.retries = 0
        self.steps: list[Step] = [
            getattr(self, name) for name in sorted(dir(self)) if name.startswith("step_")
        ]
        self.ways = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("way_")]

    def run(self) -> str:
        """Run one random step one random way, as often as the database asks for; return both their names."""
        way, step = self.random.choice(self.ways), self.random.choice(self.steps)
        self.ran[step.__name__] += 1
        state = self.random.getstate()
        for _ in range(8):
            try:
                way(step)
                break
            except TakenBack:
                break
            except OperationalError as error:  # a deadlock, a serialization failure, a lock not granted
                self.errors.append(error)
                self.retries += 1
                self.random.setstate(state)  # the same again, with the instances as they are now
            except (DatabaseError, ValueError) as error:
                if isinstance(error, DatabaseError):
                    self.errors.append(error)
                break
        return f"{step.__name__} {way.__name__}"

    def way_autocommit(self, step: Step) -> None:
        step()

    def way_atomic(self, step: Step) -> None:
        with transaction.atomic():
            step()
            self.random.choice(self.steps)()

    def way_savepoint(self, step: Step) -> None:
        with transaction.atomic():
            with transaction.atomic():
                step()
            self.random.choice(self.steps)()

    def way_savepoint_undone(self, step: Step) -> None:
        with transaction.atomic():
            try:
                with transaction.atomic():
                    step()
                    raise TakenBack
            except TakenBack:
                pass
            self.random.choice(self.steps)()

    def way_rolled_back_and_again(self, step: Step) -> None:
        instance = self._instance()
        self._touch(instance)
        try:
            with transaction.atomic():
                instance.save()
                step()
                raise TakenBack
        except TakenBack:
            pass
        with transaction.atomic():
            instance.save()

    def way_manual_savepoints(self, step: Step) -> None:
        with transaction.atomic():
            first = transaction.savepoint()
            step()
            transaction.savepoint_rollback(first)
            self.random.choice(self.steps)()
            transaction.savepoint_commit(first)

    # --- material --------------------------------------------------------------------------------

    def _model(self) -> Any:
        # The first has most fields.
        return self.random.choice([self.models[0], *self.models])

    def _writable(self, model: Any) -> list[Any]:
        return [
            field
            for field in model._meta.local_concrete_fields
            if not (field.primary_key or field.generated or field in model._meta.pk_fields)
            and not getattr(field, "auto_now", False)
            and not getattr(field, "auto_now_add", False)
        ]

    def _value(self, field: Any) -> Any:
        if field.name in _SHAPED and not (field.null and self.random.random() < 0.15):
            return self.values.shaped(field.name)
        return self.values.of(field)

    def _some_values(self, model: Any) -> Row:
        fields = self._writable(model)
        picked = self.random.sample(fields, self.random.randint(1, min(4, len(fields))))
        return {field.name: self._value(field) for field in picked}

    def _key(self, model: Any) -> Row:
        key: dict[str, Callable[[], Row]] = {
            "Paired": lambda: {"at": self.values.moment(), "row": self.random.choice(["1.5", Decimal(2)])},
            "Tagged": lambda: {"code": f"Tag{self.random.randrange(12)}"},
        }
        return key.get(model.__name__, dict)()

    def _new(self, model: Any) -> Any:
        return model(
            name=self.values.text(), **self._key(model), **_without(self._some_values(model), "name")
        )

    def _pks(self, model: Any, most: int = 3) -> list[Any]:
        pks = sorted(model.objects.values_list("pk", flat=True), key=str)[:12]
        return self.random.sample(pks, min(len(pks), most))

    def _one(self, model: Any) -> Any:
        pks = self._pks(model, 1)
        found = model.objects.filter(pk=pks[0]).first() if pks else None
        if found is None:
            found = self._new(model)
            found.save(force_insert=True)
        return found

    def _some(self, model: Any) -> Any:
        return model.objects.filter(pk__in=self._pks(model))

    def _instance(self) -> Any:
        """An instance that may have been loaded long ago."""
        if self.held and self.random.random() < 0.6:
            return self.random.choice(self.held)
        instance = self._one(self._model())
        self.held.append(instance)
        del self.held[:-10]
        return instance

    def _touch(self, instance: Any) -> None:
        for name, value in self._some_values(type(instance)).items():
            setattr(instance, name, value)

    # --- steps -----------------------------------------------------------------------------------

    def step_create(self) -> None:
        model = self._model()
        self.held.append(
            model.objects.create(
                **self._key(model), **self._some_values(model) | {"name": self.values.text()}
            )
        )

    def step_create_with_an_expression(self) -> None:
        model = self._model()
        model.objects.create(**self._key(model), name=Concat(Value("Q"), Value(self.values.text()[:20])))

    def step_save(self) -> None:
        instance = self._instance()
        self._touch(instance)
        instance.save()

    def step_save_twice(self) -> None:
        instance = self._instance()
        for _ in range(2):
            self._touch(instance)
            instance.save()

    def step_save_nothing_new(self) -> None:
        self._instance().save()

    def step_save_some_fields(self) -> None:
        instance = self._one(self._model())
        values = self._some_values(type(instance))
        for name, value in values.items():
            setattr(instance, name, value)
        instance.save(update_fields=list(values))

    def step_save_by_hand(self) -> None:
        model = self._model()
        pks = self._pks(model, 1)
        if pks:
            instance = self._new(model)
            instance.pk = pks[0]
            instance.save()

    def step_save_deferred(self) -> None:
        model = self._model()
        pks = self._pks(model, 1)
        instance = model.objects.only("name").filter(pk__in=pks).first()
        if instance is not None:
            self._touch(instance)
            instance.save()

    def step_save_an_expression(self) -> None:
        instance = self._one(self.models[0])
        instance.number = F("number") + 1
        instance.save()

    def step_save_under_a_lock(self) -> None:
        with transaction.atomic():
            for instance in self._some(self._model()).select_for_update():
                self._touch(instance)
                instance.save()

    def step_save_two_rows(self) -> None:
        """In any order: two threads may wait for each other."""
        with transaction.atomic():
            for pk in self._pks(self.models[0], 2):
                instance = self.models[0].objects.filter(pk=pk).first()
                if instance is not None:
                    self._touch(instance)
                    instance.save()

    def step_get_or_create(self) -> None:
        model = self._model()
        name = f"fixed{self.random.randrange(3)}"
        if model.objects.filter(name=name).count() < 2:
            model.objects.get_or_create(name=name, defaults=self._key(model))

    def step_update_or_create(self) -> None:
        model = self._model()
        name = f"fixed{self.random.randrange(3)}"
        if model.objects.filter(name=name).count() < 2:
            values = _without(self._some_values(model), "name")
            model.objects.update_or_create(
                name=name, defaults=values, create_defaults=values | self._key(model)
            )

    def step_update(self) -> None:
        model = self._model()
        values = {
            name: value
            for name, value in self._some_values(model).items()
            if type(model._meta.get_field(name)).__name__ != "InitialField"
        }
        if values:
            self._some(model).update(**values)

    def step_update_with_expressions(self) -> None:
        self._some(self._model()).update(name=Concat(F("name"), Value("!")))
        self._some(self.models[0]).update(
            number=Case(When(number__gt=4, then=Value(0)), default=F("number") + 2), big=F("small")
        )

    def step_bulk_create(self) -> None:
        model = self._model()
        model.objects.bulk_create(
            [self._new(model) for _ in range(3)], batch_size=self.random.choice([None, 2])
        )

    def step_bulk_create_ignoring(self) -> None:
        model = self._model()
        model.objects.bulk_create([self._new(model) for _ in range(3)], ignore_conflicts=True)

    def step_upsert(self) -> None:
        model = self.models[3]  # Tagged: its key is not the database's to make
        rows = {row.code.lower(): row for row in (self._new(model) for _ in range(3))}
        named = connection.features.supports_update_conflicts_with_target
        model.objects.bulk_create(
            list(rows.values()),
            update_conflicts=True,
            update_fields=["name", "amount"],
            unique_fields=["code"] if named else None,
        )

    def step_bulk_update(self) -> None:
        model = self._model()
        rows = list(self._some(model))
        fields = self.random.sample(self._writable(model), min(3, len(self._writable(model))))
        for row in rows:
            for field in fields:
                setattr(row, field.name, self._value(field))
        model.objects.bulk_update(rows, [field.name for field in fields])

    def step_delete(self) -> None:
        if self.random.random() < 0.4:
            self._instance().delete()

    def step_delete_some(self) -> None:
        if self.random.random() < 0.3:
            self._some(self._model()).delete()


_SHAPED: Final = frozenset(
    {"numbers", "grid", "prices", "names", "moments", "span", "amounts", "period", "days"}
)


def _without(values: Row, name: str) -> Row:
    return {key: value for key, value in values.items() if key != name}


# --- the tests -----------------------------------------------------------------------------------


@pytest.fixture
def made(vendor: str) -> Iterator[Models]:
    with specimens() as found:
        tables = [model._meta.db_table for model in found]
        if vendor == "postgresql":
            truth.install_triggers(tables)
        yield found
        if vendor == "postgresql":
            truth.remove_triggers(tables)


@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
@effort(100, 3000)
def test_the_trail_leads_from_the_rows_before_to_the_rows_after(
    vendor: str, made: Models, old_values: str, rounds: int
) -> None:
    """One thread: after each step, in the order of the records."""
    workload = Workload(made, seed=rounds)
    with auditing(old_values=old_values, **CONFIG) as audit:
        rows = rows_of(made)
        for number in range(rounds):
            what = workload.run()
            records = audit.records
            audit.clear()
            after = rows_of(made)
            trail = replay(made, rows, records)
            assert trail == after, f"{number} {what}: {differ(trail, after)}"
            if vendor == "postgresql":
                compare(made, records)
            rows = after
    counted(f"steps on every type of field, {vendor}", rounds)
    assert len(workload.ran) > 15
    assert rows
    assert len(workload.errors) < rounds / 3, Counter(map(str, workload.errors)).most_common(5)


@effort(30, 1000)
def test_several_threads_that_retry_tell_what_the_rows_hold(vendor: str, made: Models, rounds: int) -> None:
    """Threads that write the same rows and wait for each other; what the database refuses is done again."""
    write_in_threads(vendor, made, rounds)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("vendor", ["postgresql"], indirect=True)
@effort(15, 500)
def test_stricter_isolation_takes_back_more_and_what_is_told_stays_true(
    vendor: str, made: Models, level: str, rounds: int
) -> None:
    """PostgreSQL ends transactions that have read what another has written meanwhile."""
    default = f"ALTER DATABASE {connection.settings_dict['NAME']} {{}} default_transaction_isolation"
    with connection.cursor() as cursor:
        cursor.execute(f"{default.format('SET')} TO '{level}'")
    try:
        write_in_threads(vendor, made, rounds)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(default.format("RESET"))


def write_in_threads(vendor: str, made: Models, rounds: int) -> None:
    """Let four threads write, each over a connection of its own, and compare records and rows."""
    workloads = [Workload(made, seed=rounds + n) for n in range(4)]
    if vendor == "mysql":  # it tells of no row of an upsert whether another connection has just made it
        for workload in workloads:
            workload.steps.remove(workload.step_upsert)
    faults: list[BaseException] = []

    def work(workload: Workload) -> None:
        try:
            for _ in range(rounds):
                workload.run()
        except BaseException as fault:  # noqa: BLE001 - shown below
            faults.append(fault)
        finally:
            connections.close_all()

    with auditing(old_values="exact", **CONFIG) as audit:
        before = rows_of(made)
        threads = [threading.Thread(target=work, args=[workload]) for workload in workloads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults, faults
        records, after = audit.records, rows_of(made)
    balance(made, before, after, records)
    if vendor == "postgresql":
        compare(made, records)
    counted(f"retries of threads, {vendor}", sum(workload.retries for workload in workloads))
    assert after
