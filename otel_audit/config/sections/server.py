"""``[server]``: `otel-audit serve`."""

from typing import Annotated

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Bytes, Section


class ServerConfig(Section, frozen=True):
    data: Annotated[
        str, Meta(description="Data directory of the embedded store. Relative to the configuration file.")
    ] = ".otel-audit/store"
    host: Annotated[
        str, Meta(description="Address to listen on. Any address except loopback requires a write token.")
    ] = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535, description="Port for OTLP over HTTP.")] = 4318
    grpc_port: Annotated[int, Meta(ge=0, le=65535, description="Port for OTLP over gRPC.")] = 4317
    clickhouse_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port for queries, over ClickHouse-compatible HTTP.")
    ] = 8123
    token: Annotated[
        str,
        Meta(
            description="Bearer token to write, read and administer. Prefer OTEL_AUDIT_SERVER_TOKEN.",
            extra=SECRET,
        ),
    ] = ""
    read_token: Annotated[
        str,
        Meta(
            description="Token to read, instead of `token`. If neither is set, the server generates "
            "one and keeps it in the file `read-token` of its data directory, where the commands of "
            "the same user find it.",
            extra=SECRET,
        ),
    ] = ""
    write_token: Annotated[
        str,
        Meta(
            description="Token to write, by OTLP or as the Collector's ClickHouse exporter does, "
            "instead of `token`. If neither is set, every program on this machine may write.",
            extra=SECRET,
        ),
    ] = ""
    admin_token: Annotated[
        str,
        Meta(
            description="Token to write and to read, in addition to `write_token` and `read_token`, "
            "instead of `token`.",
            extra=SECRET,
        ),
    ] = ""
    no_token: Annotated[bool, Meta(description="Let every program on this machine read without a token.")] = (
        False
    )
    hosts: Annotated[
        list[str],
        Meta(
            description="Additional host names (header `Host`) by which requests without a token may "
            "reach this server. `localhost` and the machine's addresses are always allowed. Other "
            "names are refused, because a web page could make its own name resolve to this server."
        ),
    ] = []
    fsync: Annotated[bool, Meta(description="Flush to disk before a request is acknowledged.")] = True
    max_request_bytes: Annotated[
        Bytes, Meta(description="Maximum size of a request body after decompression.")
    ] = 64 * 1024 * 1024
    record_queries: Annotated[
        bool,
        Meta(
            description="Record who asks what at the query port, in the log `access` "
            "(`otel-audit query --log access`)."
        ),
    ] = True
    memory_bytes: Annotated[Bytes, Meta(description="Memory that the database engine may use.")] = (
        2 * 1024 * 1024 * 1024
    )
