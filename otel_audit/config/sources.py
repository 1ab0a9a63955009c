"""Where settings are read from: a TOML file, Django's settings, the environment.

Each source becomes a :class:`Layer`: nested values, and a function that says where a path was written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from otel_audit.errors import ConfigurationError
from otel_audit.named_tuples import NamedTuple

FILE_NAME: Final = "otel-audit.toml"
PYPROJECT: Final = "pyproject.toml"
ENVIRONMENT_PREFIX: Final = "OTEL_AUDIT_"
FILE_VARIABLE: Final = "OTEL_AUDIT_CONFIG"
DJANGO_SETTING: Final = "OTEL_AUDIT"


class Layer(NamedTuple):
    """The values of one source, and where each stands (``otel-audit.toml:12``).

    Behind the key of a list ``where`` takes the position of an item.
    """

    values: Mapping[str, Any]
    where: Callable[[tuple[str, ...]], str]


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` in place of which the home directory stands.

    Raises:
        ConfigurationError: nobody knows it, as in a container whose user has no name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = Path(path).parts[0]
        raise ConfigurationError(
            f"{str(path)!r} begins with {home!r}, and no such home directory is known; write the whole path"
        ) from error


def find_file(environ: Mapping[str, str], start: Path) -> Path | None:
    """Find the configuration file: the variable's, or the nearest from ``start`` upward.

    In one directory ``otel-audit.toml`` goes before a ``pyproject.toml`` with a ``[tool.otel_audit]`` table.

    Raises:
        ConfigurationError: the variable names a file that does not exist.
    """
    named = environ.get(FILE_VARIABLE, "")
    if named:
        try:
            path = expanded(named)
        except ConfigurationError as error:
            raise ConfigurationError(f"{FILE_VARIABLE}: {error}") from error
        if not path.is_file():
            raise ConfigurationError(
                f"{FILE_VARIABLE} names {named!r}, which is not a file (working directory: "
                f"{Path.cwd()}). Set it to the path of an existing {FILE_NAME}, or unset it to search "
                "from the working directory."
            )
        return path.absolute()
    for directory in (start, *start.parents):
        path = directory / FILE_NAME
        if path.is_file():
            return path
        path = directory / PYPROJECT
        if path.is_file() and _has_our_table(path):
            return path
    return None


def _has_our_table(path: Path) -> bool:
    # The text decides, not the parser: another tool's broken pyproject.toml above us is not our error.
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return re.search(r"^\s*\[\s*tool\s*\.\s*[\"']?otel_audit\b", text, re.MULTILINE) is not None


def file_layer(path: Path) -> Layer:
    """Read a TOML file; of a ``pyproject.toml`` only its ``[tool.otel_audit]`` table.

    Raises:
        ConfigurationError: it cannot be read or is not TOML; names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    text = text.replace("\r\n", "\n")
    import tomllib  # no process without a file needs it

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found.group(1)) if found else text.count("\n") + 1
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise ConfigurationError(f"{path}:{line}: not valid TOML: {reason}") from error
    prefix: tuple[str, ...] = ()
    if path.name == PYPROJECT:
        prefix = ("tool", "otel_audit")
        values = values.get("tool", {}).get("otel_audit", {})
        if not isinstance(values, dict):
            raise ConfigurationError(f"{path}: tool.otel_audit must be a table: [tool.otel_audit]")
    lines: dict[tuple[str, ...], int] = {}
    items: dict[tuple[str, ...], list[int]] = {}

    def where(key: tuple[str, ...]) -> str:
        if not lines:
            from otel_audit.config.toml_lines import item_lines, key_lines

            lines.update(key_lines(text))
            items.update(item_lines(text))
        place = prefix + key
        if place[:-1] in items and place[-1].isdecimal():
            return f"{path}:{items[place[:-1]][int(place[-1])]}"
        while place and place not in lines:
            place = place[:-1]
        return f"{path}:{lines[place]}" if place else str(path)

    return Layer(values, where)


def mapping_layer(values: Mapping[str, Any], name: str) -> Layer:
    """Take settings from a Python mapping, such as Django's ``OTEL_AUDIT``; paths become text."""
    if not isinstance(values, Mapping):
        raise ConfigurationError(
            f"{name} must be a dict of sections, such as {{'django': {{'models': ['shop.*']}}}}, "
            f"not {type(values).__name__}"
        )

    def where(key: tuple[str, ...]) -> str:
        return name + "".join(f"[{part}]" if part.isdecimal() else f"[{part!r}]" for part in key)

    return Layer(_plain(values), where)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
