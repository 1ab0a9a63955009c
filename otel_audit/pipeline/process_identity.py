"""Who this process is: what the header of its segments and its OTLP Resource say."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import uuid
from typing import Final

from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource

from otel_audit.interruptions import faults
from otel_audit.otel_api import current_tracer_provider, say_once, tracer_provider
from otel_audit.pipeline.logger import Redacts
from otel_audit.pipeline.spool.frames import Identity
from otel_audit.version import __version__

_log: Final = logging.getLogger(__name__)


def identify(redactor: Redacts) -> Identity:
    """Say who this process is: the application's own Resource if it has one, else the environment's.

    A Resource may hold secrets, too: the command line of the process, OTEL_RESOURCE_ATTRIBUTES.
    """
    own = _resource_of(tracer_provider())
    resource = _environment_resource()[0] if own is None else own
    host = socket.gethostname()
    attributes: dict[str, str | int | bool | float] = {"host.name": host}
    try:
        described = redactor.mapping(resource.attributes)
    except faults() as error:  # a record is worth more than a description of its process
        _log.error("The resource could not be redacted and is omitted: %r", error)
        described = {}
    for name, value in described.items():
        attributes[str(name)] = (
            value if isinstance(value, (str, int, bool, float)) else json.dumps(value, default=str)
        )
    if own is None and _environment_resource()[1] != os.getpid():
        attributes[SERVICE_INSTANCE_ID] = str(uuid.uuid4())
    return Identity(incarnation="", host=host, version=__version__, resource=attributes)


class _Named:
    """The resource that was asked for its name last, and the answer."""

    resource: Resource | None = None
    service = ""


def service_name() -> str:
    """Return the ``service.name`` of this process, as the OTLP Resource of its records says it."""
    # Asked for each record: a provider may be set at any time, and one that wraps others may change its own.
    provider = current_tracer_provider()
    resource = None if provider is None else _resource_of(provider)
    if resource is None:
        resource = _environment_resource()[0]
    if resource is not _Named.resource:
        _Named.service = str(resource.attributes.get(SERVICE_NAME, ""))
        _Named.resource = resource
    return _Named.service


def get_ready() -> None:
    """Do now what must not be done in a forked child: detecting a Resource starts threads and imports."""
    if _resource_of(tracer_provider()) is None:
        _environment_resource()


def _resource_of(provider: object) -> Resource | None:
    try:
        resource = getattr(provider, "resource", None)
        return resource if isinstance(resource, Resource) else None
    except faults() as error:  # a provider may be anybody's
        say_once("The tracer provider's resource cannot be read", error)
        return None


@functools.cache
def _environment_resource() -> tuple[Resource, int]:
    """Return the Resource of the environment, and the process it was detected in."""
    try:
        return Resource.create(), os.getpid()
    except faults() as error:  # a detector is foreign code; the records need a name at least
        _log.error("The resource could not be detected: %r", error)
        return Resource({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "unknown_service")}), os.getpid()
