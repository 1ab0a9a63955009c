"""``[starlette]``: what is recorded in Starlette and FastAPI."""

from typing import Annotated

from msgspec import Meta

from otel_audit.config.sections.section import Section


class StarletteConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(description="Audit requests of Starlette and FastAPI. Needs the extra `otel-audit[fastapi]`."),
    ] = True
    auth_events: Annotated[
        bool,
        Meta(
            description="Record refused requests and connections (401, 403, redirects to a login, websockets "
            "closed for a lack of permission)."
        ),
    ] = True
