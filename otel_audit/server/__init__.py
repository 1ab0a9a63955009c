"""`otel-audit serve`: OTLP in, rows in the embedded store, ClickHouse's HTTP interface out.

This is its own process: nothing here may be imported by an application, whose forked children would hang.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from otel_audit.config.model import AuditConfig
from otel_audit.errors import ConfigurationError

if TYPE_CHECKING:
    from otel_audit.server.serve import Endpoints

__all__ = ["run"]


def run(
    config: AuditConfig,
    started: Callable[[Endpoints], None] | None = None,
    *,
    new_token: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; ``config.server`` says where and how.

    Args:
        config: the whole configuration; the database's name is ``config.store.database``.
        started: called once, with the addresses, when requests are answered. Ports configured as 0 are picked
            by the system and known only then. Default: a line per address on standard error, and the token
            to ask if that is a terminal, else the path of its file.
        new_token: replace the generated read token before the start.

    Raises:
        ConfigurationError: the extra is not installed, or the address is public and there is no token.
        StoreError: the data directory or a port cannot be used.
    """
    try:
        from otel_audit.server import serve
    except ImportError as error:
        raise ConfigurationError(
            f"`otel-audit serve` needs packages that are not installed ({error}): "
            "pip install 'otel-audit[server]'"
        ) from error
    if new_token:
        serve.new_token(config.server)
    serve.serve(config, started or _announce)


def _announce(endpoints: Endpoints) -> None:
    sys.stderr.write(
        f"otel-audit serve: data in {endpoints.data}\n"
        f"  OTLP over HTTP   {endpoints.http}\n"
        f"  OTLP over gRPC   {endpoints.grpc}\n"
        f"  queries          {endpoints.clickhouse}\n"
    )
    if endpoints.token:  # logs keep what is printed
        where = endpoints.token if sys.stderr.isatty() else f"in {endpoints.token_file}"
        sys.stderr.write(f"  read token       {where}\n")
    sys.stderr.flush()
