"""``[span_event]``: the event on the current span."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import Section


class SpanEventConfig(Section, frozen=True):
    content: Annotated[
        Literal["summary", "full", "none"],
        Meta(
            description="Content of the event on the current span. `summary`: id, action, outcome, "
            "target and the names of changed fields; the record of a request adds none to the request's own "
            "span, which says the same. `full`: the whole record, also of a request. `none`: no event."
        ),
    ] = "summary"
