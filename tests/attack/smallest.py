"""The smallest input that still fails as the one found did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_TRIES = 5_000


def smallest(given: T, fails: Callable[[T], bool], whole: str = "") -> T:
    """Make an input smaller while it fails: fewer parts, shorter texts, numbers nearer to 0.

    Texts that contain ``whole`` are taken or left.
    """
    tries, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in _Simpler(whole).of(given):
            tries += 1
            if tries > _TRIES:
                return given
            if fails(candidate):
                given, smaller = candidate, True
                break
    return given


class _Simpler:
    def __init__(self, whole: str) -> None:
        self._whole = whole

    def of(self, given: Any) -> Iterator[Any]:
        """Yield what is a little simpler, the largest steps first."""
        if isinstance(given, str):
            if not self._whole or self._whole not in given:
                yield from _shorter(given)
                yield from _plainer(given, "a")
        elif isinstance(given, bytes):
            yield from _shorter(given)
            yield from _plainer(given, b"a")
        elif isinstance(given, bool):
            if given:
                yield False
        elif isinstance(given, int):
            yield from {0, given // 2, given - 1 if given > 0 else given + 1} - {given} if given else ()
        elif isinstance(given, float):
            if given != 0:
                yield 0.0
        else:
            yield from self._parts(given)

    def _parts(self, given: Any) -> Iterator[Any]:
        if isinstance(given, list):
            yield from _shorter(given)
            for at, item in enumerate(given):
                yield from ([*given[:at], simple, *given[at + 1 :]] for simple in self.of(item))
        elif isinstance(given, tuple):
            for at, item in enumerate(given):
                for simple in self.of(item):
                    items = (*given[:at], simple, *given[at + 1 :])
                    yield type(given)(*items) if hasattr(given, "_fields") else items
        elif isinstance(given, dict):
            yield from ({key: given[key] for key in given if key != without} for without in given)
            for key, value in given.items():
                yield from (given | {key: simple} for simple in self.of(value))
        elif isinstance(given, msgspec.Struct):
            yield from self._struct(given)

    def _struct(self, given: msgspec.Struct) -> Iterator[msgspec.Struct]:
        for field in msgspec.structs.fields(given):
            value = getattr(given, field.name)
            default = field.default
            if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if default is not msgspec.NODEFAULT and value != default:
                yield msgspec.structs.replace(given, **{field.name: default})
            # As those that are made at random: a text that is something without being given is never empty.
            never_empty = isinstance(value, str) and default != ""
            for simple in self.of(value):
                if simple or not never_empty:
                    yield msgspec.structs.replace(given, **{field.name: simple})


def _shorter(given: Any) -> Iterator[Any]:
    size = len(given)
    while size:
        yield from (given[:at] + given[at + size :] for at in range(0, len(given), size))
        size //= 2


def _plainer(given: Any, plain: Any) -> Iterator[Any]:
    for at in range(min(len(given), 200)):
        if given[at : at + 1] != plain and not given[at : at + 1].isalnum():
            yield given[:at] + plain + given[at + 1 :]
