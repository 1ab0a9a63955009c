"""A function of the application that a setting names: asked for detail of a record, never costing one."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from otel_audit.interruptions import faults
from otel_audit.pipeline.health import Throttle

_PAUSE: Final = 1.0
"""Seconds until what could not be imported is tried again."""
NOT_KNOWN: Final = object()
"""What a call returns that could not be made, or raised."""


def imported(path: str) -> Any:
    """Return what ``package.module:name`` names, or ``package.module.name``.

    Raises:
        ImportError, AttributeError: it is not there.
        ValueError: it is no such path.
    """
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    if not module or not name:
        raise ValueError(f"{path!r} names nothing: write package.module:name")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class ApplicationFunction:
    """Calls the function that ``package.module:function`` names, with the current request or None.

    It is imported when it is first needed: audit starts before the application does. What it writes and reads
    itself asks it nothing.

    Args:
        setting: the setting that names it: ``tenant_from``.
        path: ``package.module:function``.
        without: what records lack when it fails: ``a tenant``.
        returns: what it has to return, for the message that it does not.
        called_by_others: whether a function is one that a framework calls, and :meth:`ask` never does: it
            need not be a plain function.
    """

    def __init__(
        self,
        setting: str,
        path: str,
        without: str,
        returns: str,
        called_by_others: Callable[[Any], bool] = lambda function: False,
    ) -> None:
        self.path = path
        self._called_by_others = called_by_others
        self._setting = setting
        self._without = without
        self._returns = returns
        self._function: Callable[[Any], Any] | None = None
        self._tried = -_PAUSE
        self._asking = threading.local()
        self._log = Throttle()

    def ask(self, request: Any, read: Callable[[Any], Any], nothing: Any) -> Any:
        """Return what ``read`` makes of the function's answer. Never raises.

        Returns:
            ``nothing`` while the function itself is running, ``NOT_KNOWN`` if it, or ``read``, raised.
        """
        if getattr(self._asking, "now", False):
            return nothing
        self._asking.now = True
        try:
            function = self.load()
            return NOT_KNOWN if function is None else read(function(request))
        except faults() as error:  # the function is the application's, the record is ours
            self.failed("failed", error)
            return NOT_KNOWN
        finally:
            self._asking.now = False

    def load(self) -> Callable[..., Any] | None:
        """Return the function; None if it cannot be imported, which is logged, and tried again later."""
        if self._function is None:
            now = time.monotonic()
            if now - self._tried < _PAUSE:
                return None
            self._tried = now
            try:
                self._function = self.resolve()
            except faults() as error:
                self.failed("failed", error)
        return self._function

    def resolve(self) -> Callable[..., Any]:
        """Import the function; raises whatever importing it does."""
        found = imported(self.path)
        if self._called_by_others(found):
            return found  # type: ignore[no-any-return]
        if not callable(found) or inspect.iscoroutinefunction(getattr(found, "__func__", found)):
            raise TypeError(f"{self.path} is not a plain function")
        return found  # type: ignore[no-any-return]

    def returned_nonsense(self, value: Any) -> Any:
        """Log what cannot be used, by its type, and return ``NOT_KNOWN``."""
        if inspect.iscoroutine(value):
            value.close()
        self.failed("returned", type(value).__qualname__, f"; it must return {self._returns}")
        return NOT_KNOWN

    def failed(self, how: str, what: object, advice: str = "") -> None:
        """Log what went wrong and where, once per minute."""
        self._log(
            logging.ERROR,
            how,
            "%s: %s %s %r%s; records are made without %s%s",
            self._setting,
            self.path,
            how,
            what,
            self.place(),
            self._without,
            advice,
        )

    def place(self) -> str:
        """Return file and line of the function in brackets, as far as it is known and has one."""
        function = getattr(self._function, "__func__", self._function)
        code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
        return f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
