"""``serve``: the store for a laptop or one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from otel_audit.cli.options import ConfigFile
from otel_audit.config.loader import load
from otel_audit.config.model import ServerConfig

_PORT = {"min": 0, "max": 65535, "show_default": False}


def serve(
    data: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Data directory.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Any address except loopback requires a write token.",
            show_default=False,
        ),
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for OTLP over HTTP: 4318.", **_PORT)] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for OTLP over gRPC: 4317.", **_PORT)] = None,
    clickhouse_port: Annotated[
        int | None, typer.Option(help="Port for queries, over ClickHouse's HTTP interface: 8123.", **_PORT)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Bearer token to read and write. Prefer OTEL_AUDIT_SERVER_TOKEN: other users can see "
            "a command line.",
            show_default=False,
        ),
    ] = None,
    no_token: Annotated[
        bool | None,
        typer.Option(
            "--no-token", help="Let every program on this machine read without a token.", show_default=False
        ),
    ] = None,
    new_token: Annotated[
        bool,
        typer.Option("--new-token", help="Replace the generated read token; the old one is no longer valid."),
    ] = False,
    fsync: Annotated[
        bool | None,
        typer.Option(
            "--fsync/--no-fsync",
            help="Flush to disk before a request is acknowledged.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    r"""Receive records and spans over OTLP, store them, and answer queries, until Ctrl-C.

    Options override the server section of the configuration. Port 0 selects a free port.

    Reading requires a token. The server generates it when it first starts and keeps it in the file read-token
    of the data directory. Commands of the same user find it while the server runs; other clients send it in a
    header (Authorization: Bearer, or as the password). Programs on this machine may write without a token.

    \b
    otel-audit serve
    otel-audit serve --data /var/lib/otel-audit
    OTEL_AUDIT_SERVER_TOKEN=… otel-audit serve --host 0.0.0.0
    """
    from otel_audit.server import run

    loaded = load(config).config
    given: dict[str, Any] = {
        "data": str(data.absolute()) if data is not None else None,
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "clickhouse_port": clickhouse_port,
        "token": token,
        "no_token": no_token,
        "fsync": fsync,
    }
    server = msgspec.to_builtins(loaded.server) | {
        name: value for name, value in given.items() if value is not None
    }
    run(msgspec.structs.replace(loaded, server=msgspec.convert(server, ServerConfig)), new_token=new_token)
