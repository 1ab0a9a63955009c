"""Which view and route answer a request: asked of the application that is here, or that is named."""

from __future__ import annotations

import os
from pathlib import Path

from otel_audit.cli.installed_models import (
    FoundView,
    NotLoaded,
    ask_for_endpoint,
    ask_for_view,
    find_settings,
)
from otel_audit.errors import ConfigurationError
from otel_audit.named_tuples import NamedTuple


class RequestTarget(NamedTuple):
    """A request: what it asks for."""

    method: str
    path: str
    host: str


class Where(NamedTuple):
    """Where an application is looked for."""

    app: str | None
    directory: str
    config: Path | None
    timeout: float


def find_view(asked: RequestTarget, where: Where, notes: list[str]) -> tuple[str | None, str | None]:
    """Return view and route of a request; None where they cannot be found, and why among the notes."""
    try:
        found = _ask(asked, where, notes)
    except NotLoaded as error:
        notes.append(f"view and route are not known: the application cannot be loaded: {error}")
        return None, None
    if found is None:
        notes.append(
            "view and route are not known: there is neither a Django project nor an application of FastAPI "
            "or Starlette here; name it by --app, or them by --view and --route"
        )
        return None, None
    if not found.view:
        notes.append(f"no route of the application matches {asked.path}: it answers 404")
        return None, None
    if found.said:
        notes.append(
            f"the view itself says {found.said}, which counts more than a rule; but a rule that names the "
            "path, view or route decides about the level"
        )
    return found.view, found.route


def _ask(asked: RequestTarget, where: Where, notes: list[str]) -> FoundView | None:
    """Ask the application that was named, else the Django project, else the service that is here."""
    application, directory = where.app, where.directory
    if not application:
        try:
            find_settings()
        except ConfigurationError:
            application, directory = _service(directory)
        else:
            return ask_for_view(asked.method, asked.path, where.config, where.timeout)
        if not application:
            return None
        notes.append(f"view and route are those of {application}; --app names another application")
    return ask_for_endpoint(application, directory, *asked, where.timeout)


def _service(directory: str) -> tuple[str, str]:
    """Return the application of the service here, as uvicorn takes it, and where its module is."""
    if named := os.environ.get("UVICORN_APP"):
        return named, directory or os.environ.get("UVICORN_APP_DIR", "")
    from otel_audit.cli.service_detection import find_service

    service = find_service(Path.cwd())
    if service is None:
        return "", ""
    return service.application, directory or service.options.partition("--app-dir ")[2]
