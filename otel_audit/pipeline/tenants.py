"""Whose data the current work is about, as a function of the application says it (``tenant_from``)."""

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
from otel_audit.values import Conversion

_PAUSE: Final = 1.0
"""Seconds until what could not be imported is tried again."""
_LONGEST: Final = 256
_NOT_A_NAME: Final = (bool, float, bytes, bytearray, list, tuple, set, frozenset, dict)


class TenantSource:
    """Calls the function that ``package.module:function`` names, with the current request or None.

    It is imported when it is first needed: audit starts before the application does.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._function: Callable[[Any], Any] | None = None
        self._tried = -_PAUSE
        self._asking = threading.local()
        self._log = Throttle()

    def __call__(self, request: Any) -> str | None:
        """Return the tenant; empty if there is none, None if it cannot be known. Never raises."""
        if getattr(self._asking, "now", False):  # what it reads or writes itself
            return ""
        self._asking.now = True
        try:
            return self._ask(request)
        except faults() as error:  # the function is the application's, the record is ours
            self._fail("failed", error)
            return None
        finally:
            self._asking.now = False

    def resolve(self) -> Callable[[Any], Any]:
        """Import the function; raises whatever importing it does."""
        module, _, names = self.path.partition(":")
        found: Any = import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
        if not callable(found) or inspect.iscoroutinefunction(found):
            raise TypeError(f"{self.path} is not a plain function")
        return found  # type: ignore[no-any-return]

    def _ask(self, request: Any) -> str | None:
        function = self._function
        if function is None:
            now = time.monotonic()
            if now - self._tried < _PAUSE:
                return None
            self._tried = now
            function = self._function = self.resolve()
        value = function(request)
        if value is None or value == "":
            return ""
        convert = Conversion()
        text = "" if isinstance(value, _NOT_A_NAME) else convert.text(value)
        own: Any = type(value).__str__
        nameless = convert.guessed and own is object.__str__
        if not text or not convert.complete or nameless or len(text) > _LONGEST:
            if inspect.iscoroutine(value):
                value.close()
            self._fail("returned", type(value).__qualname__)
            return None
        return text

    def _fail(self, how: str, what: object) -> None:
        self._log(
            logging.ERROR,
            how,
            "tenant_from: %s %s %r; records are made without a tenant",
            self.path,
            how,
            what,
        )
