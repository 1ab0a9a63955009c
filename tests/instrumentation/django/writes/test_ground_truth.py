"""Records against the database's own account: PostgreSQL triggers tell each row, old and new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_audit.config.model import ModelConfig
from tests.instrumentation.django.warehouse.databases import auditing
from tests.instrumentation.django.writes import truth
from tests.instrumentation.django.writes.workload import Workload

UNMASKED = {"warehouse.Vault": ModelConfig(fields={"combination": "keep"})}


@pytest.fixture
def told(postgres: str) -> Iterator[None]:
    truth.install_triggers()
    yield
    truth.remove_triggers()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("old_values", ["as_loaded", "exact"])
def test_records_equal_what_the_triggers_tell(told: None, old_values: str, seed: int) -> None:
    """Every row and value of a random workload, stale instances, retries and rollbacks included."""
    workload = Workload(seed)
    with auditing(old_values=old_values, model=UNMASKED) as audit:
        history: list[str] = []
        rows = 0
        for _ in range(400):
            history.append(workload.run())
            expected, actual = truth.told(), truth.claimed(audit.records)
            audit.clear()
            rows += expected.total()
            assert actual == expected, (
                f"after {history[-3:]}\nnot recorded: {expected - actual}\nnot true: {actual - expected}"
            )
    assert len(workload.ran) >= 30
    assert workload.errors < 80
    assert rows > 800
