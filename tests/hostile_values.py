"""Values nobody expects: what an application may put into a context, an attribute or a field."""

from __future__ import annotations

import enum
from typing import Any, NoReturn

from hypothesis import strategies as st


class Plain:
    """An object that has no text but its address in memory."""


class Mute:
    """An object that cannot be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Broken:
    """An object none of whose methods works."""

    def _raise(self, *args: object) -> NoReturn:
        raise RuntimeError("broken")

    __str__ = __repr__ = __eq__ = __hash__ = _raise
    __bool__ = __len__ = __iter__ = _raise


class Markup(str):
    """As markupsafe.Markup or SafeString of Django: its text is of its own class again."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Number(int):
    """An integer that says something else of itself."""

    def __str__(self) -> str:
        return "a number"


class Ratio(float):
    """As numpy's float64."""

    def __repr__(self) -> str:
        return f"Ratio({float(self)})"


class Choice(enum.Enum):
    TEXT = "text"
    NUMBER = 7
    LIST = ("a", 1)


class Lazy:
    """As a lazy translation."""

    def __str__(self) -> str:
        return "later"


class LyingMapping(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


def recursive_list() -> list[Any]:
    inner: list[Any] = [1]
    inner.append(inner)
    return inner


def recursive_dict() -> dict[str, Any]:
    inner: dict[str, Any] = {"a": 1}
    inner["self"] = [inner, inner]
    return inner


def deep_list() -> list[Any]:
    inner: list[Any] = []
    for _ in range(3000):
        inner = [inner]
    return inner


_MAKERS = (
    Plain,
    Mute,
    Broken,
    Lazy,
    object,
    recursive_list,
    recursive_dict,
    deep_list,
    lambda: LyingMapping(a=1),
    lambda: 10**5000,
    lambda: "long " * 200_000,
)
strange = st.sampled_from(_MAKERS).map(lambda make: make())
subclasses = (
    st.text(st.characters(), max_size=10).map(Markup)
    | st.integers().map(Number)
    | st.floats().map(Ratio)
    | st.sampled_from(list(Choice))
)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=10)
    | st.binary(max_size=10)
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.uuids()
    | st.ip_addresses()
)
anything = st.recursive(
    plain | subclasses | strange,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | subclasses | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=5,
)
"""Anything an application might hand over."""
