"""Ids and names of users: some records have only the id, others tell the name that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_audit.audit_record import Actor
from otel_audit.store.client import Ask, RefusedQuery, StoreClient
from otel_audit.store.filters import MOMENT, Conditions
from otel_audit.store.schema import EVENTS

_MAX_NAMESAKES: Final = 100
_SUMMED: Final = {"use_skip_indexes": 0, "force_optimize_projection": 1}
"""Ask the projection ``actor_names``, which the engine does not consider beside an index of names."""
_NOT_SUMMED: Final = 584
"""ClickHouse's PROJECTION_NOT_USED: the store is empty, or was not migrated yet."""
_NAMES_WITHIN: Final = 90 * 86_400 * 10**9
"""Nanoseconds around a record within which others tell the names of its users."""


def ids_of(client: StoreClient, database: str, name: str) -> list[str]:
    """Return the ids of the users that carry a name, other than the name itself."""
    sql = (
        f"SELECT DISTINCT actor_id FROM {database}.{EVENTS} WHERE actor_name = {{name:String}} "
        f"AND actor_type = 'user' AND actor_id != {{name:String}} LIMIT {_MAX_NAMESAKES}"
    )
    try:
        rows = client.query(sql, {"name": name}, settings=_SUMMED)
    except RefusedQuery as error:
        if error.code != _NOT_SUMMED:
            raise
        rows = client.query(sql, {"name": name})
    return [str(row["actor_id"]) for row in rows]


def known_as(
    ask: Ask, database: str, actors: Sequence[Actor], moments: Sequence[int]
) -> list[dict[str, str]]:
    """Return what records of about these moments call each actor, where its own has no name.

    ``actor_known_as`` is the name of who acted, ``customer_known_as`` of whom it was done for; what is not
    known is absent.
    """
    nameless = {actor.id for actor in actors if _is_nameless(actor)}
    nameless |= {actor.on_behalf_of for actor in actors} - {""}
    names = _names(ask, database, nameless, moments) if nameless else {}
    found = []
    for actor in actors:
        known: dict[str, str] = {}
        if _is_nameless(actor) and actor.id in names:
            known["actor_known_as"] = names[actor.id]
        if actor.on_behalf_of in names:
            known["customer_known_as"] = names[actor.on_behalf_of]
        found.append(known)
    return found


def _is_nameless(actor: Actor) -> bool:
    return actor.type == "user" and not actor.name


def _names(ask: Ask, database: str, ids: set[str], moments: Sequence[int]) -> dict[str, str]:
    where = Conditions()
    where.add("actor_type = 'user' AND actor_name != '' AND actor_id IN {Array(String)}", sorted(ids))
    around = min(moments) - _NAMES_WITHIN, max(moments) + _NAMES_WITHIN
    where.add(f"timestamp BETWEEN {MOMENT} AND {MOMENT}", *around)
    rows = ask(
        f"SELECT actor_id, argMax(actor_name, timestamp) AS name FROM {database}.{EVENTS} "
        f"WHERE {where} GROUP BY actor_id",
        where.parameters,
    )
    return {str(row["actor_id"]): str(row["name"]) for row in rows}
