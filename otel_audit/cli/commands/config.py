"""``init`` and ``config show``: write the configuration, and see what holds."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otel_audit.cli.options import ConfigFile, Json, load_declared
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.config.loader import LoadedConfig
from otel_audit.config.showing import given, shown
from otel_audit.errors import ConfigurationError

if TYPE_CHECKING:
    from otel_audit.cli.detection import DjangoProject
    from otel_audit.cli.service_detection import ServiceProject

_SAYS_NOTHING = ("config", "conf", "settings", "project", "core", "app", "api", "server")


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIRECTORY]", help="Directory of the project.", show_default=False)
    ] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    r"""Write a commented otel-audit.toml for the project in this directory, and print the next steps.

    Finds a Django project, or a service of FastAPI, Starlette or SQLAlchemy, by reading its files. Imports
    nothing and changes nothing else.

    \b
    otel-audit init
    otel-audit init path/to/project --force
    """
    from otel_audit.cli.detection import find_django
    from otel_audit.cli.service_detection import find_service
    from otel_audit.config.sources import FILE_NAME
    from otel_audit.config.template import template

    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is not a directory; write the path of the project's directory")
    path = directory / FILE_NAME
    if path.exists() and not force:
        raise ConfigurationError(f"{path} already exists; --force overwrites it")
    project = find_django(directory.resolve(), os.environ)
    values: dict[str, Any] = {"redaction.personal_numbers": True}
    introduction = ""
    if project is not None:
        values["django.models"] = [*project.patterns, "!sessions.*"]
        introduction = f"Written for the Django project of {project.settings or 'manage.py'}."
    service = find_service(directory.resolve()) if project is None else None
    if service is not None:
        if service.patterns:
            values["sqlalchemy.models"] = [*service.patterns, "!alembic_version"]
        introduction = f"Written for the service {service.application or 'of this directory'}."
    try:
        path.write_text(template(values, introduction=introduction), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
    typer.echo(f"Wrote {safe(path)}")
    for line in _next_steps(project, service, directory.resolve()):
        typer.echo(line)


def _next_steps(project: DjangoProject | None, service: ServiceProject | None, directory: Path) -> list[str]:
    from importlib.util import find_spec

    if project is not None:
        models = ", ".join(map(safe, project.patterns))
        lines = [f"Django: {safe(project.settings or 'settings module not found')}; recorded: {models}"]
        module = project.wsgi or "yourproject.wsgi"
        command = f"gunicorn {safe(module)}"
        if project.asgi and not project.wsgi:
            command = f"uvicorn {safe(project.asgi)}:application"
    elif service is not None:
        lines, command = _service_found(service)
    else:
        lines = [
            "Neither a Django project nor a service of FastAPI, Starlette or SQLAlchemy was found here.",
            "Set what is recorded under [django] or [sqlalchemy] in the file.",
        ]
        command = "python your_program.py"
    agent = ("opentelemetry.distro", "opentelemetry.exporter.otlp")
    missing = [] if all(map(_installed, agent)) else ["'otel-audit[agent]'"]
    if service is not None and service.is_fastapi and not _installed("opentelemetry.instrumentation.fastapi"):
        missing.append("'otel-audit[fastapi]'")
    program = command.split()[0]
    if program != "python" and find_spec(program) is None:
        missing.append(program)
    server = "" if find_spec("chdb") else "     # pip install 'otel-audit[server]'"
    lines += ["", "Next:"]
    if missing:
        lines.append(f"  pip install {' '.join(missing)}")
    lines.append(f"  otel-audit serve{server}")
    package = service.package if service is not None else ""
    if project is not None:
        package = project.settings.partition(".")[0]
    variables = f"OTEL_SERVICE_NAME={_service_name(package, directory)}"
    if project is not None:
        variables += f" DJANGO_SETTINGS_MODULE={safe(project.settings or 'yourproject.settings')}"
    lines += [
        f"  export {variables}",
        "  export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        f"  opentelemetry-instrument {command}",
        "  otel-audit doctor",
        "  otel-audit query",
        "",
        "Records wait in .otel-audit/ until the sink acknowledges them; a .gitignore keeps them out of git.",
    ]
    return lines


def _service_found(service: ServiceProject) -> tuple[list[str], str]:
    """Return what was found, in a sentence, and the command that runs it."""
    recorded = ", ".join(map(safe, service.patterns))
    if not recorded:
        recorded = "requests that were denied; no class of SQLAlchemy was found, set sqlalchemy.models"
    if not service.application:
        return [f"SQLAlchemy: recorded: {recorded}"], "python your_program.py"
    name = "FastAPI" if service.is_fastapi else "Starlette"
    options = f" {safe(service.options)}" if service.options else ""
    application = safe(service.application)
    return [f"{name}: {application}; recorded: {recorded}"], f"uvicorn {application}{options}"


def _service_name(package: str, directory: Path) -> str:
    name = package if package not in ("", *_SAYS_NOTHING) else directory.name
    return re.sub(r"[^\w.-]+", "-", name) or "app"


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def show(
    config: ConfigFile = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only settings that differ from their defaults.")
    ] = False,
    json: Json = False,
) -> None:
    r"""Show every setting, its value and its source. Secrets are hidden.

    \b
    otel-audit config show
    otel-audit config show --changed
    """
    screen = Screen(json=json)
    loaded = load_declared(config)
    rows = [row for row in _rows(loaded) if not changed or row[2] != "default"]
    if screen.json:
        for key, value, origin in rows:
            screen.object({"key": key, "value": value, "origin": origin})
        return
    for note in loaded.notes:
        screen.remark(f"note: {note}")
    screen.line(f"file: {safe(loaded.path) if loaded.path else 'none; `otel-audit init` writes one'}")
    if not rows:
        screen.line("All settings have their defaults.")
        return
    _print_rows(rows, screen)
    sys.stdout.flush()


def _print_rows(rows: list[tuple[str, Any, str]], screen: Screen) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from otel_audit.config.template import toml

    table = Table(box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("setting", no_wrap=not screen.is_terminal, overflow="fold")
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold", style="dim")
    for key, value, origin in rows:
        style = "dim" if origin == "default" else "bold"
        table.add_row(Text(safe(key), style=style), Text(safe(toml(value)), style=style), Text(safe(origin)))
    screen.print(table)


def _rows(loaded: LoadedConfig) -> list[tuple[str, Any, str]]:
    """Return dotted key, value and origin of every setting; sections named by the user one by one."""
    from otel_audit.config.catalog import settings

    rows: list[tuple[str, Any, str]] = []
    for setting in settings().values():
        value: Any = loaded.config
        for part in setting.path:
            value = getattr(value, part)
        origins = {
            key: where
            for key, where in loaded.origins.items()
            if key == setting.key or key.startswith(setting.key + ".")
        }
        if setting.listed:
            rows += _listed_rows(loaded, setting.key, value)
            continue
        if setting.sections:
            for name, section in value.items():
                for nested in setting.sections:
                    key = f"{setting.key}.{name}.{nested.path[-1]}"
                    found = [
                        where for each, where in origins.items() if each == key or each.startswith(key + ".")
                    ]
                    if found:
                        rows.append((key, getattr(section, nested.path[-1]), _joined(found)))
            continue
        rows.append((setting.key, shown(value, secret=setting.secret), _joined(list(origins.values()))))
    return rows


def _listed_rows(loaded: LoadedConfig, key: str, tables: list[Any]) -> list[tuple[str, Any, str]]:
    """Return a row for each table of a list, with what stands in it."""
    rows: list[tuple[str, Any, str]] = [
        (f"{key}.{position + 1}", given(table), loaded.where(key, str(position)))
        for position, table in enumerate(tables)
    ]
    return rows or [(key, [], "default")]


def _joined(origins: list[str]) -> str:
    return ", ".join(dict.fromkeys(origins)) or "default"
