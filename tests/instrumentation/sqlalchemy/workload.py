"""Random operations of every kind there is in SQLAlchemy that writes rows, each under a mark of its own."""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, attributes
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from otel_audit.audit_context import context
from tests.instrumentation.sqlalchemy.truth import Marks
from tests.instrumentation.sqlalchemy.zoo import (
    Base,
    Bike,
    Builder,
    Car,
    Creature,
    Keeper,
    Label,
    Line,
    Manager,
    Member,
    Mood,
    Point,
    Poster,
    Sheet,
    Tally,
    Vehicle,
    Visit,
    Voucher,
    stock,
)

T = TypeVar("T")

DISTURBED: Final = (DBAPIError, StaleDataError, ObjectDeletedError, InvalidRequestError)
"""What another session may do to one: locks it waits for in vain, rows that are gone."""

ATTEMPTS: Final = 3
"""Of a transaction that is disturbed again and again."""


class Undo(Exception):
    """An operation wants its transaction rolled back."""


class Operation(NamedTuple):
    """One kind of operation.

    ``level`` is the completeness of its records where that is not ``full``; ``unknown`` are columns whose
    values nobody but the database knows; ``alone`` ones need a connection without a transaction; ``counted``
    ones may be recorded by their number of rows: those whose keys the database makes and does not tell, those
    found by a table that another session writes meanwhile, and those of which another session deletes some.
    """

    name: str
    run: Callable[[Work], None]
    level: str = "full"
    unknown: Sequence[str] = ()
    needs: str = ""
    dialects: Sequence[str] = ()
    alone: bool = False
    counted: bool = False


OPERATIONS: dict[str, Operation] = {}


def operation(
    level: str = "full",
    *,
    unknown: Sequence[str] = (),
    needs: str = "",
    dialects: Sequence[str] = (),
    alone: bool = False,
    counted: bool = False,
) -> Callable[[Callable[[Work], None]], Callable[[Work], None]]:
    """Add a function to what the workload does; ``needs`` is an attribute of the dialect."""

    def add(run: Callable[[Work], None]) -> Callable[[Work], None]:
        name = run.__name__
        OPERATIONS[name] = Operation(name, run, level, unknown, needs, dialects, alone, counted)
        return run

    return add


class Work:
    """One task's: its random numbers, its session, and which operation each mark belongs to."""

    def __init__(self, seed: str, marks: Marks, *, only: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.marks = marks
        self.only = only
        self.did: dict[str, Operation] = {}
        self.ran: Counter[str] = Counter()
        self.disturbed: Counter[str] = Counter()
        self.retried = 0
        self._number = 0
        self.session: Session = None  # type: ignore[assignment] # while a transaction runs

    # --- what operations use

    @property
    def connection(self) -> Connection:
        return self.session.connection()

    @property
    def dialect(self) -> Any:
        return self.connection.dialect

    def number(self) -> int:
        self._number += 1
        return self._number

    def word(self) -> str:
        return f"{self.seed}-{self.number()}"

    def chance(self, part: float = 0.5) -> bool:
        return self.random.random() < part

    def few(self, most: int = 4) -> range:
        return range(self.random.randint(1, most))

    def some(self, model: type[T], most: int = 4) -> list[T]:
        """Load a few objects, those made first more often."""
        mapper = inspect(model)
        assert mapper is not None
        count = self.session.scalar(select(func.count()).select_from(model)) or 0
        found = select(model).order_by(*mapper.primary_key).limit(self.random.randint(1, most))
        return list(self.session.scalars(found.offset(self.random.randrange(max(1, count)))))

    def keys(self, model: type[Any], most: int = 4) -> list[Any]:
        """Return the keys of a few rows, without loading objects."""
        mapper = inspect(model)
        key = mapper.primary_key[0]
        count = self.session.scalar(select(func.count()).select_from(mapper.local_table)) or 0
        found = select(key).order_by(key).limit(self.random.randint(1, most))
        return list(self.session.scalars(found.offset(self.random.randrange(max(1, count)))))

    def keeper(self, **values: Any) -> dict[str, Any]:
        """Return the values of a new keeper."""
        choose = self.random
        made: dict[str, Any] = {
            "title": self.word(),
            "rank": choose.choice([None, 1, 2, choose.randrange(1000)]),
            "amount": Decimal(choose.randrange(100_000)) / 100,
            "price": choose.choice([None, Decimal(choose.randrange(1000)) / 100]),
            "active": self.chance(),
            "mood": choose.choice(list(Mood)),
            "since": datetime.datetime(2026, 11, 1) + datetime.timedelta(seconds=choose.randrange(10**6)),
            "facts": choose.choice([None, {"a": self.number(), "b": [1, None, "ü"]}, [1, 2]]),
            "traits": {"n": self.number()},
            "numbers": choose.choice([None, [], [1, 2, self.number()]]),
            "wide": choose.choice([None, self.number()]),
        }
        return made | values

    def upsert(self, table: Any) -> Any:
        """Return the dialect's INSERT, which has the clause for conflicts."""
        name = self.dialect.name
        if name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as made
        elif name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as made  # type: ignore[assignment]
        else:
            from sqlalchemy.dialects.mysql import insert as made  # type: ignore[assignment]
        return made(table)

    # --- running

    def mark(self, connection: Connection, of: Operation) -> str:
        """Begin an operation: whatever is written from here on belongs to it."""
        mark = f"{self.seed}/{len(self.did)}"
        self.did[mark] = of
        self.marks.set(connection, mark)
        return mark

    def transaction(self, session: Session) -> None:
        """Run a few operations in a session, then commit or roll back.

        What another session has disturbed is tried again at times, as applications do: the same operations
        once more, in a transaction of their own.
        """
        self.session = session
        chosen: list[Operation] = []
        try:
            for attempt in range(ATTEMPTS):
                if not self._disturbed(session, chosen):
                    return
                if attempt + 1 < ATTEMPTS and not self.chance(0.7):
                    return
                self.retried += attempt + 1 < ATTEMPTS
        finally:
            session.close()

    def _disturbed(self, session: Session, chosen: list[Operation]) -> bool:
        """Run the operations of the last attempt, or new ones; say whether another session was in the way."""
        try:
            if chosen:
                for operation in chosen:
                    self._one(operation)
            else:
                for _ in self.few(6):
                    chosen.append(self._choose())
                    self._one(chosen[-1])
            self._end()
        except Undo:
            session.rollback()
        except DISTURBED as error:
            self.disturbed[type(error).__name__] += 1
            session.rollback()
            return True
        return False

    def _end(self) -> None:
        end = Operation("the end of the transaction", lambda work: None)
        if self.chance(0.8):
            with context(reason=self.mark(self.connection, end)):
                self.session.commit()
        else:
            self.session.rollback()

    def _choose(self) -> Operation:
        names = [name for name in self.only or OPERATIONS if not OPERATIONS[name].alone]
        while True:
            chosen = OPERATIONS[self.random.choice(names)]
            if possible(chosen, self.dialect):
                return chosen

    def _one(self, chosen: Operation) -> None:
        with context(reason=self.mark(self.connection, chosen)):
            self.ran[chosen.name] += 1
            chosen.run(self)
            if self.chance(0.8):  # otherwise what comes next flushes
                self.session.flush()

    def alone(self, engine: Engine) -> None:
        """Run an operation that brings its own connection."""
        names = [name for name in self.only or OPERATIONS if OPERATIONS[name].alone]
        names = [name for name in names if possible(OPERATIONS[name], engine.dialect)]
        if not names:
            return
        chosen = OPERATIONS[self.random.choice(names)]
        self.ran[chosen.name] += 1
        self.engine, self.chosen = engine, chosen
        try:
            chosen.run(self)
        except DISTURBED as error:
            self.disturbed[type(error).__name__] += 1


def possible(chosen: Operation, dialect: Any) -> bool:
    """Say whether a database knows how."""
    if chosen.dialects and dialect.name not in chosen.dialects:
        return False
    return not chosen.needs or bool(getattr(dialect, chosen.needs))


# --- the unit of work --------------------------------------------------------------------------------


@operation()
def flush_inserts(work: Work) -> None:
    for _ in work.few():
        keeper = Keeper(**work.keeper())
        keeper.point = Point(work.number(), None)
        keeper.animals = [
            Creature(title=work.word(), visits=[Visit(text=work.word()) for _ in work.few(2)])
            for _ in work.few(2)
        ]
        work.session.add(keeper)


@operation()
def flush_inserts_of_many(work: Work) -> None:
    work.session.add_all([Creature(title=work.word(), weight=n) for n in range(work.random.randrange(1, 40))])


@operation()
def flush_updates(work: Work) -> None:
    for keeper in work.some(Keeper):
        values = work.keeper()
        for name in work.random.sample(sorted(values), 3):
            setattr(keeper, name, values[name])


@operation()
def flush_updates_of_what_expired(work: Work) -> None:
    animals = work.some(Creature)
    work.session.flush()
    work.session.expire_all()
    for animal in animals:
        animal.title = work.word()
        if work.chance():
            animal.weight = work.number()


@operation()
def flush_updates_of_what_was_deferred(work: Work) -> None:
    for keeper in work.some(Keeper):
        keeper.story = work.word()


@operation()
def flush_updates_by_hybrid_and_composite(work: Work) -> None:
    for keeper in work.some(Keeper):
        keeper.width = work.number()
        keeper.point = Point(work.random.choice([None, 1]), work.number())


@operation()
def flush_of_nothing(work: Work) -> None:
    for animal in work.some(Creature):
        before = animal.title
        animal.title = "something else"
        animal.title = before
        animal.weight = animal.weight


@operation()
def documents_in_place(work: Work) -> None:
    for keeper in work.some(Keeper):
        keeper.traits["n"] = work.number()
        if keeper.facts and isinstance(keeper.facts, dict):
            keeper.facts["c"] = work.word()
            attributes.flag_modified(keeper, "facts")


@operation()
def flush_deletes(work: Work) -> None:
    for keeper in work.some(Keeper, 2):
        work.session.delete(keeper)


@operation()
def flush_deletes_with_cascade_by_the_database(work: Work) -> None:
    for animal in work.some(Creature, 2):
        work.session.expire(animal, ["visits"])
        work.session.delete(animal)


@operation()
def orphans(work: Work) -> None:
    for keeper in work.some(Keeper):
        if keeper.animals:
            keeper.animals.pop().visits.clear()
        keeper.animals.append(Creature(title=work.word()))


@operation()
def many_to_many(work: Work) -> None:
    labels = work.some(Label)
    for keeper in work.some(Keeper):
        if keeper.labels and work.chance():
            keeper.labels.pop()
        for label in labels:
            if label not in keeper.labels:
                keeper.labels.append(label)
        if work.chance(0.3):
            keeper.labels.append(Label(code=work.word(), text=None))


@operation()
def many_to_many_without_a_key(work: Work) -> None:
    keepers = work.some(Keeper)
    for keeper in keepers:
        if keeper.friends and work.chance():
            keeper.friends.remove(work.random.choice(keeper.friends))
        friend = work.random.choice(keepers)
        if friend not in keeper.friends:
            keeper.friends.append(friend)


@operation()
def composite_keys(work: Work) -> None:
    order = work.number() + 1_000_000 * work.random.randrange(1000)
    if work.session.get(Line, (order, 1)) is not None:
        return
    lines = [Line(order=order, number=n, quantity=work.number()) for n in range(1, 4)]
    work.session.add_all(lines)
    work.session.flush()
    lines[0].quantity += 1
    work.session.delete(lines[1])
    lines[2].number = 9  # another key


@operation()
def keys_that_change(work: Work) -> None:
    label = Label(code=work.word())
    work.session.add(label)
    work.session.flush()
    label.code, label.text = work.word(), work.word()


@operation()
def row_switch(work: Work) -> None:
    for label in work.some(Label, 1):
        if not label.keepers:
            work.session.delete(label)
            work.session.add(Label(code=label.code, text=work.word()))


@operation()
def joined_inheritance(work: Work) -> None:
    work.session.add(Manager(title=work.word(), level=work.number()))
    work.session.add(Builder(title=work.word(), tongue=work.word()))
    for person in work.some(Member):
        if isinstance(person, Manager):
            person.level = work.number()
        elif isinstance(person, Builder) and work.chance():
            person.tongue = work.word()
        else:
            person.title = work.word()
        if work.chance(0.2):
            work.session.delete(person)


@operation()
def single_table_inheritance(work: Work) -> None:
    work.session.add_all([Car(title=work.word(), doors=2), Bike(title=work.word(), gears=21)])
    for vehicle in work.some(Vehicle):
        vehicle.title = work.word()
        if isinstance(vehicle, Car):
            vehicle.doors = work.number()
        elif work.chance(0.2):
            work.session.delete(vehicle)


@operation()
def concrete_inheritance(work: Work) -> None:
    work.session.add_all([Sheet(title=work.word()), Poster(title=work.word(), size=work.number())])
    for poster in work.some(Poster):
        poster.size = work.number()


@operation()
def keys_made_by_python(work: Work) -> None:
    work.session.add(Voucher(count=work.number()))
    for voucher in work.some(Voucher):
        voucher.count += 1


@operation()
def merging(work: Work) -> None:
    for key in work.keys(Creature):
        work.session.merge(Creature(id=key, title=work.word()))


@operation(unknown=["weight"])
def expressions_in_a_flush(work: Work) -> None:
    for animal in work.some(Creature):
        animal.weight = func.coalesce(Creature.weight, 0) + 1
    work.session.flush()


# --- many at once, past the unit of work -------------------------------------------------------------


@operation(counted=True)
def bulk_save(work: Work) -> None:
    animals = [Creature(title=work.word()) for _ in work.few()]
    changed = work.some(Creature)
    work.session.flush()
    for animal in changed:
        work.session.expunge(animal)  # its session would write it again
        animal.title = work.word()
    work.session.bulk_save_objects(animals + changed, return_defaults=work.chance())


@operation(counted=True)
def bulk_mappings(work: Work) -> None:
    work.session.bulk_insert_mappings(
        inspect(Creature), [{"title": work.word(), "weight": work.number()} for _ in work.few(20)]
    )
    keys = work.keys(Creature)
    work.session.bulk_update_mappings(inspect(Creature), [{"id": key, "title": work.word()} for key in keys])


@operation(counted=True)
def insert_of_a_model(work: Work) -> None:
    rows = [work.keeper() for _ in work.few()]
    work.session.execute(insert(Keeper), [{"version": 1, **row} for row in rows])


@operation(needs="insert_executemany_returning")
def insert_of_a_model_returning(work: Work) -> None:
    titles = [work.word() for _ in work.few()]
    rows = [{"title": title, "weight": work.number()} for title in titles]
    made = work.session.scalars(insert(Creature).returning(Creature), rows).all()
    assert sorted(each.title for each in made) == sorted(titles)


@operation()
def update_of_a_model_by_key(work: Work) -> None:
    keys = work.keys(Creature)
    if keys:
        work.session.execute(update(Creature), [{"id": key, "title": work.word()} for key in keys])


@operation()
def update_of_a_model(work: Work) -> None:
    keys = work.keys(Creature, 10)
    how = work.random.choice(["auto", "fetch", False]) if work.dialect.name != "sqlite" else False
    statement = update(Creature).where(Creature.id.in_(keys)).values(title=work.word(), weight=work.number())
    work.session.execute(statement, execution_options={"synchronize_session": how})
    work.session.expire_all()


@operation()
def update_by_a_query(work: Work) -> None:
    query = work.session.query(Vehicle).filter(Vehicle.id.in_(work.keys(Vehicle)))
    query.update({"title": work.word()}, synchronize_session=False)
    work.session.expire_all()


@operation()
def update_of_a_class_that_shares_its_table(work: Work) -> None:
    work.session.execute(update(Car).where(Car.id.in_(work.keys(Vehicle, 8))).values(doors=work.number()))
    work.session.expire_all()


@operation(unknown=["weight", "title"])
def update_with_expressions(work: Work) -> None:
    statement = update(Creature).where(Creature.id.in_(work.keys(Creature)))
    values: dict[str, Any] = {"weight": func.coalesce(Creature.weight, 0) + 1}
    if work.chance():
        values["title"] = Creature.title + literal("!")
        statement = statement.where(func.length(Creature.title) < 40)
    work.session.execute(statement.values(values), execution_options={"synchronize_session": False})
    work.session.expire_all()


@operation(dialects=["postgresql"])
def update_returning(work: Work) -> None:
    statement = update(Creature).where(Creature.id.in_(work.keys(Creature))).values(weight=work.number())
    work.session.execute(statement.returning(Creature.id, Creature.weight)).all()
    work.session.expire_all()


@operation(dialects=["postgresql", "sqlite"], counted=True)
def update_from(work: Work) -> None:
    where = (Creature.keeper_id == Keeper.id) & Keeper.id.in_(work.keys(Keeper))
    work.session.execute(
        update(Creature).where(where).values(title=work.word()),
        execution_options={"synchronize_session": False},
    )
    work.session.expire_all()


@operation()
def delete_of_a_model(work: Work) -> None:
    keys = work.keys(Visit, 8)
    how = work.random.choice(["auto", "fetch", False]) if work.dialect.name != "sqlite" else False
    work.session.execute(
        delete(Visit).where(Visit.id.in_(keys)), execution_options={"synchronize_session": how}
    )
    work.session.expire_all()


@operation()
def delete_with_cascade_by_the_database(work: Work) -> None:
    work.session.execute(delete(Creature).where(Creature.id.in_(work.keys(Creature, 2))))
    work.session.expire_all()


@operation()
def delete_by_a_query(work: Work) -> None:
    query = work.session.query(Vehicle).filter(Vehicle.id.in_(work.keys(Vehicle, 2)))
    query.delete(synchronize_session=False)
    work.session.expire_all()


@operation(dialects=["postgresql"])
def delete_returning(work: Work) -> None:
    statement = delete(Visit).where(Visit.id.in_(work.keys(Visit, 2))).returning(Visit.text)
    work.session.execute(statement).all()
    work.session.expire_all()


# --- Core --------------------------------------------------------------------------------------------


@operation()
def core_inserts(work: Work) -> None:
    rows = [{"sku": work.word(), "quantity": work.number(), "place": None} for _ in work.few(30)]
    work.connection.execute(insert(stock), rows)
    work.connection.execute(insert(stock).values(sku=work.word(), quantity=1))


@operation()
def core_updates(work: Work) -> None:
    skus = work.session.scalars(select(stock.c.sku).limit(work.random.randint(1, 8))).all()
    work.connection.execute(
        update(stock).where(stock.c.sku.in_(skus)).values(place=work.word(), quantity=work.number())
    )


@operation()
def core_updates_of_many(work: Work) -> None:
    skus = work.session.scalars(select(stock.c.sku).limit(work.random.randint(2, 8))).all()
    if len(skus) > 1:
        statement = update(stock).where(stock.c.sku == bindparam("which")).values(place=bindparam("where"))
        work.connection.execute(statement, [{"which": sku, "where": work.word()} for sku in skus])


@operation()
def core_deletes(work: Work) -> None:
    skus = work.session.scalars(select(stock.c.sku).limit(work.random.randint(1, 3))).all()
    if work.chance():
        work.connection.execute(delete(stock).where(stock.c.sku.in_(skus)))
    elif len(skus) > 1:
        statement = delete(stock).where(stock.c.sku == bindparam("which"))
        work.connection.execute(statement, [{"which": sku} for sku in skus])


def _tallies(work: Work) -> list[dict[str, Any]]:
    names = {f"tally {work.random.randrange(30)}" for _ in work.few(4)}
    return [{"name": name, "count": work.number(), "note": work.word()} for name in sorted(names)]


@operation(unknown=["count", "note"])
def upserts_that_update(work: Work) -> None:
    statement = work.upsert(Tally)
    if work.dialect.name in ("mysql", "mariadb"):
        statement = statement.on_duplicate_key_update(note=statement.inserted.note)
    else:
        statement = statement.on_conflict_do_update(
            index_elements=["name"], set_={"note": statement.excluded.note}
        )
    for row in _tallies(work):
        work.session.execute(statement.values(**row))
    work.session.expire_all()


@operation(dialects=["postgresql", "sqlite"])
def upserts_that_do_nothing(work: Work) -> None:
    statement = work.upsert(Tally).on_conflict_do_nothing()
    for row in _tallies(work):
        work.session.execute(statement.values(**row))


@operation(unknown=["count", "note"], dialects=["postgresql", "sqlite"])
def upserts_of_many(work: Work) -> None:
    statement = work.upsert(Tally)
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"count": statement.excluded.count}
    )
    work.connection.execute(statement, _tallies(work))
    work.session.expire_all()


# --- what lists no rows ------------------------------------------------------------------------------


@operation("statement")
def text_statements(work: Work) -> None:
    work.connection.execute(
        text(
            "UPDATE animal SET title = :title WHERE id IN (SELECT min(a.id) FROM (SELECT id FROM animal) a)"
        ),
        {"title": work.word()},
    )
    work.session.expire_all()


@operation("statement")
def driver_statements(work: Work) -> None:
    work.connection.exec_driver_sql(f"INSERT INTO sheet (title) VALUES ('{work.word()}')")
    work.connection.exec_driver_sql("DELETE FROM sheet WHERE id < 10")
    work.session.expire_all()


@operation("statement")
def text_with_many_parameters(work: Work) -> None:
    rows = [{"sku": work.word(), "quantity": work.number()} for _ in work.few()]
    work.connection.execute(text("INSERT INTO stock (sku, quantity) VALUES (:sku, :quantity)"), rows)


@operation("statement")
def text_that_selects_what_it_inserts(work: Work) -> None:
    work.session.execute(
        text("INSERT INTO sheet (title) SELECT text FROM label WHERE text IS NOT NULL ORDER BY code LIMIT 2")
    )


@operation("statement", dialects=["postgresql"])
def text_with_a_cte(work: Work) -> None:
    moved = "WITH moved AS (DELETE FROM stock WHERE quantity > 500 RETURNING sku) SELECT count(*) FROM moved"
    work.session.execute(text(moved)).all()


@operation("statement", dialects=["postgresql"])
def statements_in_with(work: Work) -> None:
    moved = delete(stock).where(stock.c.quantity < 20).returning(stock.c.sku).cte("moved")
    work.session.execute(select(func.count()).select_from(moved)).all()


@operation("count")
def many_values(work: Work) -> None:
    work.session.execute(insert(Sheet).values([{"title": work.word()} for _ in range(3)]))


@operation("count")
def insert_from_select(work: Work) -> None:
    chosen = select(Label.text).where(Label.text.is_not(None)).order_by(Label.code).limit(2)
    work.session.execute(insert(Sheet).from_select(["title"], chosen))


# --- what goes wrong, and is undone ------------------------------------------------------------------


@operation()
def savepoints(work: Work) -> None:
    for _ in work.few(3):
        point = work.session.begin_nested()
        work.session.add(Creature(title=work.word()))
        work.session.flush()
        inner = work.session.begin_nested()
        for animal in work.some(Creature, 2):
            animal.title = work.word()
        work.session.flush()
        if work.chance():
            inner.rollback()
        elif work.chance():
            inner.commit()
        if work.chance():
            point.rollback()
        elif work.chance():
            point.commit()
        # Otherwise they stay open until the transaction ends, as they do in applications.
        work.marks.set(work.connection, f"{work.seed}/{len(work.did) - 1}")


@operation()
def refused_in_a_savepoint(work: Work) -> None:
    labels = work.some(Label, 1)
    work.session.flush()
    for label in labels:
        code = label.code
        try:
            with work.session.begin_nested():
                work.session.add(Creature(title=work.word()))
                work.session.flush()
                work.session.execute(insert(Label).values(code=code))
        except IntegrityError:
            work.marks.set(work.connection, f"{work.seed}/{len(work.did) - 1}")
        else:
            raise AssertionError("the key was taken")


@operation()
def refused(work: Work) -> None:
    if work.chance(0.8):
        return
    for label in work.some(Label, 1):
        work.session.execute(insert(Label).values(code=label.code))


@operation()
def rolled_back(work: Work) -> None:
    if work.chance(0.3):
        for animal in work.some(Creature):
            animal.title = work.word()
        work.session.flush()
        raise Undo


# --- with a connection of their own ------------------------------------------------------------------


@operation(alone=True, dialects=["postgresql", "mysql", "mariadb"])
def autocommit(work: Work) -> None:
    with (
        work.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        context(reason=work.mark(connection, work.chosen)),
    ):
        sku = work.word()
        connection.execute(insert(stock).values(sku=sku, quantity=1))
        connection.execute(update(stock).where(stock.c.sku == sku).values(quantity=2))
        connection.execute(delete(stock).where(stock.c.sku == sku))
        connection.rollback()  # means nothing here


@operation(alone=True)
def first_statement_of_a_transaction(work: Work) -> None:
    with work.engine.connect() as connection:
        skus = [work.word(), work.word()]
        with context(reason=work.mark(connection, work.chosen)):
            connection.execute(insert(stock), [{"sku": sku, "quantity": 1} for sku in skus])
            connection.commit()
        with context(reason=work.mark(connection, work.chosen)):
            connection.execute(update(stock).where(stock.c.sku.in_(skus)).values(quantity=7))
            connection.commit()
        with context(reason=work.mark(connection, work.chosen)):
            connection.execute(delete(stock).where(stock.c.sku == skus[0]))
            if work.chance():
                connection.commit()
            elif work.chance():
                connection.rollback()
            # Otherwise it is closed, which rolls back.


@operation(alone=True)
def stale_objects(work: Work) -> None:
    """Another session commits between load and flush."""
    with Session(work.engine) as mine, Session(work.engine) as other:
        work.session = mine
        animals = work.some(Creature)
        mine.commit()
        mine.expire_on_commit = False
        loaded = [(animal.id, animal.title) for animal in animals]
        mine.commit()
        with context(reason=work.mark(other.connection(), work.chosen)):
            for key, _ in loaded:
                other.execute(update(Creature).where(Creature.id == key).values(title=work.word()))
            other.commit()
        with context(reason=work.mark(mine.connection(), work.chosen)):
            for animal in animals:
                animal.title = work.word()
            mine.commit()


@operation(alone=True)
def versions_that_have_passed(work: Work) -> None:
    """Another session has written the row: the flush is refused by the version."""
    with Session(work.engine) as mine, Session(work.engine) as other:
        work.session = mine
        keepers = work.some(Keeper)
        mine.expire_on_commit = False
        mine.commit()
        with context(reason=work.mark(other.connection(), work.chosen)):
            for keeper in keepers[1:]:
                other.get_one(Keeper, keeper.id).title = work.word()
            other.commit()
        with context(reason=work.mark(mine.connection(), work.chosen)):
            for keeper in keepers:
                keeper.title = work.word()
            try:
                mine.commit()
            except StaleDataError:
                mine.rollback()


@operation(alone=True, counted=True)
def rows_gone_meanwhile(work: Work) -> None:
    """Another session deletes one of two rows: psycopg tells by its counts, asyncpg does not."""
    with Session(work.engine) as mine, Session(work.engine) as other:
        labels = [Label(code=work.word(), text="") for _ in range(2)]
        mine.expire_on_commit = False
        with context(reason=work.mark(mine.connection(), work.chosen)):
            mine.add_all(labels)
            mine.commit()
        with context(reason=work.mark(other.connection(), work.chosen)):
            other.execute(delete(Label).where(Label.code == labels[0].code))
            other.commit()
        with context(reason=work.mark(mine.connection(), work.chosen)):
            for label in labels:
                if work.chance(0.3):
                    mine.delete(label)
                else:
                    label.text = work.word()
            try:
                mine.commit()
            except StaleDataError:
                mine.rollback()


@operation(alone=True, dialects=["postgresql"])
def two_phases(work: Work) -> None:
    with work.engine.connect() as connection:
        transaction = connection.begin_twophase()
        with context(reason=work.mark(connection, work.chosen)):
            connection.execute(insert(stock).values(sku=work.word(), quantity=1))
            transaction.prepare()
            if work.chance():
                transaction.commit()
            else:
                transaction.rollback()


@operation(alone=True)
def session_left_open(work: Work) -> None:
    session = Session(work.engine)
    with context(reason=work.mark(session.connection(), work.chosen)):
        session.add(Creature(title=work.word()))
        session.flush()
    session.close()


def fill(session: Session) -> None:
    """Make the rows a workload begins with."""
    for number in range(8):
        session.add(
            Keeper(
                title=f"keeper {number}",
                animals=[Creature(title=f"animal {number}", visits=[Visit(text="first")])],
                labels=[Label(code=f"label {number}", text="a label")],
            )
        )
        session.add_all([Manager(title="m", level=1), Builder(title="e", tongue="c")])
        session.add_all([Car(title="car", doors=2), Bike(title="bike", gears=3), Sheet(title="sheet")])
    session.commit()


TABLES = Base.metadata
