"""What the wrappers of all HTTP clients have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_audit.otel_api import say_once

if TYPE_CHECKING:
    from otel_audit.propagation.outgoing import Outgoing


class Propagation:
    """Whether calls tell who acts; a wrapper that others have wrapped again stays, and does nothing."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.outgoing: Outgoing | None = None

    def start(self) -> None:
        """Begin to tell."""
        self.outgoing = self._outgoing

    def stop(self) -> None:
        """Tell no longer."""
        self.outgoing = None


class Wrappers:
    """The wrappers of one client: each is made by a method that is given the original."""

    def __init__(self, propagation: Propagation) -> None:
        self._propagation = propagation


def destination_unknown(error: BaseException) -> None:
    """Say that a call goes on without what we would have told."""
    say_once("A call carries no signed audit context: its destination is not known", error)
