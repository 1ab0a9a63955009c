"""What capture needs to know of one table, looked up once; an instrumentor's own plan adds what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import UNSET

from otel_audit.audit_record import Target
from otel_audit.capture.table_policy import KeyStrategies, TableSettings
from otel_audit.redaction.strategies import OMIT
from otel_audit.values import Frozen, freeze, key_text, same

Verb: TypeAlias = Literal["create", "update", "delete", "upsert"]
"""``upsert``: a row was inserted or updated, and nobody knows which."""
_IDS: Final = frozenset({int, str, UUID})
MAX_NAMED_KEYS: Final = 1000
"""Rows of one statement that are remembered one by one as lately written; of more, only the table is."""


_NO_SECRETS: Final = KeyStrategies()


HIDING_WORDS: Final = ("crypt", "cipher", "fernet", "secret")
"""In the name of a class of fields or columns, they say that it hides what it stores."""


def is_called(kind: type, words: Iterable[str]) -> bool:
    """Say whether a class, or one it inherits from, has one of some words in its name or module."""
    names = [f"{each.__module__}.{each.__qualname__}".lower() for each in kind.__mro__]
    return any(word in name for name in names for word in words)


class FieldPlan:
    """One column: its name in records, and the name an application knows its value by.

    Args:
        name: as records say it.
        attname: where an object of the application holds the value; default ``name``.
        automatic: written by itself with every save, so that it alone makes no change.
        hidden: its values are masked unless the configuration says otherwise.

    Attributes:
        ignored: the configuration says that it does not count, however it is written.
        large: nothing bounds the size of its values.
        plain: :meth:`frozen` does no more than :func:`~otel_audit.values.freeze`.
    """

    __slots__ = ("attname", "automatic", "hidden", "ignored", "large", "name", "plain")

    def __init__(
        self, name: str, attname: str = "", *, automatic: bool = False, hidden: bool = False
    ) -> None:
        self.name = name
        self.attname = attname or name
        self.automatic = automatic
        self.hidden = hidden
        self.ignored = False
        self.large = True
        self.plain = True

    def frozen(self, value: Any) -> Frozen:
        """Return a value of this column, as an application holds it, frozen."""
        return freeze(value)

    def frozen_all(self, values: list[Any]) -> list[Frozen]:
        """Do :meth:`frozen` for many values."""
        return list(map(self.frozen, values))

    def normal(self, value: Any) -> Frozen:
        """Return a frozen value as the database will hold it; as it is where that cannot be told."""
        return freeze(value)

    def normal_all(self, values: list[Any]) -> list[Frozen]:
        """Do :meth:`normal` for many frozen values."""
        return list(map(self.normal, values))

    def key_part(self, value: Any) -> Frozen:
        """Return a value of the key as the database holds it."""
        return self.normal(self.frozen(value))

    def equal(self, old: Frozen, new: Frozen) -> bool:
        """Say whether the database holds the same for two frozen values."""
        if same(old, new):
            return True
        normal = self.normal(new)
        return (normal is not new and same(old, normal)) or (
            type(old) is not type(normal) and same(self.normal(old), normal)
        )


class TablePlan:
    """One table as records name it, and how its changes are captured.

    Args:
        label: what targets are called, ``shop.Order``.
        table: its name in the database.
        fields: its columns.
        keys: those of ``fields`` that make its primary key.
        settings: what the configuration says about it.
        secret: which of its keys are secrets.
        ends: of a table that relates two others: the names of its columns to what their values are ids of.
    """

    __slots__ = (
        "audited",
        "ends",
        "event",
        "fields",
        "key_strategies",
        "keys",
        "label",
        "large",
        "old_values",
        "others",
        "reads",
        "snapshot",
        "strategies",
        "table",
    )

    def __init__(
        self,
        label: str,
        table: str,
        fields: Sequence[FieldPlan],
        keys: Sequence[FieldPlan],
        settings: TableSettings,
        secret: KeyStrategies = _NO_SECRETS,
        ends: Mapping[str, str] | None = None,
    ) -> None:
        self.label = label
        self.event = label.lower()
        self.table = table
        self.fields: Sequence[Any] = fields
        self.keys: Sequence[Any] = keys
        self.others: Sequence[Any] = [plan for plan in fields if plan not in keys]
        self.audited = settings.audited
        self.reads = settings.reads
        self.old_values = settings.old_values
        self.snapshot = settings.snapshot
        for plan in fields:
            if settings.ignores(plan.name):
                plan.ignored = plan.automatic = True
        hidden = {plan.name: "mask" for plan in fields if plan.hidden}
        self.strategies: dict[str, str] = {**secret.fields, **hidden, **settings.strategies}
        if not settings.values:
            self.strategies |= dict.fromkeys((plan.name for plan in fields), OMIT)
        self.key_strategies = tuple(
            hidden.get(plan.name, strategy) for plan, strategy in zip(keys, secret.key, strict=False)
        )
        # What becomes of the others is decided by the whole value.
        self.large = frozenset(
            plan for plan in fields if plan.large and self.strategies.get(plan.name, "keep") == "keep"
        )
        self.ends = {
            name: label for name, label in (ends or {}).items() if self.strategies.get(name, "keep") == "keep"
        }

    def key(self, row: Sequence[Any]) -> Any:
        """Return the key of a row whose first columns it is: the value, or a tuple of a composite key."""
        width = len(self.keys)
        return row[0] if width == 1 else tuple(row[:width])

    def related(self, values: Iterable[tuple[str, Any]]) -> list[Target]:
        """Return the objects at the ends, each once, of (column, value) of the rows of a relation."""
        ends = self.ends
        found = {(ends[name], value) for name, value in values if name in ends and type(value) in _IDS}
        return sorted(
            {Target(label, key_text(value)) for label, value in found}, key=lambda end: (end.type, end.id)
        )

    def key_of(self, values: Mapping[str, Any]) -> Any:
        """Take the key out of values by attname: the value, a tuple of a composite key, or UNSET."""
        if len(self.keys) == 1:
            return values.get(self.keys[0].attname, UNSET)
        key = tuple(values.get(plan.attname, UNSET) for plan in self.keys)
        return UNSET if any(part is UNSET for part in key) else key

    def normal_key(self, key: Any) -> Any:
        """Return a key as the database will hold it: of one row there is one, however it was written."""
        if len(self.keys) == 1:
            return self.keys[0].key_part(key)
        return tuple(plan.key_part(part) for plan, part in zip(self.keys, key, strict=True))

    def keys_in(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the keys of many rows whose first columns they are."""
        width = len(self.keys)
        return [row[0] for row in rows] if width == 1 else [tuple(row[:width]) for row in rows]

    def keys_of(self, rows: Sequence[Sequence[Any]]) -> list[Any] | None:
        """Return the keys of rows to remember as lately written; ``None`` where there are too many."""
        return None if len(rows) > MAX_NAMED_KEYS else self.keys_in(rows)
