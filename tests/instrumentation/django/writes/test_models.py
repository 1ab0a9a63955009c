"""Which models are audited: patterns, proxies, tables behind many-to-many fields."""

from __future__ import annotations

from typing import Any

import pytest

from otel_audit.config.model import DjangoConfig, ModelConfig
from otel_audit.instrumentation.django.plan import ModelPolicy
from tests.instrumentation.django.warehouse.models import Item, ItemOnSale, Kiosk, Pallet


def audited(model: Any, *patterns: str) -> bool:
    return ModelPolicy(DjangoConfig(models=list(patterns))).of(model).audited


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], False),
        (["*"], True),
        (["warehouse.*"], True),
        (["warehouse.item"], True),
        (["WAREHOUSE.Item"], True),
        (["warehouse.Ite?"], True),
        (["warehouse.Box"], False),
        (["warehouse.*", "!warehouse.Item"], False),
        (["!warehouse.Item", "warehouse.*"], True),
        (["*", "!warehouse.*", "warehouse.Item"], True),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], expected: bool) -> None:
    assert audited(Item, *patterns) is expected


def test_a_proxy_follows_its_concrete_model() -> None:
    assert audited(ItemOnSale, "warehouse.Item")
    assert not audited(ItemOnSale, "warehouse.ItemOnSale")


def test_a_child_is_a_model_of_its_own() -> None:
    assert not audited(Kiosk, "warehouse.Place")


def test_the_table_of_a_many_to_many_field_follows_its_model_unless_named() -> None:
    through = Pallet.items.through
    assert audited(through, "warehouse.Pallet")
    assert not audited(through, "warehouse.Item")
    assert not audited(through, "warehouse.Pallet", "!warehouse.Pallet_items")
    assert audited(through, "warehouse.Pallet_items")


def test_settings_of_single_models_lie_over_the_defaults() -> None:
    config = DjangoConfig(
        models=["warehouse.*"],
        reads=["warehouse.*"],
        old_values="off",
        model={
            "warehouse.*": ModelConfig(old_values="exact", fields={"name": "mask"}),
            "warehouse.item": ModelConfig(reads=False, fields={"price": "drop"}),
        },
    )
    policy = ModelPolicy(config)
    item, kiosk = policy.of(Item), policy.of(Kiosk)
    assert (item.reads, kiosk.reads) == (False, True)
    assert (item.old_values, kiosk.old_values) == ("exact", "exact")
    assert dict(item.strategies) == {"name": "mask", "price": "drop"}
    assert dict(kiosk.strategies) == {"name": "mask"}
