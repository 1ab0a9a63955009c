"""What the objects of a session hold of rows that its flush is about to write: old values without SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from otel_audit.values import ATOMS

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan


def old_row(
    plan: MappedPlan, session: Any, engine: Any, key: Sequence[Any], fields: Sequence[ColumnPlan]
) -> list[Any] | None:
    """Return the values that the row of a key had as an object loaded them, frozen.

    ``None`` where one of them is not known: never loaded, expired, or of a class that changes in place.
    """
    state = _state(plan, session, engine, key)
    if state is None:
        return None
    names, _ = _mapped(plan, state.manager.mapper)
    committed, now = state.committed_state, state.dict
    row = []
    for field in fields:
        name = names.get(field)
        if name is None:
            return None
        value = committed[name] if name in committed else now.get(name, UNSET)
        # Not only UNSET: SQLAlchemy has symbols of its own for what was never loaded.
        if value is UNSET or type(value).__module__.startswith("sqlalchemy"):
            return None
        if field.mutable and type(value) not in ATOMS:
            return None
        row.append(field.frozen(value))
    return row


def _state(plan: MappedPlan, session: Any, engine: Any, key: Sequence[Any]) -> Any:
    states = session.identity_map
    token = _token(session, engine)
    for reference in plan.mappers:
        mapper = reference()
        if mapper is None:
            continue
        _, positions = _mapped(plan, mapper)
        if positions is None:
            continue
        identity = (mapper._identity_class, tuple([key[position] for position in positions]), token)
        state = states._dict.get(identity)
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
