"""Work that no framework knows: ``@otel_audit.job`` and ``with otel_audit.job("billing.nightly")``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, overload

from otel_audit.location import application_function, view_name
from otel_audit.pipeline import provider

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NO_WORK: Final = nullcontext()
_entered: ContextVar[tuple[tuple[Job, AbstractContextManager[None]], ...]] = ContextVar(
    "otel_audit_jobs", default=()
)
"""The blocks that were entered, with the work of each, innermost last."""


@overload
def job(name: Callable[_P, _R], /) -> Callable[_P, _R]: ...
@overload
def job(name: str = "", /) -> Job: ...
def job(name: Any = "", /) -> Any:
    """Make a function, or a ``with`` block, a piece of work of its own, and record it.

    Outside a request or command the job is the actor (``system``), and the function is the way through: of
    a script run by cron, a function of APScheduler, a thread. All records made inside share its request id.
    ``job.run`` is recorded with outcome and duration; it is ``unknown`` if the process is killed meanwhile.

    ::

        @otel_audit.job                     # named after the function
        @otel_audit.job("billing.nightly")  # sync or async
        with otel_audit.job("billing.nightly"):

    Args:
        name: dotted and stable. Default: the function's.

    Raises:
        TypeError: what is decorated is a generator or a class, or has no name.
    """
    if isinstance(name, str):
        return Job(name)
    return Job("")(name)


class Job:
    """A kind of job, as decorator or ``with`` block; may be used any number of times, and nested."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function."""
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(self(function.__func__))
        _refuse(function)
        view = view_name(inspect.unwrap(function))
        name = self.name or view
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with _begin(name, view):
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with _begin(name, view):
                return function(*args, **kwargs)

        return run

    def __enter__(self) -> None:
        """Begin a block."""
        if not self.name:
            raise TypeError('a block needs a name: write `with otel_audit.job("billing.nightly"):`')
        work = _NO_WORK if provider.current() is None else _begin(self.name, application_function())
        _entered.set((*_entered.get(), (self, work)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block."""
        entered = _entered.get()
        if not entered or entered[-1][0] is not self:  # left in another context than it was entered in
            return
        _entered.set(entered[:-1])
        entered[-1][1].__exit__(kind, error, traceback)


def _refuse(function: Any) -> None:
    what = ""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        what = "a generator: it runs whenever its caller asks it to, not from start to end"
    elif inspect.isclass(function):
        what = "a class: decorate its methods"
    elif not callable(function):
        what = "neither a name nor a function"
    if what:
        raise TypeError(
            f"otel_audit.job cannot be used with {view_name(function)}, which is {what}. "
            'Write `with otel_audit.job("…"):` around the work that is to be one job'
        )


def _begin(name: str, view: str) -> AbstractContextManager[None]:
    """Begin a job; what is returned ends it, where anything is recorded."""
    if provider.current() is None:
        return _NO_WORK
    from otel_audit.runs.recording import of_jobs
    from otel_audit.runs.run import Invocation
    from otel_audit.runs.work import Work

    recording = of_jobs()
    return _NO_WORK if recording is None else Work.begin(recording, "job", Invocation(name, name, view))
