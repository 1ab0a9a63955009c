"""Which primary keys are secrets, and which columns hold such a key: a session's, an API token's.

A key is known by the name of its field (``session_key``, ``token``), by the name of its model (``Token``,
``MagicLink``), or by the strategy that the configuration has for it. A foreign key holds what it refers to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.policy import KeyStrategies
from otel_audit.interruptions import faults
from otel_audit.redaction.names import SECRETS, NameRules
from otel_audit.redaction.records import SECRET_KEY

if TYPE_CHECKING:
    from django.db.models import Model

_NUMBERS: Final = frozenset(
    {
        "AutoField",
        "BigAutoField",
        "BigIntegerField",
        "IntegerField",
        "PositiveBigIntegerField",
        "PositiveIntegerField",
        "PositiveSmallIntegerField",
        "SmallAutoField",
        "SmallIntegerField",
    }
)
_PLAIN: Final = _NUMBERS | {"UUIDField"}
"""Keys that say nothing about the row, unless a name says otherwise."""
_MAX_HOPS: Final = 16

Configured = Callable[["type[Model]"], Mapping[str, str]]
"""Returns the configured strategies of a model, by name of a field."""


def key_strategies(model: type[Model], names: NameRules, configured: Configured) -> KeyStrategies:
    """Decide about the key of a concrete model, and about its columns that are or refer to a key."""
    meta: Any = model._meta
    key = tuple(_strategy(field, names, configured) for field in meta.pk_fields)
    fields: dict[str, str] = {}
    for field, strategy in zip(meta.pk_fields, key, strict=True):
        if strategy:
            fields[field.name] = strategy
    for field in meta.local_concrete_fields:
        if field.remote_field is None or field.name in fields:
            continue
        if strategy := _strategy(field, names, configured):
            fields[field.name] = strategy
        elif names.own(field.name) is None and _held(field).get_internal_type() in _PLAIN:
            # `card` and `token` name a secret; a foreign key of that name holds the number of a row.
            fields[field.name] = "keep"
    return KeyStrategies(key, fields)


def _strategy(field: Any, names: NameRules, configured: Configured) -> str:
    """Return the strategy of a field that is a key or refers to one, empty if it is no secret."""
    for hop in _hops(field):
        if found := configured(hop.model._meta.concrete_model).get(hop.name):
            return found
        own = names.own(hop.name)
        if own is not None:
            return SECRET_KEY if own == "secret" else "keep"
    held = _held(field)
    decision = names.decide(held.name) if held.remote_field is None else "clean"
    if decision == "ambiguous" and held.get_internal_type() not in _PLAIN:
        return SECRET_KEY
    if decision in ("secret", "secret_text", "personal"):
        return SECRET_KEY
    if held.get_internal_type() in _NUMBERS or not held.primary_key:
        return ""
    if names.decide(held.model.__name__) not in SECRETS:
        return ""
    if held.get_internal_type() == "UUIDField" and _has_secret_beside(held, names):
        return ""
    return SECRET_KEY


def _has_secret_beside(key: Any, names: NameRules) -> bool:
    """Say whether another field of the model is the secret: then the key is what it seems to be."""
    return any(
        field is not key and names.decide(field.name) == "secret" for field in key.model._meta.concrete_fields
    )


def _held(field: Any) -> Any:
    """Return the field whose values a field holds: the last one that foreign keys lead to."""
    *_, last = _hops(field)
    return last


def _hops(field: Any) -> Iterator[Any]:
    yield field
    for _ in range(_MAX_HOPS):
        if field.remote_field is None:
            return
        try:
            field = field.target_field
        except faults():  # a relation to a model that is not there (yet), or with several columns
            return
        yield field
