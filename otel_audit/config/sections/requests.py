"""``[requests]``: records of the requests that come in."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from otel_audit.config.sections.section import BODY_BYTES, MaxRequestBody, MaxResponseBody, Section

_CONTENT_TYPES: Final = (
    "application/json",
    "application/*+json",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/xml",
    "application/*+xml",
    "text/xml",
    "text/csv",
    "text/plain",
)


class RequestsConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Record each request that comes in, of Django, Starlette and FastAPI and of "
            "applications in our ASGI and WSGI middleware. `[[policy]]` says how much of it."
        ),
    ] = False
    ignore_paths: Annotated[
        list[str],
        Meta(
            description="Paths whose requests are not recorded, with `*` and `?`: `/static/*`, `/health`. "
            "What happens in them is."
        ),
    ] = []
    ignore_addresses: Annotated[
        list[str],
        Meta(
            description="Client addresses and networks whose requests are not recorded: `10.0.0.7`, "
            "`192.168.0.0/16`, `fd00::/8`."
        ),
    ] = []
    max_request_body: MaxRequestBody = BODY_BYTES
    max_response_body: MaxResponseBody = BODY_BYTES
    content_types: Annotated[
        list[str],
        Meta(
            description="Content types of the bodies that are recorded, with `*` and `?`, where a rule asks "
            "for bodies and does not name types of its own."
        ),
    ] = msgspec.field(default_factory=lambda: list(_CONTENT_TYPES))
