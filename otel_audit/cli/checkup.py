"""What ``doctor`` looks at, one function a subject; each finding says what is so and what to do about it."""

from __future__ import annotations

import datetime
import http.client
import os
import ssl
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from otel_audit import startup
from otel_audit.cli.installed_models import NotLoaded, ask_application
from otel_audit.cli.options import load_declared
from otel_audit.config.headers import sink_header_problems
from otel_audit.config.loader import LoadedConfig
from otel_audit.config.model import AuditConfig, SinkConfig, StoreConfig, capture_sections
from otel_audit.errors import AuditError, ConfigurationError, StoreError

State: TypeAlias = Literal["ok", "note", "bad"]

_WAITING_TOO_LONG: Final = 60 * 1_000_000_000
_NO_TABLE: Final = frozenset({60, 81})
_OURS: Final = "otel_audit"
_PREFIX: Final = f"{_OURS}_"
_DJANGO: Final = f"{_PREFIX}django"
_LIBRARIES: Final = {
    _DJANGO: "Django",
    f"{_PREFIX}sqlalchemy": "SQLAlchemy",
    f"{_PREFIX}starlette": "Starlette",
}
_HTTP_CLIENTS: Final = f"{_PREFIX}http_clients"
_LOADING_SECONDS: Final = 60.0
_NAMED: Final = 5


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing looked at: ``note`` is worth knowing, ``bad`` does not work."""

    subject: str
    state: State
    finding: str
    advice: str = ""


def checkup(path: Path | None, timeout: float, zone: datetime.tzinfo | None) -> Iterator[Finding]:
    """Look at everything, from the configuration to the newest record."""
    broken = False
    try:
        loaded = load_declared(path)
    except ConfigurationError as error:
        broken = True
        yield Finding("configuration", "bad", str(error), "correct it; the other checks use the defaults")
        loaded = LoadedConfig(config=AuditConfig())
    else:
        yield from configuration(loaded)
    config = loaded.config
    yield from django(config)
    if not broken:
        yield from models(config, path)
    yield from actor(config)
    yield from propagation(config)
    yield from packages()
    yield from spool(config)
    yield sink(config.sink, timeout)
    yield from store(config.store, timeout, zone)


def configuration(loaded: LoadedConfig) -> Iterator[Finding]:
    """Say which file holds, and what in it records nothing."""
    variables = sum(1 for where in loaded.origins.values() if where.startswith("OTEL_AUDIT_"))
    besides = f", and {variables} variables" if variables else ""
    if loaded.path is not None:
        yield Finding("configuration", "ok", f"{loaded.path}{besides}")
    else:
        yield Finding(
            "configuration",
            "ok" if variables else "note",
            f"no file{besides}; all other settings have their defaults",
            "`otel-audit init` writes otel-audit.toml; Django's OTEL_AUDIT setting is read only inside "
            "Django",
        )
    for note in loaded.notes:
        yield Finding("configuration", "note", note)
    if not loaded.config.enabled:
        where = loaded.origins.get("enabled", "the configuration")
        yield Finding("configuration", "bad", f"audit is switched off by {where}", "set enabled = true")


def django(config: AuditConfig) -> Iterator[Finding]:
    """Say whether Django will be audited under ``opentelemetry-instrument``, or why not."""
    version = _version("Django")
    names = {point.name for point in metadata.entry_points(group="opentelemetry_instrumentor")}
    ours = sorted(
        name
        for name in names
        if name.startswith(_OURS) and name != _HTTP_CLIENTS and not startup.is_left_off(config, name)
    )
    switched_off = _switched_off()
    if not ours:
        yield Finding(
            "instrumentors",
            "bad",
            "otel-audit's entry points are not installed",
            "install it with pip, also from a checkout: pip install -e '.[django]'",
        )
    for name in ours:
        reason = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names it" if switched_off & {"*", name} else ""
        if not reason:
            reason = _why_inactive(name, config)
        if reason:
            yield Finding("instrumentors", "note", f"{name}: inactive, because {reason}")
        else:
            yield _active(name, config)
    if version is None:
        return
    settings = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    if not settings:
        is_service = bool(config.sqlalchemy.models) and not config.django.models
        yield Finding(
            "Django",
            "note" if is_service else "bad",  # installed, and not what this is about
            f"{version}; DJANGO_SETTINGS_MODULE is not set",
            "export it before opentelemetry-instrument starts: it configures Django before manage.py or "
            "wsgi.py can name the settings",
        )
    elif not _is_file(settings):
        yield Finding(
            "Django",
            "note",
            f"{version}; DJANGO_SETTINGS_MODULE is {settings}, which cannot be found here",
            "run doctor in the application's directory, with its PYTHONPATH",
        )
    else:
        yield Finding("Django", "ok", f"{version}; DJANGO_SETTINGS_MODULE is {settings}")


def models(config: AuditConfig, path: Path | None) -> Iterator[Finding]:
    """Load the application's apps in a process of their own, and count the models that are audited."""
    if not _loadable(config):
        return
    try:
        found = ask_application(path, _LOADING_SECONDS)
    except NotLoaded as error:
        yield Finding(
            "models",
            "bad",
            f"cannot load the application's apps: {error}",
            "`python manage.py check` shows the full error; run doctor in the application's environment",
        )
        return
    origin = ", set by Django's OTEL_AUDIT setting" if found.from_setting else ""
    if found.models or found.reads:
        reads = f"; reads of {_listed(found.reads)}" if found.reads else ""
        yield Finding("models", "ok", f"{_listed(found.models)}{reads}{origin}")
    elif not found.mistakes:
        yield Finding(
            "models",
            "note",
            f"no model is audited{origin}",
            'set django.models, for example to ["shop.*"], or `__audit__ = True` in the class of a model',
        )
    if found.places:
        placed = [f"{label} by {place}" for label, place in sorted(found.places.items())]
        more = f" and {len(placed) - _NAMED} more" if len(placed) > _NAMED else ""
        yield Finding("models", "ok", f"not named in the configuration: {', '.join(placed[:_NAMED])}{more}")
    for each in found.mistakes:
        yield Finding("models", "bad", each.sentence, each.hint)


def actor(config: AuditConfig) -> Iterator[Finding]:
    """Say which function names who makes a request, where the application has one for it."""
    named = config.context.actor_from
    module = named.partition(":")[0]
    if not named:
        return
    if _is_file(module):
        yield Finding("actor", "ok", f"context.actor_from: {named}, then the user of the request")
    else:
        yield Finding(
            "actor",
            "note",
            f"context.actor_from: {module} cannot be found here",
            "correct it, or run doctor in the application's directory, with its PYTHONPATH; records are made "
            "without the actor it would name",
        )


def propagation(config: AuditConfig) -> Iterator[Finding]:
    """Say to whom calls tell who acts, from whom that is accepted, and what is wrong with the keys."""
    context = config.context
    named = context.propagate_to or context.audience or context.queues
    if not (named or context.keys or context.keys_file):
        return
    from otel_audit.config.context_keys import read_keys

    keys = read_keys(context)
    for problem in keys.problems:
        yield Finding(
            "signed context", "bad", problem, "keys are made and rotated as docs/propagation.md says"
        )
    if context.propagate_to:
        to = f"sent to {', '.join(context.propagate_to)}"
        disabled = _switched_off() & {"*", _HTTP_CLIENTS}
        if not keys.signing:
            yield Finding("signed context", "bad", f"not {to}: no key signs", _NO_KEY)
        elif disabled:
            yield Finding(
                "signed context",
                "bad",
                f"not {to}: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names {_HTTP_CLIENTS}",
            )
        else:
            yield Finding("signed context", "ok", f"{to}, signed with the key {keys.signing!r}")
    if context.audience and not keys.secrets:
        yield Finding("signed context", "bad", "not accepted: there is no key to verify one", _NO_KEY)
    elif context.audience:
        yield Finding(
            "signed context",
            "ok",
            f"accepted for {', '.join(context.audience)}, signed with {_named_keys(keys.secrets)}",
        )
    if context.queues and not keys.signing:
        yield Finding("signed context", "bad", "not sent to queues: no key signs", _NO_KEY)
    elif context.queues:
        yield Finding(
            "signed context",
            "ok",
            f"sent to and accepted from the queues {', '.join(context.queues)}, signed with the key "
            f"{keys.signing!r}",
        )
    if keys.secrets and not named:
        yield Finding(
            "signed context",
            "note",
            "there are keys, and nothing is sent or accepted",
            "set context.propagate_to where calls are made, context.audience where they are answered, "
            "context.queues for tasks and messages",
        )


_NO_KEY: Final = (
    "set OTEL_AUDIT_CONTEXT_KEYS=id=secret, the same in both services; openssl rand -base64 32 makes a secret"
)


def _named_keys(names: Iterable[str]) -> str:
    named = sorted(map(repr, names))
    return f"the key {named[0]}" if len(named) == 1 else f"the keys {', '.join(named)}"


def _loadable(config: AuditConfig) -> bool:
    settings = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    return bool(settings) and _is_file(settings) and not _why_inactive(_DJANGO, config)


def _listed(labels: list[str]) -> str:
    named = ", ".join(labels[:_NAMED]) + (", …" if len(labels) > _NAMED else "")
    return f"{len(labels)} model{'' if len(labels) == 1 else 's'}{': ' if named else ''}{named}"


def _active(name: str, config: AuditConfig) -> Finding:
    active = f"{name}: active under opentelemetry-instrument"
    key = name.removeprefix(_PREFIX)
    section = capture_sections(config).get(key)
    if section is None or (name == _DJANGO and not section.models and _loadable(config)):
        return Finding("instrumentors", "ok", active)  # which models, the application will say
    if not section.models:
        return Finding(
            "instrumentors",
            "note",
            f"{active}; the configuration names no model, their classes may",
            f'set {key}.models, for example to ["shop.*"], or `__audit__ = True` in the class of a model',
        )
    return Finding("instrumentors", "ok", f"{active}, for {', '.join(section.models)}")


def _why_inactive(name: str, config: AuditConfig) -> str:
    """Say why an instrumentor does nothing."""
    library = _LIBRARIES.get(name)
    if library is not None and _version(library) is None:
        return f"{library} is not installed here"
    if not config.enabled:
        return "audit is switched off"
    key = name.removeprefix(_PREFIX)
    section = getattr(config, key, None)
    return f"{key}.enabled is false" if getattr(section, "enabled", True) is False else ""


def _switched_off() -> set[str]:
    names = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    return {name.strip() for name in names.split(",") if name.strip()}


def _is_file(module: str) -> bool:
    """Look for a module's file without importing the packages it lies in."""
    relative = Path(*module.split("."))
    for directory in ("", *sys.path):
        place = Path(directory or ".") / relative
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            return True
    return False


def packages() -> Iterator[Finding]:
    """Say which of OpenTelemetry's packages run beside us."""
    found = {
        name: _version(name)
        for name in (
            "opentelemetry-sdk",
            "opentelemetry-distro",
            "opentelemetry-exporter-otlp",
            "opentelemetry-instrumentation-django",
            "opentelemetry-instrumentation-asgi",
            "opentelemetry-instrumentation-fastapi",
        )
    }
    yield Finding(
        "OpenTelemetry",
        "ok",
        ", ".join(
            f"{name.removeprefix('opentelemetry-')} {number}" for name, number in found.items() if number
        ),
    )
    distros = [point for point in metadata.entry_points(group="opentelemetry_distro") if point.name != _OURS]
    if not distros and os.environ.get("OTEL_PYTHON_DISTRO") != _OURS:
        yield Finding(
            "OpenTelemetry",
            "note",
            "no distribution except otel-audit's: records are made, but spans are not exported unless "
            "the application does it",
            "pip install 'otel-audit[agent]', or set "
            "OTEL_PYTHON_DISTRO=otel_audit OTEL_PYTHON_CONFIGURATOR=otel_audit",
        )
    if _version("Django") and not found["opentelemetry-instrumentation-django"]:
        yield Finding(
            "OpenTelemetry",
            "note",
            "opentelemetry-instrumentation-django is not installed: records have no trace id",
            "pip install 'otel-audit[django]'",
        )
    elif _version("Django") and not found["opentelemetry-instrumentation-asgi"]:
        yield Finding(
            "OpenTelemetry",
            "note",
            "opentelemetry-instrumentation-asgi is not installed: under ASGI, records have no trace id",
            "pip install 'otel-audit[django]'",
        )
    if _version("fastapi") and not found["opentelemetry-instrumentation-fastapi"]:
        yield Finding(
            "OpenTelemetry",
            "note",
            "opentelemetry-instrumentation-fastapi is not installed: records of requests have no trace id",
            "pip install 'otel-audit[fastapi]'",
        )
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding(
            "OpenTelemetry",
            "note",
            "OTEL_SDK_DISABLED is true: no spans are made, but audit stays on (switch it off with `enabled`)",
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def spool(config: AuditConfig) -> Iterator[Finding]:
    """Say what waits on this machine, and since when."""
    from otel_audit.pipeline.spool.status import read_status

    state = read_status(config.spool.directory)
    if state.error:
        yield Finding(
            "spool",
            "bad",
            state.error,
            "make the directory writable for the application's user, or set spool.directory",
        )
        return
    if not state.exists:
        yield Finding(
            "spool", "note", f"{state.directory} does not exist yet: nothing has been recorded here"
        )
        return
    running = sum(stream.alive for stream in state.streams)
    text = f"{state.directory}: {state.waiting} records waiting, {running} processes writing"
    age = time.time_ns() - state.oldest if state.oldest else 0
    if age > _WAITING_TOO_LONG:
        yield Finding(
            "spool",
            "bad",
            f"{text}; the oldest for {duration(age)}",
            "see the sink below; `otel-audit spool drain` sends what terminated processes left",
        )
    else:
        yield Finding("spool", "ok", text)
    for problem in state.unreadable:
        reason, _, remedy = problem.partition("): ")
        yield Finding("spool", "bad", f"skipped: {reason})", remedy)
    if state.damaged_files or state.quarantined:
        yield Finding(
            "spool",
            "bad",
            f"{len(state.damaged_files)} damaged and {len(state.quarantined)} refused files were set aside",
            "`otel-audit spool status` lists them; keep them as evidence, then move them out of the spool",
        )


def sink(config: SinkConfig, timeout: float) -> Finding:
    """Send the sink an empty request, as the application would send a full one."""
    for problem in sink_header_problems(config):
        return Finding(
            "sink",
            "bad",
            problem,
            "correct it: requests are sent without it, so the sink may refuse them and records wait",
        )
    address = urlsplit(config.endpoint)
    where = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
    try:
        status = _post_nothing(config, timeout)
    except ssl.SSLError as error:
        return Finding(
            "sink",
            "bad",
            f"{where}: TLS: {error}",
            "set sink.ca_file to the certificate authority's PEM file",
        )
    except ConfigurationError as error:
        return Finding("sink", "bad", str(error))
    except (OSError, http.client.HTTPException) as error:
        reason = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else str(error)
        return Finding(
            "sink",
            "bad",
            f"{where} is not reachable: {reason}",
            "start `otel-audit serve` or a Collector at that address, or set sink.endpoint; records "
            "wait in the spool",
        )
    if status in (401, 403):
        given = "the token is not valid" if config.token else "no token is configured"
        return Finding(
            "sink",
            "bad",
            f"{where} answers {status}: {given}",
            "set OTEL_AUDIT_SINK_TOKEN (sink.token) to the OTEL_AUDIT_SERVER_TOKEN of `otel-audit "
            "serve` or the OTELCOL_AUDIT_TOKEN of the Collector, also for the application; records "
            "wait in the spool",
        )
    if status == 421:
        return Finding(
            "sink",
            "bad",
            f"{where} answers 421: without a token it does not accept requests for this host name",
            "add the name to `hosts` in [server] on that machine (OTEL_AUDIT_SERVER_HOSTS), or set "
            "OTEL_AUDIT_SINK_TOKEN; records wait in the spool",
        )
    if status in (404, 405):
        return Finding(
            "sink",
            "bad",
            f"{where} answers {status}: it does not accept records at this address",
            "set sink.endpoint to a path that ends in /v1/audit or /v1/logs",
        )
    if status in (429, 502, 503, 504):
        return Finding(
            "sink",
            "note",
            f"{where} answers {status}: it is busy; records wait in the spool and are sent later",
        )
    if status != 200:
        return Finding(
            "sink", "bad", f"{where} answers {status} to an empty request", "see the log of the sink"
        )
    return Finding("sink", "ok", f"{where} accepts records")


def _post_nothing(config: SinkConfig, timeout: float) -> int:
    from otel_audit.pipeline.delivery.otlp_http import Transport

    transport = Transport(msgspec.structs.replace(config, timeout=timeout, compression="none"))
    try:
        return transport.probe()
    finally:
        transport.close()


def store(config: StoreConfig, timeout: float, zone: datetime.tzinfo | None) -> Iterator[Finding]:
    """Ask the store for its newest record."""
    from otel_audit.cli.output.sentences import what_object, who
    from otel_audit.store.client import RefusedQuery
    from otel_audit.store.query import AuditStore
    from otel_audit.store.times import format_time, zone_name

    try:
        with AuditStore(msgspec.structs.replace(config, timeout=timeout), zone=zone) as trail:
            newest = trail.newest()
    except RefusedQuery as error:
        if error.code in _NO_TABLE:
            yield Finding(
                "store",
                "bad",
                f"{_without_credentials(config.url)} answers, but {config.database!r} has no audit tables",
                "set store.database to the right name, or create the tables with `otel-audit store init`",
            )
        else:
            yield Finding(
                "store", "bad", str(error), "see the message; user, password and token are set in [store]"
            )
        return
    except StoreError as error:
        yield Finding("store", "bad", str(error))
        return
    except AuditError as error:
        yield Finding("store", "bad", str(error))
        return
    yield Finding("store", "ok", f"{_without_credentials(config.url)} answers")
    if newest is None:
        yield Finding(
            "newest record",
            "note",
            "there is none yet",
            "start the application under opentelemetry-instrument and change something that is recorded",
        )
        return
    age = duration(time.time_ns() - newest.timestamp)
    when = f"{format_time(newest.timestamp, zone=zone)} {zone_name(newest.timestamp, zone=zone)}"
    words = f"{newest.action} {what_object(newest)} by {who(newest.actor)}"
    yield Finding("newest record", "ok", f"{age} ago, {when}: {' '.join(words.split())}")


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def duration(nanoseconds: int) -> str:
    """Write a duration for people, in the unit that fits: ``3 s``, ``5 min``, ``2 days``."""
    seconds = max(0, nanoseconds) / 1e9
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
