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


def run(config: AuditConfig, started: Callable[[Endpoints], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``config.server`` says where and how.

    Args:
        config: the whole configuration; the database's name is ``config.store.database``.
        started: called once, with the addresses, when requests are answered. Ports configured as 0 are picked
            by the system and known only then. Default: one line an address on standard error.

    Raises:
        ConfigurationError: the extra is not installed, or the address is public and there is no token.
        StoreError: the data directory or a port cannot be used.
    """
    try:
        from otel_audit.server.serve import serve
    except ImportError as error:
        raise ConfigurationError(
            f"`otel-audit serve` needs packages that are not installed ({error}): "
            "pip install 'otel-audit[server]'"
        ) from error
    serve(config, started or _announce)


def _announce(endpoints: Endpoints) -> None:
    sys.stderr.write(
        f"otel-audit serve: data in {endpoints.data}\n"
        f"  OTLP over HTTP   {endpoints.http}\n"
        f"  OTLP over gRPC   {endpoints.grpc}\n"
        f"  queries          {endpoints.clickhouse}\n"
    )
    sys.stderr.flush()
