"""What a record of a request takes from the request, as each kind of server and framework has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from otel_audit.audit_record import Actor
from otel_audit.notes import Notes


class AskedScope(Protocol):
    """The scope of a request, of any kind."""

    id: str
    notes: Notes | None
    recording: Any

    def take_requester(self) -> Actor:
        """Return who made the request: who acts now, or before a logout in it."""
        ...


class Asked(Protocol):
    """A request that came in. Nothing is read, evaluated or loaded for an answer."""

    def method(self) -> str:
        """Return the method."""
        ...

    def path(self) -> str:
        """Return the whole path, as text."""
        ...

    def scheme(self) -> str:
        """Return ``https``, ``http``, ``wss`` or ``ws``."""
        ...

    def query(self) -> str:
        """Return the query string as it came."""
        ...

    def header(self, name: str) -> str:
        """Return a header by its lower-case name; empty if there is none."""
        ...

    def headers(self) -> Iterable[tuple[str, str]]:
        """Return all headers."""
        ...

    def address(self) -> str:
        """Return the address of the client."""
        ...

    def view(self) -> Any:
        """Return the function or class that answers; None as long as it is not known."""
        ...

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of the path."""
        ...
