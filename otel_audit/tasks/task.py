"""A task as its queue tells of it: plain data, and the attributes that records of it have."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import msgspec

from otel_audit.audit_record import Target
from otel_audit.semconv import (
    TASK_COUNTDOWN,
    TASK_ETA,
    TASK_EXPIRES,
    TASK_ID,
    TASK_QUEUE,
    TASK_RETRIES,
    TASK_STATE,
)

if TYPE_CHECKING:
    from otel_audit.http.contents import Contents
_WRAPPERS = 16


class Task(msgspec.Struct, frozen=True):
    """One task.

    Attributes:
        name: as it is registered: ``shop.tasks.ship``.
        id: the same in every try.
        queue: the queue, or the routing key where only that is known.
        args, kwargs: what it is called with.
        retries: how often it was tried before.
        eta, expires: times as ISO 8601, empty if there are none.
        starts: ``eta`` in seconds since the epoch; None without.
        countdown: seconds, as the caller said them.
        redelivered: the broker says that it was delivered before.
        function: what is run, where that is known; not called.
        more: other attributes of its records.
    """

    name: str
    id: str
    queue: str = ""
    args: Any = ()
    kwargs: Any = {}
    retries: int = 0
    eta: str = ""
    expires: str = ""
    starts: float | None = None
    countdown: float | None = None
    redelivered: bool = False
    function: Any = None
    more: Mapping[str, Any] = {}

    @property
    def target(self) -> Target:
        """What its records are about."""
        return Target(self.name, self.id)

    def attributes(self, state: str) -> dict[str, Any]:
        """Return the attributes of a record of it: a new dict."""
        said: dict[str, Any] = {TASK_ID: self.id, TASK_STATE: state, TASK_RETRIES: self.retries}
        for name, value in (
            (TASK_QUEUE, self.queue),
            (TASK_ETA, self.eta),
            (TASK_EXPIRES, self.expires),
            (TASK_COUNTDOWN, self.countdown),
        ):
            if value:
                said[name] = value
        said.update(self.more)
        return said

    def arguments(self, contents: Contents) -> dict[str, Any]:
        """Return what it is called with, without secrets; nothing of the values is called."""
        return contents.parameters(self.args, self.kwargs, _names(self.function))


def _names(function: Any) -> tuple[str, ...]:
    """Return the names of a function's parameters by position; none where it is not a plain function."""
    bound = type(function) is MethodType
    if bound:
        function = function.__func__
    for _ in range(_WRAPPERS):
        if type(function) is not FunctionType:
            return ()
        inner = function.__dict__.get("__wrapped__")
        if inner is None:
            code = function.__code__
            return code.co_varnames[int(bound) : code.co_argcount]
        function = inner
    return ()
