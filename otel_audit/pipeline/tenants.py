"""Whose data the current work is about, as a function of the application says it (``tenant_from``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from otel_audit.pipeline.application_function import NOT_KNOWN, ApplicationFunction
from otel_audit.values import Conversion

_LONGEST: Final = 256
_NOT_A_NAME: Final = (bool, float, bytes, bytearray, list, tuple, set, frozenset, dict)


class TenantSource:
    """Calls the function that ``package.module:function`` names, with the current request or None."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._function = ApplicationFunction("tenant_from", path, "a tenant", "a text, a number or None")

    def __call__(self, request: Any) -> str | None:
        """Return the tenant; empty if there is none, None if it cannot be known. Never raises."""
        tenant = self._function.ask(request, self._read, "")
        return None if tenant is NOT_KNOWN else tenant

    def resolve(self) -> Callable[[Any], Any]:
        """Import the function; raises whatever importing it does."""
        return self._function.resolve()

    def _read(self, value: Any) -> Any:
        if value is None or value == "":
            return ""
        convert = Conversion()
        text = "" if isinstance(value, _NOT_A_NAME) else convert.text(value)
        own: Any = type(value).__str__
        nameless = convert.guessed and own is object.__str__
        if not text or not convert.complete or nameless or len(text) > _LONGEST:
            return self._function.returned_nonsense(value)
        return text
