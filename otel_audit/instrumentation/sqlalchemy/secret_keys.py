"""The key of a table and its foreign keys, as the rules about secret keys look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import types
from sqlalchemy.schema import Column, Table

from otel_audit.capture.secret_keys import MAX_HOPS, Held, HeldKey, Hop, Kind
from otel_audit.capture.secret_keys import key_strategies as strategies_of
from otel_audit.capture.table_policy import KeyStrategies
from otel_audit.instrumentation.sqlalchemy.columns import implementation
from otel_audit.instrumentation.sqlalchemy.mappings import Mappings
from otel_audit.instrumentation.sqlalchemy.tables import attributes_of, keys_of
from otel_audit.interruptions import faults
from otel_audit.redaction.names import NameRules

Configured = Callable[[Table], Mapping[str, str]]
"""Returns the configured strategies of a table, by name of an attribute."""


def key_strategies(
    table: Table, mappings: Mappings, names: NameRules, configured: Configured
) -> KeyStrategies:
    """Decide about the key of a table, and about its columns that refer to a key."""
    keys = keys_of(table, mappings.mappers_of(table))
    key = [_held_key(column, mappings, configured) for column in keys]
    foreign = [_held_key(column, mappings, configured) for column in table.columns if column.foreign_keys]
    return strategies_of(key, foreign, names)


def _held_key(column: Column[Any], mappings: Mappings, configured: Configured) -> HeldKey:
    hops = []
    held = column
    for held in _hops(column):
        mappers = mappings.mappers_of(held.table)
        name = attributes_of(held.table, mappers).get(held, held.key)
        hops.append(Hop(name, configured(held.table).get(name, "")))
    own = [mapper for mapper in mappers if mapper.local_table is held.table]
    return HeldKey(
        hops,
        Held(
            name,
            _kind(held),
            held in keys_of(held.table, mappers),
            (held.table.name, *(mapper.class_.__name__ for mapper in own)),
            [each.key for each in held.table.columns if each is not held],
        ),
    )


def _hops(column: Column[Any]) -> Iterator[Column[Any]]:
    yield column
    for _ in range(MAX_HOPS):
        referred = None
        for key in column.foreign_keys:
            try:
                referred = key.column
                break
            except faults():  # a table that is not there (yet)
                continue
        if referred is None or not isinstance(referred.table, Table):
            return
        column = referred
        yield column


def _kind(column: Column[Any]) -> Kind:
    kind = implementation(column.type)
    if isinstance(kind, types.Integer):
        return "number"
    return "uuid" if isinstance(kind, types.Uuid) else "other"
