"""``throttling`` and ``throttling_exempt``: what a view says of itself.

A mark on the view, which the middleware reads before it runs; and where the mark is not seen (a method, a
function that the view calls, a decorator that hides it), the function itself asks when it is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from otel_audit.contrib.throttling.work import current_work
from otel_audit.location import view_name
from otel_audit.named_tuples import NamedTuple

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_MARK: Final = "__otel_audit_throttling__"


class Marks(NamedTuple):
    """What decorators say of a function or class: rules and where they stand, and what else is looked at."""

    rules: tuple[tuple[Any, str], ...] = ()
    keep_default: bool = True
    exempt: bool = False

    def over(self, other: Marks) -> Marks:
        """Put these and others of the same view together."""
        return Marks(
            (*other.rules, *self.rules),
            self.keep_default and other.keep_default,
            self.exempt or other.exempt,
        )


_NONE: Final = Marks()


def marks(function: Any) -> Marks:
    """Return what decorators say of a function or class."""
    found = getattr(function, _MARK, None)
    return found if isinstance(found, Marks) else _NONE


def throttling(*validators: Any, keep_default: bool = True) -> Callable[[Decorated], Decorated]:
    """Throttle a function, sync or async, a method or a class: Django's views and DRF's.

    Args:
        validators: rules, or objects with a method ``validate(request)`` that raises ThrottlingException.
        keep_default: whether what the configuration says holds as well.

    Raises:
        TypeError: one of them is neither.
    """
    for each in validators:
        if not callable(getattr(each, "validate", None)) and not hasattr(each, "timeframe"):
            raise TypeError(f"{each!r} is neither a Rule nor has it a method validate(request)")
    return functools.partial(_marked, validators, Marks(keep_default=keep_default))


def throttling_exempt(function: Decorated) -> Decorated:
    """Have a view (function, method or class) not throttled by anything."""
    return cast(Decorated, _marked((), Marks(exempt=True), function))


def _marked(validators: tuple[Any, ...], mark: Marks, function: Any) -> Any:
    place = view_name(function)
    mark = mark._replace(rules=tuple((each, place) for each in validators)).over(marks(function))
    if inspect.isclass(function):
        setattr(function, _MARK, mark)
        dispatch = getattr(function, "dispatch", None)
        if validators and dispatch is not None:
            function.dispatch = _asking(dispatch, mark)  # type: ignore[attr-defined]
        return function
    wrapper = _asking(function, mark) if validators else function
    setattr(wrapper, _MARK, mark)
    return wrapper


def _asking(function: Any, mark: Marks) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asking_async(*args: Any, **kwargs: Any) -> Any:
            work = current_work.get()
            if work is not None:
                await work.run_async(work.look_at(mark.rules))
            return await function(*args, **kwargs)

        return asking_async

    @functools.wraps(function)
    def asking(*args: Any, **kwargs: Any) -> Any:
        work = current_work.get()
        if work is not None:
            work.run(work.look_at(mark.rules))
        return function(*args, **kwargs)

    return asking
