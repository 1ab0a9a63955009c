"""What the application says of the work it is doing: of the request, command, task or job itself.

It is kept on the scope of the work, and stands on the record that is made when the work ends.
"""

from __future__ import annotations

from typing import Any

from otel_audit.audit_record import Target
from otel_audit.values import MAX_PARTS, Conversion


class Notes:
    """What was said of one piece of work.

    Attributes:
        slug, event_code, event_type, system: texts of its record; empty: those of the policy.
        related: the objects it is about, each once.
        attributes: portable values by name.
        level: the level at which it is recorded, instead of that of the policy: 0 (nothing) to 3.
        hide_request_body, hide_response_body: never record that body.
        complete: whether all that was said could be kept.
    """

    __slots__ = (
        "attributes",
        "complete",
        "event_code",
        "event_type",
        "hide_request_body",
        "hide_response_body",
        "level",
        "related",
        "slug",
        "system",
    )

    def __init__(self) -> None:
        self.slug = ""
        self.event_code = ""
        self.event_type = ""
        self.system = ""
        self.related: dict[Target, None] = {}
        self.attributes: dict[str, Any] = {}
        self.level: int | None = None
        self.hide_request_body = False
        self.hide_response_body = False
        self.complete = True

    def relate(self, targets: tuple[Target, ...], *, complete: bool = True) -> None:
        """Add objects that the work is about."""
        for target in targets:
            if len(self.related) >= MAX_PARTS:
                complete = False
                break
            self.related[target] = None
        self.complete = self.complete and complete

    def say(
        self,
        *,
        slug: Any = None,
        event_code: Any = None,
        event_type: Any = None,
        system: Any = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Add what is given; a text that was given before is replaced. Values of any type are converted."""
        convert = Conversion()
        if slug is not None:
            self.slug = convert.text(slug)
        if event_code is not None:
            self.event_code = convert.text(event_code)
        if event_type is not None:
            self.event_type = convert.text(event_type)
        if system is not None:
            self.system = convert.text(system)
        if attributes:
            self.attributes |= convert.named(attributes)
        self.complete = self.complete and convert.complete

    def parts(self) -> dict[str, Any]:
        """Return what was said as keyword arguments of :meth:`~otel_audit.pipeline.logger.AuditLogger.log`.

        ``attributes`` is a new dict each time: the caller adds its own. Texts not said are absent.
        """
        said: dict[str, Any] = {"related": list(self.related), "attributes": dict(self.attributes)}
        for name in ("slug", "event_code", "event_type", "system"):
            if text := getattr(self, name):
                said[name] = text
        if not self.complete:
            said["truncated"] = True
        return said
