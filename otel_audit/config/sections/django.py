"""``[django]``: what is recorded in Django."""

from typing import Annotated

from msgspec import Meta

from otel_audit.config.sections.capture import CaptureSection


class DjangoConfig(CaptureSection, frozen=True):
    auth_events: Annotated[
        bool,
        Meta(
            description="Record logins, logouts, failed logins and refused requests (401, 403, redirects to "
            "the login)."
        ),
    ] = True
