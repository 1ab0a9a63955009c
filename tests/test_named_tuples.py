"""Named tuples: what can be seen of them is as of those of typing."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import typing
from typing import Any

import msgspec
import pytest

from otel_audit.named_tuples import NamedTuple


class Point(NamedTuple):
    """A place."""

    x: int
    y: int = 2
    label: str = "here"

    def moved(self, by: int) -> Point:
        """Return the place this far away."""
        return self._replace(x=self.x + by)

    @property
    def flat(self) -> bool:
        return not self.y


class TypingPoint(typing.NamedTuple):
    """A place."""

    x: int
    y: int = 2
    label: str = "here"


class Single(NamedTuple):
    only: list[int]


class Many(NamedTuple):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    h: int
    i: int
    j: int
    k: int = 10
    l: int = 11  # noqa: E741


class TestNamedTuplesOfOurs:
    def test_are_tuples_of_their_fields_in_order(self) -> None:
        point = Point(1)
        assert tuple(TypingPoint(1)) == point == (1, 2, "here")
        assert hash(point) == hash((1, 2, "here"))
        assert (point.x, point.y, point.label) == tuple(point)
        assert isinstance(point, tuple)
        assert Single([1]) == ([1],)
        assert Many(*range(10)) == tuple(range(12))
        assert Point(y=0, x=3).flat

    @pytest.mark.parametrize("name", ["_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__"])
    def test_say_of_their_class_what_those_of_typing_say(self, name: str) -> None:
        assert getattr(Point, name) == getattr(TypingPoint, name)

    def test_have_the_signature_of_their_fields(self) -> None:
        ours, theirs = (inspect.signature(kind.__new__) for kind in (Point, TypingPoint))
        assert [(each.name, each.default, each.kind) for each in ours.parameters.values()] == [
            (each.name, each.default, each.kind) for each in theirs.parameters.values()
        ]
        assert Point.__new__.__qualname__ == "__new__"
        assert Point.__new__.__module__.endswith("test_named_tuples")
        assert typing.get_type_hints(Point) == typing.get_type_hints(TypingPoint)

    @pytest.mark.parametrize(
        ("arguments", "named"), [((), {}), ((1, 2, "a", 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2})]
    )
    def test_refuse_other_arguments(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        kinds: list[Any] = [Point, TypingPoint]
        for kind in kinds:
            with pytest.raises(TypeError):
                kind(*arguments, **named)

    def test_are_shown_copied_and_pickled_alike(self) -> None:
        point = Point(1, label="'a'")
        assert repr(point) == repr(TypingPoint(1, label="'a'")).replace("TypingPoint", "Point")
        assert repr(Single([1])) == "Single(only=[1])"
        for other in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
            assert other == point
            assert type(other) is Point

    def test_replace_make_and_list_their_fields(self) -> None:
        point = Point(1)
        assert point.moved(2) == (3, 2, "here")
        assert type(point.moved(2)) is Point
        assert point._asdict() == {"x": 1, "y": 2, "label": "here"}
        assert Point._make([1, 2, "there"]) == Point(1, 2, "there")
        with pytest.raises(ValueError, match="z"):
            point._replace(z=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="Expected 3"):
            Point._make([1])

    def test_cannot_be_changed(self) -> None:
        point = Point(1)
        for name in ("x", "other"):
            with pytest.raises(AttributeError):
                setattr(point, name, 2)
        assert not hasattr(point, "__dict__")
        assert sys.getsizeof(point) == sys.getsizeof(TypingPoint(1))

    def test_are_matched_by_place(self) -> None:
        match Point(1):
            case Point(x, y, label="here"):
                assert (x, y) == (1, 2)
            case _:
                pytest.fail("not matched")

    def test_are_encoded_and_decoded_as_those_of_typing(self) -> None:
        encoded = msgspec.json.encode(Point(1))
        assert encoded == msgspec.json.encode(TypingPoint(1)) == b'[1,2,"here"]'
        assert msgspec.json.decode(b"[5]", type=Point) == Point(5)
        assert msgspec.convert([7, 8], Point) == Point(7, 8)

    def test_do_not_share_what_they_look_like(self) -> None:
        """Two classes with as many fields share code: their arguments are named as their own fields."""

        class Other(NamedTuple):
            first: int
            second: int = 0

        class Another(NamedTuple):
            third: int
            fourth: int = 1

        assert Other(first=1) == (1, 0)
        assert Another(third=1) == (1, 1)
        with pytest.raises(TypeError, match="first"):
            Another(first=1)  # type: ignore[call-arg]
