"""Load the configuration: one file or Django setting, over it the environment, into the typed model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from otel_audit.config.checks import contradictions
from otel_audit.config.environment import environment_layer
from otel_audit.config.model import AuditConfig
from otel_audit.config.sources import (
    DJANGO_SETTING,
    Layer,
    expanded,
    file_layer,
    find_file,
    mapping_layer,
)
from otel_audit.errors import ConfigurationError

_PERSONAL_NUMBERS: Final = ("redaction", "personal_numbers")
_PERSONAL_NUMBERS_NOTE: Final = (
    "{where}: redaction.personal_numbers is not set, and defaults to true: IBANs, and fields named "
    "iban, card, pan, bank_account, account_number, tax_id, passport_number, national_id or "
    "drivers_license are redacted. Write personal_numbers = true under [redaction] to keep this, or "
    "false to record them"
)
"""A setting that came later, and changes what is recorded under a configuration written before it."""

_PROPAGATE: Final = ("context", "propagate")
_PROPAGATE_NOTE: Final = (
    "{where} has no effect: the ids of actor and request are no longer sent unsigned, to every host. To tell "
    "your own services who acts, set context.propagate_to and a key (docs/propagation.md); remove "
    "context.propagate"
)


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration and where it came from.

    ``origins`` maps the dotted name of every value that was set to where it was written; all others have
    their default. ``path`` is the file, ``None`` where there is none. ``notes`` are worth a reader's time.
    ``layers`` are the sources of the values.
    """

    config: AuditConfig
    origins: dict[str, str] = {}
    path: Path | None = None
    notes: list[str] = []
    layers: dict[tuple[str, ...], Layer] = {}

    def where(self, *key: str) -> str:
        """Return where a setting, a table of settings or an item of a list was written; empty if nowhere."""
        if key[:-1] in self.layers:
            return self.layers[key[:-1]].where(key)
        for known, layer in self.layers.items():
            if known[: len(key)] == key:
                return layer.where(key)
        return ""


def load(
    path: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    django_settings: Mapping[str, Any] | None = None,
    declarative: Mapping[str, Any] | None = None,
) -> LoadedConfig:
    """Load the configuration.

    Args:
        path: the file to read; by default the one ``OTEL_AUDIT_CONFIG`` names, or the nearest
            ``otel-audit.toml`` or ``pyproject.toml`` with ``[tool.otel_audit]`` from the working
            directory upward.
        environ: the variables; by default the process's.
        django_settings: Django's ``OTEL_AUDIT`` setting, used where there is no file.
        declarative: sections given through OpenTelemetry's ``OTEL_CONFIG_FILE``, laid over the file.

    Relative directories are resolved against the directory of the file that names them, or else the
    working directory.

    Raises:
        ConfigurationError: names every unknown key and bad value, with file, line and nearest valid key.
    """
    environ = os.environ if environ is None else environ
    layers: list[Layer] = []
    notes: list[str] = []
    file: Path | None
    if path is not None:
        file = Path(path).absolute()
        if not file.is_file():
            raise ConfigurationError(f"{path}: no such file; `otel-audit init` writes one")
    else:
        file = find_file(environ, Path.cwd())
    if file is not None:
        layers.append(file_layer(file))
        if django_settings:
            notes.append(f"Django's {DJANGO_SETTING} setting is ignored, because {file} was found")
    elif django_settings:
        layers.append(mapping_layer(django_settings, f"Django setting {DJANGO_SETTING}"))
    if declarative:
        layers.append(mapping_layer(declarative, "OTEL_CONFIG_FILE: otel_audit"))
    variables, problems = environment_layer(environ)
    layers.append(variables)

    for layer in layers:
        try:
            msgspec.convert(layer.values, AuditConfig)
        except msgspec.ValidationError as error:
            from otel_audit.config.diagnosis import diagnose

            problems += list(diagnose(layer)) or [f"{layer.where(())}: {error}"]
    if problems:
        raise ConfigurationError("\n".join(problems))

    merged: dict[str, Any] = {}
    origins: dict[tuple[str, ...], Layer] = {}
    for layer in layers:
        _lay(merged, layer.values, layer, origins)
    config = msgspec.convert(merged, AuditConfig)
    problems = [f"{_where(origins, key)}: {message}" for key, message in contradictions(config, set(origins))]
    if problems:
        raise ConfigurationError("\n".join(problems))
    redacts = config.enabled and config.redaction.enabled
    if len(layers) > 1 and redacts and _PERSONAL_NUMBERS not in origins:
        notes.append(_PERSONAL_NUMBERS_NOTE.format(where=layers[0].where(())))
    notes += _of_policy(config, origins)
    if config.context.propagate:
        notes.append(_PROPAGATE_NOTE.format(where=_where(origins, _PROPAGATE)))
    base = Path.cwd() if file is None else file.parent
    return LoadedConfig(
        config=_resolve(config, lambda key: Path.cwd() if origins.get(key) is variables else base, origins),
        origins={".".join(key): layer.where(key) for key, layer in origins.items()},
        path=file,
        notes=notes,
        layers=origins,
    )


def _of_policy(config: AuditConfig, origins: Mapping[tuple[str, ...], Layer]) -> list[str]:
    if not config.policy:
        return []
    from otel_audit.config.policy_checks import policy_notes

    return [f"{_where(origins, key)}: {message}" for key, message in policy_notes(config.policy)]


def _lay(
    merged: dict[str, Any],
    values: Mapping[str, Any],
    layer: Layer,
    origins: dict[tuple[str, ...], Layer],
    path: tuple[str, ...] = (),
) -> None:
    """Lay ``values`` over ``merged``: tables are merged, everything else is replaced."""
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, Mapping):
            _lay(merged.setdefault(name, {}), value, layer, origins, here)
        else:
            merged[name] = value
            origins[here] = layer


def _where(origins: Mapping[tuple[str, ...], Layer], key: tuple[str, ...]) -> str:
    # Of a table: where its first entry stands. Its name may be what is wrong, and a secret.
    layer = origins.get(key) or next((each for known, each in origins.items() if known[:-1] == key), None)
    if layer is None and key[:1] in origins:  # within a table of a list: ("policy", "0", "path")
        name = ".".join(part for part in key if not part.isdecimal())
        return f"{origins[key[:1]].where(key)}: {name}"
    return ".".join(key) if layer is None else f"{layer.where(key)}: {'.'.join(key)}"


def _resolve(
    config: AuditConfig, base: Callable[[tuple[str, ...]], Path], origins: Mapping[tuple[str, ...], Layer]
) -> AuditConfig:
    """Make file names absolute, each against the directory its key is relative to.

    Raises:
        ConfigurationError: one begins with a home directory that is not known.
    """

    def absolute(value: str, *key: str) -> str:
        if not value:
            return value
        try:
            return os.path.normpath(base(key) / expanded(value))
        except ConfigurationError as error:
            raise ConfigurationError(f"{_where(origins, key)}: {error}") from error

    replace = msgspec.structs.replace
    return replace(
        config,
        spool=replace(config.spool, directory=absolute(config.spool.directory, "spool", "directory")),
        server=replace(config.server, data=absolute(config.server.data, "server", "data")),
        sink=replace(config.sink, ca_file=absolute(config.sink.ca_file, "sink", "ca_file")),
        context=replace(config.context, keys_file=absolute(config.context.keys_file, "context", "keys_file")),
    )
