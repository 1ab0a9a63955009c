"""The whole configuration. Every setting stands in one place: name, type, default, bounds and what it is for.

Each table has a file in :mod:`otel_audit.config.sections`; `otel-audit init`, `otel-audit config show` and
``docs/configuration.md`` are generated from them. Sizes are bytes, times are seconds unless a name says
otherwise.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from otel_audit.config.sections.capture import CaptureSection, ModelConfig
from otel_audit.config.sections.celery import CeleryConfig, RQConfig
from otel_audit.config.sections.commands import CommandsConfig
from otel_audit.config.sections.context import ContextConfig
from otel_audit.config.sections.django import DjangoConfig
from otel_audit.config.sections.outgoing import OutgoingConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.config.sections.redaction import PLACES, Place, PlaceRules, RedactionConfig
from otel_audit.config.sections.requests import RequestsConfig
from otel_audit.config.sections.section import SECRET, Age, Bytes, Seconds, Section, Strategy
from otel_audit.config.sections.server import ServerConfig
from otel_audit.config.sections.sink import SinkConfig
from otel_audit.config.sections.span_event import SpanEventConfig
from otel_audit.config.sections.spool import SpoolConfig
from otel_audit.config.sections.sqlalchemy import SQLAlchemyConfig
from otel_audit.config.sections.starlette import StarletteConfig
from otel_audit.config.sections.store import StoreConfig
from otel_audit.config.sections.throttling import ThrottlingConfig, ThrottlingRuleConfig

__all__ = [
    "PLACES",
    "SECRET",
    "Age",
    "AuditConfig",
    "Bytes",
    "CaptureSection",
    "CeleryConfig",
    "CommandsConfig",
    "ContextConfig",
    "DjangoConfig",
    "ModelConfig",
    "OutgoingConfig",
    "Place",
    "PlaceRules",
    "PolicyRule",
    "RQConfig",
    "RedactionConfig",
    "RequestsConfig",
    "SQLAlchemyConfig",
    "Seconds",
    "Section",
    "ServerConfig",
    "SinkConfig",
    "SpanEventConfig",
    "SpoolConfig",
    "StarletteConfig",
    "StoreConfig",
    "Strategy",
    "ThrottlingConfig",
    "ThrottlingRuleConfig",
    "capture_sections",
]


class AuditConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Whether anything is audited. OTEL_SDK_DISABLED does not switch audit off; this does."
        ),
    ] = True
    on_error: Annotated[
        Literal["fail_open", "fail_closed"],
        Meta(
            description="What happens when a record cannot be kept. `fail_open`: log it, count it, and "
            "let the application go on. `fail_closed`: raise an exception in the application, and "
            "refuse to start if audit cannot start."
        ),
    ] = "fail_open"
    tenant: Annotated[str, Meta(description="Tenant of every record that does not name one.")] = ""
    tenant_from: Annotated[
        str,
        Meta(
            description="Function of the application that returns the tenant of a record, as "
            "`package.module:function`. It is called with the current request (None outside a request) when "
            "the record is made, and returns a name, a number, an object with a primary key, or None. It "
            "must not query a database."
        ),
    ] = ""
    system: Annotated[
        str, Meta(description="Name of this part of the system (app, scheduler, …), on every record.")
    ] = ""
    record_tests: Annotated[
        bool,
        Meta(
            description="Also record what tests do, in Django's test environment and in test "
            "databases. By default only `otel_audit.testing` records it."
        ),
    ] = False
    django: Annotated[DjangoConfig, Meta(description="What is recorded in Django.")] = DjangoConfig()
    sqlalchemy: Annotated[SQLAlchemyConfig, Meta(description="What is recorded in SQLAlchemy.")] = (
        SQLAlchemyConfig()
    )
    starlette: Annotated[StarletteConfig, Meta(description="What is recorded in Starlette and FastAPI.")] = (
        StarletteConfig()
    )
    commands: Annotated[
        CommandsConfig, Meta(description="Management commands, and those of Click and Typer.")
    ] = CommandsConfig()
    policy: Annotated[
        list[PolicyRule],
        Meta(
            description="How much is recorded of a request, an outgoing call, a command, a task or a "
            "change, once its own section records it at all. A list of rules: the first whose every "
            "condition holds decides, and `metadata` where none does. A condition is a pattern or a list of "
            "patterns with `*` and `?`; a leading `!` excludes."
        ),
    ] = []
    outgoing: Annotated[OutgoingConfig, Meta(description="Calls to other services.")] = OutgoingConfig()
    throttling: Annotated[
        ThrottlingConfig, Meta(description="How often somebody may ask, and try to log in.")
    ] = ThrottlingConfig()
    celery: Annotated[CeleryConfig, Meta(description="What is recorded of Celery's tasks.")] = CeleryConfig()
    rq: Annotated[RQConfig, Meta(description="What is recorded of RQ's jobs.")] = RQConfig()
    requests: Annotated[RequestsConfig, Meta(description="Requests that come in.")] = RequestsConfig()
    context: Annotated[ContextConfig, Meta(description="Who acted, and from where.")] = ContextConfig()
    redaction: Annotated[RedactionConfig, Meta(description="What is sensitive.")] = RedactionConfig()
    span_event: Annotated[SpanEventConfig, Meta(description="The event on the current span.")] = (
        SpanEventConfig()
    )
    spool: Annotated[
        SpoolConfig, Meta(description="Records on disk until the sink has acknowledged them.")
    ] = SpoolConfig()
    sink: Annotated[SinkConfig, Meta(description="Where records are sent.")] = SinkConfig()
    store: Annotated[StoreConfig, Meta(description="Where the trail is queried.")] = StoreConfig()
    server: Annotated[ServerConfig, Meta(description="`otel-audit serve`.")] = ServerConfig()

    @property
    def fail_closed(self) -> bool:
        """Say whether what cannot be recorded is refused to the application."""
        return self.on_error == "fail_closed"


def capture_sections(config: AuditConfig) -> dict[str, CaptureSection]:
    """Return the sections that say what a database instrumentor records, by name."""
    return {
        name: section
        for name, section in msgspec.structs.asdict(config).items()
        if isinstance(section, CaptureSection)
    }
