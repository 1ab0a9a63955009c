"""What must be known to decide about a request: plain data, asked for by generators."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Protocol, TypeAlias

from otel_audit.contrib.throttling.counters.windows import Change, Window
from otel_audit.contrib.throttling.rules import Rule
from otel_audit.named_tuples import NamedTuple


class Count(NamedTuple):
    """Asks for a step of the counter."""

    windows: list[Window]
    change: Change


class WhoAsks:
    """Asks for the user."""


Asking: TypeAlias = Generator[Count | WhoAsks | Awaitable[Any], Any, None]
Placed: TypeAlias = tuple[Rule, str]
"""A rule and where it stands: rules of one place count together."""


class Asked(Protocol):
    """A request, as its framework knows it."""

    @property
    def request(self) -> Any:
        """What functions of the application are called with."""

    @property
    def path(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def address(self) -> str:
        """Who sent it, as records say it (X5); empty if that cannot be known."""

    @property
    def route(self) -> str:
        """The template of what was asked for, its path where there is none."""

    def user(self) -> str:
        """Return the id of the user, empty for a visitor."""

    async def user_async(self) -> str:
        """Do the same."""
