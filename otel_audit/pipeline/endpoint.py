"""The sink's address, checked when the pipeline starts and before anything heavy is imported."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError


def shown(url: SplitResult) -> str:
    """Return the address as messages show it: without credentials and query, which may hold a key."""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def parse_endpoint(config: SinkConfig) -> SplitResult:
    """Split ``sink.endpoint`` into its parts.

    Raises:
        ConfigurationError: it is no http(s) address, or the CA file cannot be read.
    """
    endpoint = config.endpoint
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # a port that is no number, half an IPv6 address
        valid = False
    if not valid:
        from otel_audit.config.showing import without_credentials

        raise ConfigurationError(
            f"sink.endpoint is {without_credentials(endpoint)!r}; use an http or https address such as "
            "http://127.0.0.1:4318/v1/audit"
        )
    if config.ca_file and not os.access(config.ca_file, os.R_OK):
        raise ConfigurationError(
            f"sink.ca_file is {config.ca_file!r}, which cannot be read; set it to the path of a PEM "
            "file, or leave it empty to use the system's certificates"
        )
    return url
