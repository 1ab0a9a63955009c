"""Settings from environment variables: ``OTEL_AUDIT_<SECTION>_<KEY>``.

Lists are comma-separated, tables ``name=value`` pairs separated by commas; both may be JSON instead.
An empty variable counts as unset, as everywhere in OpenTelemetry.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from otel_audit.config.nearest import nearest
from otel_audit.config.sources import ENVIRONMENT_PREFIX, FILE_VARIABLE, Layer

if TYPE_CHECKING:
    from otel_audit.config.catalog import Setting

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_PERCENT_ENCODED: Final = ("sink", "headers")
"""Written as in OTEL_EXPORTER_OTLP_HEADERS, so that a value may have a comma or a blank at its end."""
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def environment_layer(environ: Mapping[str, str]) -> tuple[Layer, list[str]]:
    """Read our variables; also give one message for each that names no setting."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    names = [name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name != FILE_VARIABLE]
    if names:
        from otel_audit.config.catalog import settings

        by_variable = {setting.variable: setting for setting in settings().values()}
        for name in sorted(names):
            setting = by_variable.get(name)
            if setting is None:
                problems.append(f"{name}: no such variable{nearest(name, [*by_variable, FILE_VARIABLE])}")
            elif text := environ[name].strip():
                value = _parse(setting, text)
                if isinstance(value, str) and _is_table(setting):  # of a header even a part may be a secret
                    pairs = "" if setting.sections else "name=value, several separated by commas, or "
                    problems.append(f"{name}: not a table; write {pairs}a JSON object")
                    continue
                table = values
                for part in setting.path[:-1]:
                    table = table.setdefault(part, {})
                table[setting.path[-1]] = value

    def where(key: tuple[str, ...]) -> str:
        from otel_audit.config.catalog import settings

        while key:
            setting = settings().get(".".join(key))
            if setting is not None:
                return setting.variable
            key = key[:-1]
        return "environment"

    return Layer(values, where), problems


def _is_table(setting: Setting) -> bool:
    from otel_audit.config.catalog import plain_type

    return typing.get_origin(plain_type(setting.type)) is dict


def _parse(setting: Setting, text: str) -> Any:
    """Turn a variable's text into the setting's type; text that does not fit stays text, to be refused."""
    from otel_audit.config.catalog import plain_type

    kind = plain_type(setting.type)
    origin = typing.get_origin(kind)
    if kind is bool:
        lower = text.lower()
        return True if lower in _TRUE else False if lower in _FALSE else text
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    if origin is list:
        if text.startswith("["):
            return _json(text)
        return [item for item in (part.strip() for part in text.split(",")) if item]
    if origin is dict:
        if text.startswith("{"):
            return _json(text)
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if setting.sections or not all(equals for _, equals, _ in pairs):
            return text
        decode = unquote if setting.path == _PERCENT_ENCODED else str
        return {name.strip(): decode(value.strip()) for name, _, value in pairs}
    return text


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
