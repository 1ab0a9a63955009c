"""Which keys are secrets, and which columns hold such a key: a session's, an API token's.

A key is known by the name of its column (``session_key``, ``token``), by the name of its table or class
(``Token``, ``MagicLink``), or by the strategy that the configuration has for it. A foreign key holds what it
refers to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from otel_audit.capture.table_policy import KeyStrategies
from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.names import SECRETS, NameRules
from otel_audit.redaction.records import SECRET_KEY

MAX_HOPS: Final = 16
"""From a foreign key to the key it holds at last."""

Kind = Literal["number", "uuid", "other"]
"""What a key is made of. Numbers and UUIDs say nothing about the row, unless a name says otherwise."""


class Hop(NamedTuple):
    """A column on the way from a foreign key to what it holds: its name, and its configured strategy."""

    name: str
    strategy: str = ""


class Held(NamedTuple):
    """What is known of the key whose values a column holds.

    Attributes:
        name: of its column; empty: not known.
        kind: what it is made of.
        key: it is the primary key of its table, or part of it.
        owners: what its table and the classes of its rows are called.
        beside: names of the other columns of its table.
    """

    name: str
    kind: Kind
    key: bool
    owners: Sequence[str] = ()
    beside: Iterable[str] = ()


class HeldKey(NamedTuple):
    """A column that is a key or refers to one; of a key that refers to nothing, there is one hop: itself."""

    hops: Sequence[Hop]
    held: Held

    @property
    def name(self) -> str:
        """The column's own name."""
        return self.hops[0].name


def key_strategies(key: Sequence[HeldKey], foreign: Iterable[HeldKey], names: NameRules) -> KeyStrategies:
    """Decide about the key of a table, and about its columns that refer to a key.

    Args:
        key: the parts of its primary key.
        foreign: its foreign keys.
        names: say what is secret by its name.
    """
    parts = tuple([_strategy(each, names) for each in key])
    fields = {each.name: strategy for each, strategy in zip(key, parts, strict=True) if strategy}
    fields.update(_foreign(foreign, names))
    return KeyStrategies(parts, fields)


def _foreign(foreign: Iterable[HeldKey], names: NameRules) -> Iterator[tuple[str, str]]:
    for each in foreign:
        if strategy := _strategy(each, names):
            yield each.name, strategy
        elif names.own(each.name) is None and each.held.kind != "other":
            # `card` and `token` name a secret; a foreign key of that name holds the number of a row.
            yield each.name, "keep"


def _strategy(column: HeldKey, names: NameRules) -> str:
    """Return the strategy of a column that is a key or refers to one, empty if it is no secret."""
    for hop in column.hops:
        if hop.strategy:
            return hop.strategy
        own = names.own(hop.name)
        if own is not None:
            return SECRET_KEY if own == "secret" else "keep"
    return SECRET_KEY if _is_secret(column.held, names) else ""


def _is_secret(held: Held, names: NameRules) -> bool:
    decision = names.decide(held.name) if held.name else "clean"
    if decision in ("secret", "secret_text", "personal"):
        return True
    if decision == "ambiguous" and held.kind == "other":
        return True
    if held.kind == "number" or not held.key:
        return False
    if not any(names.decide(owner) in SECRETS for owner in held.owners):
        return False
    # With the secret beside it, a UUID is what it seems to be.
    return held.kind != "uuid" or all(names.decide(each) != "secret" for each in held.beside)
