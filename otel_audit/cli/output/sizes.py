"""Numbers of bytes, for people."""

from __future__ import annotations


def size(count: int) -> str:
    """Write a number of bytes for people: ``3.2 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
