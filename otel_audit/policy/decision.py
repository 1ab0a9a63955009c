"""What a policy is asked, and what it answers: plain data."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from otel_audit.config.sections.policy import Kind, Stage
from otel_audit.named_tuples import NamedTuple

__all__ = ["Decision", "Facts", "Kind", "Level", "Stage"]


class Level(IntEnum):
    """How much of an event is recorded; each level has all of those before it.

    ``NONE``: no record. ``METADATA``: everything but headers and bodies; of a task, all but arguments and
    result; of a command, all but output. ``REQUEST``: also the headers and body of the request, the
    arguments of a task. ``REQUEST_RESPONSE``: also the headers and body of the response, the result of a
    task, the output of a command.
    """

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def text(self) -> str:
        """The name as the configuration writes it."""
        return self.name.lower()


class Facts(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What is known of an event.

    ``None``: not known yet (:meth:`Policy.highest`), or there is none (:meth:`Policy.decide`). ``user`` is
    the id of the actor, ``host`` may have a port, ``command`` is the name of a command or a job.
    """

    path: str | None = None
    view: str | None = None
    route: str | None = None
    method: str | None = None
    status: int | None = None
    host: str | None = None
    command: str | None = None
    task: str | None = None
    user: str | None = None
    tenant: str | None = None
    model: str | None = None


class Decision(NamedTuple):
    """What is recorded of one event.

    ``rule`` is the number of the rule that decided, from 1; None where no rule matched. Texts are empty,
    limits and content types None, and ``stages`` empty where the rule does not say: the section of the kind
    decides. With ``bodies`` false, no body is recorded at any level. ``capped`` is the word because of which
    a rule above ``METADATA`` gave no more than that; empty where nothing did.
    """

    level: Level = Level.METADATA
    rule: int | None = None
    slug: str = ""
    event_code: str = ""
    event_type: str = ""
    system: str = ""
    max_request_body: int | None = None
    max_response_body: int | None = None
    content_types: tuple[str, ...] | None = None
    stages: tuple[Stage, ...] = ()
    output: bool = False
    bodies: bool = True
    capped: str = ""

    def texts(self) -> dict[str, str]:
        """Return the texts that its rule gives to a record, by field: a new dict of those that it says."""
        said = {
            "slug": self.slug,
            "event_code": self.event_code,
            "event_type": self.event_type,
            "system": self.system,
        }
        return {name: text for name, text in said.items() if text}
