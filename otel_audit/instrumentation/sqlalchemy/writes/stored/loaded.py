"""What the objects of a session hold of rows that its flush is about to write: old values without SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from otel_audit.values import ATOMS

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan


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
        held = [states.get((cls, key, token)) for key in keys]
    else:
        held = [_state(states, identities, key) for key in keys]
    if None in held:
        return None
    classes = {state.class_: state.manager.mapper for state in held}
    names: dict[Any, list[str]] = {}
    for cls, mapper in classes.items():
        by_field, _ = _mapped(plan, mapper)
        names[cls] = [by_field.get(field, "") for field in fields]
        if "" in names[cls]:
            return None
    values = [(state.committed_state, state.dict) for state in held]
    columns = []
    for place, field in enumerate(fields):
        if len(classes) == 1:
            name = names[cls][place]
            column = [old[name] if name in old else now.get(name, UNSET) for old, now in values]
        else:
            named = [names[state.class_][place] for state in held]
            column = [
                old[name] if name in old else now.get(name, UNSET)
                for name, (old, now) in zip(named, values, strict=True)
            ]
        if not ATOMS.issuperset(map(type, column)) and (field.mutable or any(map(_is_unknown, column))):
            return None
        columns.append(field.frozen_all(column))
    return columns


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
