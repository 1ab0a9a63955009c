"""What the workers of RQ do."""

from __future__ import annotations

import otel_audit


def bill(order: int, password: str = "") -> str:
    otel_audit.record("shop.invoice.create", "CREATE")
    return f"R-{order}"


def fail() -> None:
    raise KeyError("no stock")
