"""Which models and views the application has, asked of it in a process of its own.

Loading the apps runs the application's code. Nothing it prints, starts or breaks reaches ours: its output
goes to a file, it has a deadline, and what it started ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from otel_audit.errors import ConfigurationError

_T = TypeVar("_T")

_SETTINGS: Final = "DJANGO_SETTINGS_MODULE"
_DJANGO: Final = "otel_audit.instrumentation.django.inspection"
_APPLICATION: Final = "otel_audit.instrumentation.application_routes"
_LONGEST_ERROR: Final = 300


class NotLoaded(Exception):
    """The application's apps could not be loaded; the message says why."""


class Mistake(msgspec.Struct, frozen=True):
    """Something that names no model or field that is there."""

    sentence: str
    hint: str


class InstalledModels(msgspec.Struct, frozen=True):
    """What the application answered: labels by what is recorded of them, and what names nothing.

    ``places`` says of the models that the configuration does not name where they are.
    """

    models: list[str]
    reads: list[str]
    places: dict[str, str]
    mistakes: list[Mistake]
    from_setting: bool


class Line(msgspec.Struct, frozen=True):
    """One answer: what about, what is so, which rule says it, and where that stands (empty: by default)."""

    subject: str
    answer: str
    rule: str
    place: str


class Explanation(msgspec.Struct, frozen=True):
    """What is recorded of a model, or of one field; ``unknown`` says what is wrong with the name."""

    name: str
    about: str
    lines: list[Line]
    notes: list[str]
    unknown: str


class FoundView(msgspec.Struct, frozen=True):
    """The view and route that answer a path, and what the view says of its records; empty without a route."""

    view: str
    route: str
    said: str


def find_settings() -> None:
    """Find the project's settings as ``manage.py`` would, where no variable names them.

    Raises:
        ConfigurationError: there is no project.
    """
    if os.environ.get(_SETTINGS):
        return
    from otel_audit.cli.detection import find_django

    project = find_django(Path.cwd(), os.environ)
    if project is None or not project.settings:
        raise ConfigurationError(
            f"{_SETTINGS} is not set, and there is no Django project here: run it in the directory of "
            "manage.py, or export the variable"
        )
    os.environ[_SETTINGS] = project.settings


def ask_application(config_file: Path | None, timeout: float) -> InstalledModels:
    """Load the apps that ``DJANGO_SETTINGS_MODULE`` names, as this directory's ``manage.py`` would.

    Raises:
        NotLoaded: it fails, or takes longer than ``timeout`` seconds.
    """
    return _ask(f"{_DJANGO}.inventory", [], config_file, timeout, InstalledModels)


def ask_about(name: str, config_file: Path | None, timeout: float) -> Explanation:
    """Load the same apps, and ask what is recorded of a model or a field of that name.

    Raises:
        NotLoaded: as above.
    """
    return _ask(f"{_DJANGO}.explanation", [name], config_file, timeout, Explanation)


def ask_for_view(method: str, path: str, config_file: Path | None, timeout: float) -> FoundView:
    """Load the same apps, and ask which view answers a path.

    Raises:
        NotLoaded: as above.
    """
    return _ask(f"{_DJANGO}.views", [method, path], config_file, timeout, FoundView)


def ask_for_endpoint(
    application: str, directory: str, method: str, path: str, host: str, timeout: float
) -> FoundView:
    """Load an application as uvicorn would, by ``module:attribute``, and ask which endpoint answers a path.

    Raises:
        NotLoaded: as above.
    """
    return _ask(_APPLICATION, [application, directory, method, path, host], None, timeout, FoundView)


def _ask(
    program: str, arguments: Sequence[str], config_file: Path | None, timeout: float, kind: type[_T]
) -> _T:
    with tempfile.TemporaryDirectory(prefix="otel-audit-asks-") as name:
        directory = Path(name)
        answer, errors = directory / "answer.json", directory / "errors.txt"
        command = [sys.executable, "-m", program, str(answer), *arguments]
        if config_file is not None:
            command.append(str(config_file))
        with errors.open("wb") as written:
            status = _run(command, written, timeout)
        if status is None:
            raise NotLoaded(f"not ready after {timeout:g} s")
        try:
            return msgspec.json.decode(answer.read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError):
            raise NotLoaded(_last_line(errors) or f"the process ended with status {status}") from None


def _run(command: Sequence[str], written: Any, timeout: float) -> int | None:
    """Run ``command`` without audit or spans; give its status, None if it had to be ended."""
    variables = os.environ | {"OTEL_AUDIT_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}
    own_group: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
        command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, env=variables, **own_group
    )
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(OSError):
            if own_group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _last_line(file: Path) -> str:
    lines = [line.strip() for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:_LONGEST_ERROR] if lines else ""
