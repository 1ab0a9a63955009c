"""``[[policy]]``: how much is recorded of requests, calls, commands, tasks and changes; first match wins."""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from otel_audit.config.sections.section import Bytes, Section

Kind: TypeAlias = Literal["request", "outgoing", "command", "task", "change"]
LevelName: TypeAlias = Literal["none", "metadata", "request", "request_response"]
Patterns: TypeAlias = str | list[str]
Stage: TypeAlias = Literal["start", "end"]

KINDS: Final[tuple[Kind, ...]] = ("request", "outgoing", "command", "task", "change")
_WORK: Final[tuple[Kind, ...]] = ("request", "outgoing", "command", "task")
WITH_BODIES: Final[tuple[Kind, ...]] = ("request", "outgoing")
NAMES_WORK: Final = ("path", "view", "route")
"""The conditions that say which requests a rule is for, and not only whose or how."""

CONDITIONS: Final[dict[str, tuple[Kind, ...]]] = {
    "path": WITH_BODIES,
    "view": ("request",),
    "route": ("request",),
    "method": WITH_BODIES,
    "status": WITH_BODIES,
    "host": WITH_BODIES,
    "command": ("command",),
    "task": ("task",),
    "user": _WORK,
    "tenant": _WORK,
    "model": ("change",),
}
"""What a rule may ask for, and the kinds of event that have it."""

OPTIONS: Final[dict[str, tuple[Kind, ...]]] = {
    "slug": _WORK,
    "event_code": _WORK,
    "event_type": _WORK,
    "system": _WORK,
    "max_request_body": WITH_BODIES,
    "max_response_body": WITH_BODIES,
    "content_types": WITH_BODIES,
    "bodies": WITH_BODIES,
    "stages": ("request", "outgoing", "command"),
    "output": ("command", "task"),
}
"""What a rule may say beside its level, and the kinds of event to which it can apply."""


class PolicyRule(Section, frozen=True, kw_only=True):
    kind: Annotated[
        Kind | list[Kind] | None,
        Meta(
            description="Kinds of event the rule is for. If absent: all that have what the rule asks for; "
            "changes only if it asks for a `model`."
        ),
    ] = None
    path: Annotated[Patterns | None, Meta(description="Path of the address: `/api/*`.")] = None
    view: Annotated[
        Patterns | None,
        Meta(description="Dotted name of the function or class that answers: `shop.views.*`."),
    ] = None
    route: Annotated[
        Patterns | None,
        Meta(description="Route as the application has it: `api/cards/<int:pk>`, `/cards/{card_id}`."),
    ] = None
    method: Annotated[Patterns | None, Meta(description="Method: `POST`.")] = None
    status: Annotated[
        int | str | list[int | str] | None,
        Meta(description="Status of the response: `404`, `4xx`."),
    ] = None
    host: Annotated[
        Patterns | None,
        Meta(
            description="Host that was asked for, with or without its port: `*.example.com`. Of an outgoing "
            "call, the host it goes to."
        ),
    ] = None
    command: Annotated[
        Patterns | None, Meta(description="Name of a management command or job: `migrate`, `billing.*`.")
    ] = None
    task: Annotated[Patterns | None, Meta(description="Name of a task: `shop.tasks.*`.")] = None
    user: Annotated[
        Patterns | None, Meta(description="Id of the actor. `*` stands for anyone who is known.")
    ] = None
    tenant: Annotated[Patterns | None, Meta(description="Tenant.")] = None
    model: Annotated[
        Patterns | None,
        Meta(description="Model or table that is changed, written as in `[django] models`."),
    ] = None
    level: Annotated[
        LevelName,
        Meta(
            description="How much is recorded. Headers and bodies (`request`, `request_response`) only by a "
            "rule that asks for a path, view or route, or for the host of an outgoing call. For changes only "
            "`none` and `metadata` (which fields, without values)."
        ),
    ]
    slug: Annotated[str | None, Meta(description="Slug of the records.")] = None
    event_code: Annotated[str | None, Meta(description="Event code of the records.")] = None
    event_type: Annotated[str | None, Meta(description="Event type of the records.")] = None
    system: Annotated[str | None, Meta(description="System of the records.")] = None
    max_request_body: Annotated[
        Bytes | None, Meta(description="Largest part of a request's body that is recorded.")
    ] = None
    max_response_body: Annotated[
        Bytes | None, Meta(description="Largest part of a response's body that is recorded.")
    ] = None
    content_types: Annotated[
        list[str] | None, Meta(description="Content types whose bodies are recorded, with `*`.")
    ] = None
    bodies: Annotated[bool, Meta(description="With `false`, the level records headers, but no bodies.")] = (
        True
    )
    stages: Annotated[
        list[Stage] | None,
        Meta(
            description='With `["start", "end"]`, a record is kept before the work begins, so that work '
            "killed midway has one with outcome `unknown`."
        ),
    ] = None
    output: Annotated[
        bool, Meta(description="With `true`, what a task prints is recorded at `request_response`.")
    ] = False

    def patterns(self, condition: str) -> tuple[str, ...]:
        """Return the patterns of a condition; none if the rule does not ask for it."""
        value = getattr(self, condition)
        if value is None:
            return ()
        return tuple(map(str, value)) if isinstance(value, list) else (str(value),)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the rule asks for."""
        return tuple(name for name in CONDITIONS if getattr(self, name) is not None)

    def names(self, *conditions: str) -> bool:
        """Say whether one of these conditions means some work in particular.

        A pattern that excludes does not, nor one that takes everything.
        """
        patterns = (pattern for name in conditions for pattern in self.patterns(name))
        return any(not each.startswith("!") and each.strip("*?/") for each in patterns)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of event the rule is for."""
        if self.kind is not None:
            return tuple(self.kind) if isinstance(self.kind, list) else (self.kind,)
        found = KINDS if self.model is not None else _WORK
        for condition in self.conditions:
            found = tuple(kind for kind in found if kind in CONDITIONS[condition])
        return found
