"""Which objects the rows of a query showed, counted as the rows come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from otel_audit.instrumentation.django.fields import key_text
from otel_audit.instrumentation.django.read_plan import KeyColumns, Reading


class Tally:
    """Counts the objects of one reading as rows come in, and lists the first of them."""

    def __init__(self, reading: Reading, compiler: Any, max_keys: int) -> None:
        self.reading = reading
        self.keys: dict[str, None] = {}
        self.complete = bool(reading.keys)
        self._more = 0
        self._max_keys = max_keys
        self._readers = [_key_reader(compiler, key) for key in reading.keys]

    @property
    def count(self) -> int:
        """Objects if all are listed, otherwise the rows that showed one."""
        return len(self.keys) + self._more

    def add(self, chunk: Sequence[Sequence[Any]]) -> None:
        """Count the rows of ``chunk``."""
        if not self._readers:
            self._more += len(chunk)
            return
        keys, most = self.keys, self._max_keys
        for at, row in enumerate(chunk):
            if len(keys) >= most and self.reading.every_row:
                self._more += len(chunk) - at
                self.complete = False
                return
            for read in self._readers:
                key = read(row)
                if not key or key in keys:  # an outer join that matched nothing, an object seen before
                    continue
                if len(keys) < most:
                    keys[key] = None
                else:
                    self._more += 1
                    self.complete = False

    def lose_keys(self) -> None:
        """Go on with counting rows."""
        self.complete = False
        self._readers = []


def _key_reader(compiler: Any, key: KeyColumns) -> Callable[[Sequence[Any]], str]:
    """Make a function that gives the key of a row as text, ``""`` for an outer join without a match."""
    converters = [compiler.get_converters([column]).get(0) for column in key.columns]
    connection = compiler.connection
    if len(key.positions) == 1 and converters[0] is None:
        position = key.positions[0]
        return lambda row: key_text(row[position])

    def read(row: Sequence[Any]) -> str:
        values = []
        for position, found in zip(key.positions, converters, strict=True):
            value = row[position]
            if value is None:
                return ""
            for convert in found[0] if found else ():
                value = convert(value, found[1], connection)
            values.append(value)
        return key_text(values[0] if len(values) == 1 else tuple(values))

    return read
