"""``NamedTuple`` as of ``typing``, for a fraction of what a class costs when its module is loaded.

For each class, ``typing`` compiles the type of each field, which postponed annotations make a text, and
``collections`` a constructor and a function per method: half a millisecond a class, a fifth of what we added
to the start of a Django process. Here classes with as many fields share the code of their constructor, and
all share their methods. Instances are the same, and as quick to make and read. Names, and that fields with
defaults come last, are checked by mypy, for which this is ``typing.NamedTuple``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from sys import intern
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple

    def _field(index: int, doc: str) -> Any: ...
else:
    try:
        from collections import _tuplegetter as _field
    except ImportError:  # as collections itself does without its part in C
        from operator import itemgetter

        def _field(index, doc):
            return property(itemgetter(index), doc=doc)


@cache
def _constructor(count: int) -> CodeType:
    """Return the code of a constructor with so many arguments, whatever their names."""
    names = "".join(f"_{number}, " for number in range(count))
    made: CodeType = eval(f"lambda _cls, {names}: _new(_cls, ({names}))").__code__  # noqa: S307 - of a number
    return made.replace(co_name="__new__", co_qualname="__new__")


class _Tuple(tuple[Any, ...]):
    """What all named tuples can do."""

    __slots__ = ()
    if TYPE_CHECKING:  # an annotation would be taken for a field's
        _fields: tuple[str, ...]

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Any:
        """Return one of these values, in the order of its fields."""
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **values: Any) -> Any:
        """Return another one, with these fields replaced."""
        made = self._make(map(values.pop, self._fields, self))
        if values:
            raise ValueError(f"Got unexpected field names: {list(values)!r}")
        return made

    def _asdict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({fields})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _Class(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        fields = tuple(map(intern, namespace["__annotations__"]))
        defaults = {field: namespace[field] for field in fields if field in namespace}
        new = FunctionType(
            _constructor(len(fields)).replace(co_varnames=("_cls", *fields)),
            {"_new": tuple.__new__, "__builtins__": {}, "__name__": namespace["__module__"]},
            "__new__",
            tuple(defaults.values()),
        )
        namespace.update(
            __slots__=(),
            __new__=new,
            __match_args__=fields,
            _fields=fields,
            _field_defaults=defaults,
        )
        for number, field in enumerate(fields):
            namespace[field] = _field(number, intern(f"Alias for field number {number}"))
        return type(name, (_Tuple,), namespace)


if not TYPE_CHECKING:

    def NamedTuple() -> None:  # noqa: N802 - a base whose place another class takes, as typing's
        """Be the base of a named tuple: ``class Point(NamedTuple): …``."""

    _BASES = (type.__new__(_Class, "NamedTuple", (), {}),)
    NamedTuple.__mro_entries__ = lambda bases: _BASES
