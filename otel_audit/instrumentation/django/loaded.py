"""What an instance was loaded with: the old value of a later save, while it may be trusted.

``Model.from_db`` hands out the row; keeping it by reference costs nothing. When it may still be trusted is
decided by :class:`~otel_audit.capture.freshness.Freshness`, and that the instance still has the same key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from otel_audit.capture.freshness import Epoch
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.capture.statement import Statement
    from otel_audit.instrumentation.django.writes.migrations import Migrating

STATE_KEY: Final = "_otel_audit"
"""Where a :class:`Loaded` stands in ``instance._state``."""


class Saving(NamedTuple):
    """The instance whose UPDATE comes next, the key it is saved under, and the model whose table it is."""

    instance: Any
    key: Any
    model: Any


def put_back(state: Any, previous: Loaded | None) -> None:
    """Make ``previous`` what an instance was loaded with: its write was undone."""
    state.__dict__[STATE_KEY] = previous


_Counted = Literal["internal", "suppressed", "compiling"]


class ThreadState(threading.local):
    """What one thread is doing; a thread reads and writes through connections of its own, so it is a reader.

    ``saving`` is the instance whose UPDATE comes next, ``deleting`` the one that is being deleted with what
    hangs on it, ``loaded`` collects what ``refresh_from_db`` loads
    with the instance made of it, ``statement`` is the captured statement that is running or being noted,
    ``internal`` counts blocks of Django's own transaction handling, ``suppressed`` blocks in which nothing is
    captured, ``compiling`` compilers of audited models at work, ``executed`` statements sent, ``runs``
    captured ones. ``inserted`` is the row count of the last INSERT of a compiler, None where nobody said it.
    ``migrating`` is the migration that is running.
    """

    def __init__(self) -> None:
        self.epoch = Epoch()
        self.identity = object()
        self.saving: Saving | None = None
        self.deleting: Any = None
        self.loaded: list[tuple[Any, Loaded]] | None = None
        self.statement: Statement | None = None
        self.executed = 0
        self.runs = 0
        self.inserted: int | None = None
        self.internal = 0
        self.suppressed = 0
        self.migrating: Migrating | None = None
        self.compiling = 0
        self.own_transactions = 0

    def during(self, what: _Counted, run: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run something, and meanwhile count it in ``what``."""
        here = self.__dict__  # of this thread: one look for it instead of one for each attribute
        outer = here[what]
        try:
            try:
                here[what] = outer + 1
                return run(*args, **kwargs) if kwargs else run(*args)
            finally:
                here[what] = outer
        finally:  # once more: an interruption may come between any two lines
            here[what] = outer


class Loaded(msgspec.Struct, gc=False, eq=False):
    """The values an instance was loaded or written with.

    ``values`` is the row in the order of ``names`` until :meth:`by_name` makes it a dict. For a model with
    JSON columns ``names`` is its plan, and ``documents`` the JSON of what was loaded from these: the
    application may have changed the lists and dicts of the row in place since. A pickle of an instance
    carries ``False`` in its place, so that it can be read without this package.
    """

    names: Any
    values: Any
    epoch: Epoch
    seq: int
    documents: bytes | None = None

    def by_name(self) -> dict[str, Any]:
        """Return the values by attname, frozen; the dict must not be changed."""
        values: Any = self.values
        if self.names is None:
            return values  # type: ignore[no-any-return]
        if self.documents is None:
            values = dict(zip(self.names, values, strict=True))
        else:
            values = self.names.by_name(values, self.documents)
        self.values = values
        self.names = self.documents = None
        return values  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return bool, ()

    def __copy__(self) -> Loaded:
        return self

    def __deepcopy__(self, memo: Any) -> Loaded:
        return self
