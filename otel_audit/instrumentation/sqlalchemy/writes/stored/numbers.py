"""Numbers of a driver that knows no decimals: to record them, nobody needs a decimal of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.bulk import KnownColumns

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan

_KINDS: Final = frozenset({float, int, type(None)})
_LARGEST: Final = 10**15
"""Of as many digits as a float has, and less than a decimal is rounded to."""


def can_wait(values: list[Any]) -> bool:
    """Say whether numbers can be written when they are recorded: those that SQLAlchemy would read."""
    if len(values) < 2 or not _KINDS.issuperset(map(type, values)):
        return False
    some = [value for value in values if value is not None]
    # A sum is not finite where one of them is not, nor where one is no number.
    return not some or (min(some) > -_LARGEST and max(some) < _LARGEST and isfinite(sum(some)))


def texts_of(values: list[Any], form: str) -> list[Any]:
    """Return numbers as a record carries the decimals that SQLAlchemy would make of them."""
    some = [value for value in values if value is not None]
    texts = (f"{form}\n" * len(some) % tuple(some)).splitlines()
    if len(some) == len(values):
        return texts
    left = iter(texts)
    return [None if value is None else next(left) for value in values]


class ShownColumns(KnownColumns):
    """Rows of which some columns are numbers, written when they are recorded.

    Args:
        forms: how, by the place of the column.
    """

    __slots__ = ("_forms",)

    def __init__(
        self, plans: Sequence[ColumnPlan], columns: Sequence[list[Any]], forms: Mapping[int, str]
    ) -> None:
        super().__init__(plans, columns)
        self._forms = forms

    def rows(self) -> list[Any]:
        return list(zip(*map(self.column, range(len(self._columns))), strict=True))

    def column(self, position: int) -> list[Any]:
        form = self._forms.get(position)
        values = super().column(position)
        return values if form is None else texts_of(values, form)
