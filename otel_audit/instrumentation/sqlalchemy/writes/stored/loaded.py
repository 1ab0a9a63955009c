"""What the objects of a session hold of rows that its flush is about to write: old values without SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from operator import attrgetter, call, contains, itemgetter
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from sqlalchemy.orm import base

from otel_audit.values import ATOMS

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan

_class_of: Final = attrgetter("class_")
_object_of: Final = attrgetter("obj")
_committed_of: Final = attrgetter("committed_state")


def old_columns(
    plan: MappedPlan,
    session: Any,
    engine: Any,
    keys: Sequence[Sequence[Any]],
    fields: Sequence[ColumnPlan],
) -> list[list[Any]] | None:
    """Return the values that the rows of some keys had as objects loaded them, frozen, a list of each field.

    ``None`` where one of them is not known: never loaded, expired, or of a class that changes in place.
    """
    identities = list(_identities(plan, session, engine))
    states = session.identity_map._dict
    in_order = list(range(len(plan.keys)))
    if len(identities) == 1 and identities[0][1] == in_order:
        cls, _, token = identities[0]
        held = list(map(states.get, zip(repeat(cls), keys, repeat(token))))
    else:
        held = [_state(states, identities, key) for key in keys]
    if None in held:
        return None
    names: dict[Any, list[str]] = {}
    for cls, state in dict(zip(map(_class_of, held), held, strict=True)).items():
        by_field, _ = _mapped(plan, state.manager.mapper)
        names[cls] = [by_field.get(field, "") for field in fields]
        if "" in names[cls]:
            return None
    values = _Values(held)
    columns = []
    for place, field in enumerate(fields):
        named = {cls: of_class[place] for cls, of_class in names.items()}
        column = values.of(named)
        if not ATOMS.issuperset(map(type, column)) and (field.mutable or any(map(_is_unknown, column))):
            return None
        columns.append(field.frozen_all(column))
    return columns


class _Values:
    """The values of objects' attributes as they were loaded, before what has been set since."""

    def __init__(self, states: list[Any]) -> None:
        self._states = states
        self._now = _now(states)
        self._committed = list(map(_committed_of, states))
        self._changed = list(filter(None, self._committed))
        self._plain = {*map(type, self._now)} == {dict}

    def of(self, named: dict[Any, str]) -> list[Any]:
        """Return the values of an attribute, by its name in each class; ``UNSET`` where it was not loaded."""
        if self._plain and len(set(named.values())) == 1:
            [name] = set(named.values())
            is_set = any(map(contains, self._changed, repeat(name)))
            with suppress(KeyError):  # set of some objects only, or not loaded
                return list(map(itemgetter(name), self._committed if is_set else self._now))
        return [
            old[name] if name in old else now.get(name, UNSET)
            for old, now, name in zip(
                self._committed, self._now, map(named.__getitem__, map(_class_of, self._states)), strict=True
            )
        ]


def _now(states: list[Any]) -> list[Any]:
    """Return what objects hold now, by name: ``state.dict`` of each, without a call in Python of each."""
    objects = list(map(call, map(_object_of, states)))
    if type(None) in set(map(type, objects)):  # collected since
        return [state.dict for state in states]
    return list(map(base.instance_dict, objects))


def _is_unknown(value: Any) -> bool:
    # Not only UNSET: SQLAlchemy has symbols of its own for what was never loaded.
    return value is UNSET or type(value).__module__.startswith("sqlalchemy")


_Identity = tuple[type, list[int], Any]
"""How an object is known by the key of its row: its class, the places of its parts, the name of a shard."""


def _identities(plan: MappedPlan, session: Any, engine: Any) -> Iterator[_Identity]:
    token = _token(session, engine)
    for reference in plan.mappers:
        mapper = reference()
        if mapper is not None:
            _, positions = _mapped(plan, mapper)
            if positions is not None:
                yield mapper._identity_class, positions, token


def _state(states: dict[Any, Any], identities: Iterable[_Identity], key: Sequence[Any]) -> Any:
    for cls, positions, token in identities:
        state = states.get((cls, tuple([key[position] for position in positions]), token))
        if state is not None:
            return state
    return None


def _token(session: Any, engine: Any) -> Any:
    """Return the name of the shard that an engine is, None for sessions without shards."""
    shards = getattr(session, "_ShardedSession__shards", None)
    for name, bind in (shards or {}).items():
        if bind is engine or getattr(bind, "engine", None) is engine:
            return name
    return None


def _mapped(plan: MappedPlan, mapper: Any) -> tuple[dict[ColumnPlan, str], list[int] | None]:
    """Return the attributes of a table's columns, and where in its key the parts of an identity stand."""
    known = plan.properties.get(mapper)
    if known is None:
        known = plan.properties[mapper] = _look_at(plan, mapper)
    return known


def _look_at(plan: MappedPlan, mapper: Any) -> tuple[dict[ColumnPlan, str], list[int] | None]:
    by_column = mapper._columntoproperty
    names = {field: by_column[field.column].key for field in plan.fields if field.column in by_column}
    positions = []
    for column in mapper.primary_key:
        prop = by_column.get(column)
        place = next(
            (
                number
                for number, field in enumerate(plan.keys)
                if field.column is column or (prop is not None and names.get(field) == prop.key)
            ),
            None,
        )
        if place is None:
            return names, None
        positions.append(place)
    return names, positions
