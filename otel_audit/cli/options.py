"""Options several commands share, and the store they lead to."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from otel_audit.cli.filter_options import filters_of
from otel_audit.cli.output.screen import Screen
from otel_audit.config.catalog import settings
from otel_audit.config.checks import address_problems
from otel_audit.config.loader import LoadedConfig, load
from otel_audit.config.model import StoreConfig
from otel_audit.errors import ConfigurationError

_STORE = "Store"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration file. Default: OTEL_AUDIT_CONFIG, or the nearest otel-audit.toml.",
        rich_help_panel=_STORE,
        show_default=False,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of the store: otel-audit serve, or any ClickHouse server.",
        rich_help_panel=_STORE,
    ),
]
User = Annotated[str | None, typer.Option(help="ClickHouse user.", rich_help_panel=_STORE)]
Password = Annotated[
    str | None,
    typer.Option(
        help="Its password. Prefer OTEL_AUDIT_STORE_PASSWORD: other users can see a command line.",
        rich_help_panel=_STORE,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="Bearer token of otel-audit serve. Prefer OTEL_AUDIT_STORE_TOKEN.", rich_help_panel=_STORE
    ),
]
Database = Annotated[str | None, typer.Option(help="Database of the audit tables.", rich_help_panel=_STORE)]
Utc = Annotated[
    bool, typer.Option("--utc", help="Read and print times in UTC instead of the local time zone.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, times in UTC.")]
Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header, times in UTC.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also show what is folded: fields set to the time of the change, and the start and end of "
        "streams.",
    ),
]


def load_declared(path: Path | None) -> LoadedConfig:
    """Load the configuration with what OpenTelemetry's own file says of our instrumentors.

    Django's setting stays unseen: reading it would run the application's settings.
    """
    declared = None
    if os.environ.get("OTEL_CONFIG_FILE"):
        from otel_audit.startup import declared_options

        declared = declared_options()
    return load(path, declarative=declared)


def store_config(
    config: Path | None,
    url: str | None,
    user: str | None,
    password: str | None,
    token: str | None,
    database: str | None,
) -> StoreConfig:
    """Lay options over the ``store`` section of the configuration.

    Credentials of the file belong to the store of the file: another URL is not sent them. Those of
    variables are.
    """
    loaded = load(config)
    configured = loaded.config.store
    given = {"url": url, "user": user, "password": password, "token": token, "database": database}
    if url is not None and url != configured.url:
        foreign = [
            name
            for name in ("user", "password", "token")
            if not loaded.origins.get(f"store.{name}", "").startswith("OTEL_AUDIT_STORE_")
        ]
        configured = msgspec.structs.replace(configured, **dict.fromkeys(foreign, ""))
    laid = msgspec.to_builtins(configured) | {
        name: value for name, value in given.items() if value is not None
    }
    problem = next(address_problems(str(laid["url"])), None)
    if problem:
        raise ConfigurationError(f"--url {problem}")
    try:
        return msgspec.convert(laid, StoreConfig)
    except msgspec.ValidationError:
        expected = settings()["store.database"].expected
        raise ConfigurationError(f"--database {database!r} is not {expected}") from None


_STORE_OPTIONS: dict[str, Any] = {
    "url": Url,
    "user": User,
    "password": Password,
    "token": Token,
    "database": Database,
    "config": ConfigFile,
}


def reads_store(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of ``function(store, screen, …)``: adds the options both need, opens and closes them."""
    return _asking(function, {}, {"json": Json, "utc": Utc})


def lists_rows(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of ``function(store, screen, …)``, which lists something else than records."""
    return _asking(function, {}, {"json": Json, "csv": Csv, "utc": Utc})


def lists_entries(filters: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of ``function(store, screen, filters, …)``, which lists records.

    ``filters`` are the options of :mod:`otel_audit.cli.filter_options` it has; with none it gets no filters.
    """
    return functools.partial(
        _asking, filters=filters, screens={"json": Json, "csv": Csv, "verbose": Verbose, "utc": Utc}
    )


def _asking(
    function: Callable[..., None], filters: Mapping[str, Any], screens: Mapping[str, Any]
) -> Callable[..., None]:
    def command(**options: Any) -> None:
        from otel_audit.cli.asking import on_record
        from otel_audit.store.query import AuditStore

        screen = Screen(**{name: options.pop(name) for name in screens})
        path = screen.config_file = options["config"]
        config = store_config(**{name: options.pop(name) for name in _STORE_OPTIONS})
        asked = [filters_of(options)] if filters else []
        with (
            AuditStore(config, zone=screen.zone) as store,
            on_record(load(path), config, lambda: store.received),
        ):
            function(store, screen, *asked, **options)

    given = 3 if filters else 2
    groups = [(None, filters), (False, screens), (None, _STORE_OPTIONS)]
    return _with_options(function, command, given, groups)


def names_store(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of ``function(settings, …)``: adds the options that lay them over the configuration."""

    def command(**options: Any) -> None:
        settings = store_config(**{name: options.pop(name) for name in _STORE_OPTIONS})
        function(settings, **options)

    return _with_options(function, command, 1, [(None, _STORE_OPTIONS)])


def _with_options(
    function: Callable[..., None],
    command: Callable[..., None],
    given: int,
    groups: Sequence[tuple[Any, Mapping[str, Any]]],
) -> Callable[..., None]:
    """Let ``command`` have the options of ``function``, its ``given`` first arguments left out, and more.

    ``groups`` are the options added: their default, and the options by name.
    """
    functools.update_wrapper(command, function)
    names = {"AuditStore": object, "Filters": object, "StoreConfig": StoreConfig, **function.__globals__}
    hints = typing.get_type_hints(function, names, include_extras=True)
    own = [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in list(inspect.signature(function).parameters.values())[given:]
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for default, options in groups
        for name, hint in options.items()
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return command
