"""The distributions and agents otel-audit is tried beside, each as its own documentation starts it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Neighbour(NamedTuple):
    """One of them.

    ``packages`` are installed next to ``otel-audit[django]``, the first is the one it is about; ``command``
    starts the application, after its directory ``bin``; in ``variables`` ``{url}`` is where it sends to.
    """

    title: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    how: str
    variables: dict[str, str]


_AGENT: Final = ("opentelemetry-instrument", "python")
_OTLP: Final = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "{url}",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}

NEIGHBOURS: Final = {
    "logfire": Neighbour(
        "Logfire",
        ("logfire[django]",),
        _AGENT,
        "`opentelemetry-instrument`, `logfire.configure()`",
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"},
    ),
    "elastic": Neighbour(
        "Elastic",
        ("elastic-opentelemetry",),
        _AGENT,
        "`opentelemetry-instrument`",
        _OTLP,
    ),
    "aws": Neighbour(
        "AWS",
        ("aws-opentelemetry-distro",),
        _AGENT,
        "`opentelemetry-instrument`, with `aws_distro` and `aws_configurator` by name",
        _OTLP
        | {
            "OTEL_PYTHON_DISTRO": "aws_distro",
            "OTEL_PYTHON_CONFIGURATOR": "aws_configurator",
            "OTEL_TRACES_SAMPLER": "always_on",
        },
    ),
    "azure": Neighbour(
        "Azure Monitor",
        ("azure-monitor-opentelemetry",),
        ("python",),
        "`configure_azure_monitor()`, then `otel_audit.setup()`",
        {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey="
            "00000000-0000-0000-0000-000000000001;IngestionEndpoint={url}/",
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
        },
    ),
    "datadog": Neighbour(
        "Datadog",
        ("ddtrace",),
        ("ddtrace-run", "python"),
        "`ddtrace-run`, `DD_TRACE_OTEL_ENABLED=true`, then `otel_audit.setup()`",
        {
            "DD_TRACE_OTEL_ENABLED": "true",
            "DD_TRACE_AGENT_URL": "{url}",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        },
    ),
    "sentry": Neighbour(
        "Sentry",
        ("sentry-sdk[opentelemetry-otlp]", "opentelemetry-distro", "opentelemetry-exporter-otlp"),
        ("python",),
        "`sentry_sdk.init()` with its `OTLPIntegration`, then `otel_audit.setup()`",
        {"SENTRY_DSN": "{scheme}://key@{host}/1"},
    ),
}
