"""``[sink]``: where records are sent."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Seconds, Section


class SinkConfig(Section, frozen=True):
    endpoint: Annotated[
        str,
        Meta(
            description="OTLP/HTTP address to which records are sent. HTTP_PROXY, HTTPS_PROXY and "
            "NO_PROXY are respected as by OpenTelemetry's exporters."
        ),
    ] = "http://127.0.0.1:4318/v1/audit"
    token: Annotated[str, Meta(description="Bearer token. Prefer OTEL_AUDIT_SINK_TOKEN.", extra=SECRET)] = ""
    headers: Annotated[
        dict[str, str],
        Meta(
            description="Additional request headers. Percent-encoded in OTEL_AUDIT_SINK_HEADERS, as in "
            "OTEL_EXPORTER_OTLP_HEADERS.",
            extra=SECRET,
        ),
    ] = {}
    compression: Annotated[Literal["gzip", "none"], Meta(description="Compression of request bodies.")] = (
        "gzip"
    )
    ca_file: Annotated[
        str, Meta(description="PEM file with CA certificates for https. If empty, the system's are used.")
    ] = ""
    timeout: Annotated[Seconds, Meta(description="Timeout of one request, including its response.")] = 10.0
    batch_records: Annotated[int, Meta(ge=1, description="Maximum number of records per request.")] = 2000
    batch_bytes: Annotated[
        int, Meta(ge=1024, description="Maximum size of a request before compression.")
    ] = 4 * 1024 * 1024
    max_delay: Annotated[
        Seconds, Meta(description="How long a record may wait so that others can be sent with it.")
    ] = 0.1
    max_backoff: Annotated[Seconds, Meta(description="Longest pause between two attempts to send.")] = 30.0
    shutdown_timeout: Annotated[
        Seconds,
        Meta(
            description="How long a process that exits waits for the sink. Records that were not sent "
            "by then stay in the spool."
        ),
    ] = 5.0
