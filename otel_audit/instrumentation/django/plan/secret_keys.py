"""The keys of a model and its foreign keys, as the rules about secret keys look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.secret_keys import MAX_HOPS, Held, HeldKey, Hop, Kind
from otel_audit.capture.secret_keys import key_strategies as strategies_of
from otel_audit.capture.table_policy import KeyStrategies
from otel_audit.interruptions import faults
from otel_audit.redaction.names import NameRules

if TYPE_CHECKING:
    from django.db.models import Model

_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(
        (
            "AutoField",
            "BigAutoField",
            "BigIntegerField",
            "IntegerField",
            "PositiveBigIntegerField",
            "PositiveIntegerField",
            "PositiveSmallIntegerField",
            "SmallAutoField",
            "SmallIntegerField",
        ),
        "number",
    ),
    "UUIDField": "uuid",
}

Configured = Callable[["type[Model]"], Mapping[str, str]]
"""Returns the configured strategies of a model, by name of a field."""


def key_strategies(model: type[Model], names: NameRules, configured: Configured) -> KeyStrategies:
    """Decide about the key of a concrete model, and about its columns that are or refer to a key."""
    meta: Any = model._meta
    key = [_held_key(field, configured) for field in meta.pk_fields]
    foreign = [
        _held_key(field, configured) for field in meta.local_concrete_fields if field.remote_field is not None
    ]
    return strategies_of(key, foreign, names)


def _held_key(field: Any, configured: Configured) -> HeldKey:
    hops = list(_hops(field))
    held = hops[-1]
    unknown = held.remote_field is not None
    meta = held.model._meta
    return HeldKey(
        [Hop(hop.name, configured(hop.model._meta.concrete_model).get(hop.name, "")) for hop in hops],
        Held(
            "" if unknown else held.name,
            _KINDS.get(held.get_internal_type(), "other"),
            held.primary_key,
            (held.model.__name__,),
            [each.name for each in meta.concrete_fields if each is not held],
        ),
    )


def _hops(field: Any) -> Iterator[Any]:
    yield field
    for _ in range(MAX_HOPS):
        if field.remote_field is None:
            return
        try:
            field = field.target_field
        except faults():  # a relation to a model that is not there (yet), or with several columns
            return
        yield field
