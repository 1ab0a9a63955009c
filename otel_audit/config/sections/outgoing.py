"""``[outgoing]``: which calls to other services are recorded."""

from typing import Annotated

from msgspec import Meta

from otel_audit.config.sections.section import BODY_BYTES, MaxRequestBody, MaxResponseBody, Section


class OutgoingConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Record each call to another service made with http.client, urllib, urllib3, "
            "requests, httpx or aiohttp, or by what is built on them, such as zeep and suds. `[[policy]]` "
            "says how much of it."
        ),
    ] = False
    ignore_hosts: Annotated[
        list[str],
        Meta(
            description="Hosts to which calls are not recorded: `host`, `host:port`, or `*.domain` for all "
            "hosts below a domain."
        ),
    ] = []
    max_request_body: MaxRequestBody = BODY_BYTES
    max_response_body: MaxResponseBody = BODY_BYTES
