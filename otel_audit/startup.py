"""Starting and stopping audit in a process: the same with the agent and without.

``setup`` loads the configuration, starts the pipeline, puts redaction in front of the span exporters, wraps
the propagator and activates our instrumentors. If any of it fails, the application hears of it: a log line at
ERROR, :func:`startup_error` for Django's system checks, and with ``fail_closed`` an exception.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel_audit.config import django_setting
from otel_audit.config.loader import LoadedConfig, load
from otel_audit.config.model import AuditConfig
from otel_audit.config.sources import find_file, mapping_layer
from otel_audit.errors import AuditError, ConfigurationError, StartupError
from otel_audit.file_locks import fcntl
from otel_audit.pipeline import provider

if TYPE_CHECKING:
    from otel_audit.propagation import AuditPropagator
    from otel_audit.redaction.spans.exporters import ExporterRedaction

_logger = logging.getLogger(__name__)

_INSTRUMENTORS: Final = "opentelemetry_instrumentor"
_PREFIX: Final = "otel_audit_"  # of our instrumentors' entry points; what follows names their section
_ON_ERROR: Final = "OTEL_AUDIT_ON_ERROR"
_NEEDS_POSIX: Final = (
    "the spool needs file locks and fork hooks, which this system (Windows) does not have: no record "
    "can be kept, and spans are not redacted. Run the application on Linux or macOS, or under WSL"
)


class _Running(msgspec.Struct):
    """What was started, so that it can be stopped again."""

    pipeline: provider.AuditPipeline
    exporters: ExporterRedaction | None = None
    propagator: AuditPropagator | None = None
    instrumentors: list[Any] = []


class _State:
    """What this process knows of its own start."""

    running: _Running | None = None
    error: Exception | None = None
    refused: bool = False
    setting_ignored: str = ""
    off_because: str = (
        "audit was not started: call otel_audit.setup(), or start the application under "
        "opentelemetry-instrument"
    )


_state: Final = _State()


def startup_error() -> str | None:
    """Say why audit could not be started in this process, None if it could or nobody tried."""
    return None if _state.error is None else f"{_state.error}"


def why_off() -> str | None:
    """Say why nothing is recorded in this process, None if it is."""
    if _state.running is not None:
        return provider.held_because()
    return _state.off_because if _state.error is None else f"audit could not be started: {_state.error}"


def setup(
    config: AuditConfig | None = None,
    *,
    config_file: str | os.PathLike[str] | None = None,
    instrument: bool = True,
) -> provider.AuditPipeline | None:
    """Start audit in this process, replacing an audit that is already running.

    Args:
        config: the configuration. Default: loaded from ``config_file``, or found as documented.
        config_file: the file to load.
        instrument: whether to activate our instrumentors for the installed libraries.

    Returns:
        The pipeline. None if the configuration says ``enabled = false``, or if audit could not be started and
        ``on_error`` is ``fail_open``; the reason is then logged at ERROR and kept for :func:`startup_error`.

    Raises:
        AuditError: audit could not be started and ``on_error`` is ``fail_closed``.
    """
    shutdown()
    _state.error, _state.refused = None, False
    _state.setting_ignored = "otel_audit.setup() was called with a configuration"
    try:
        if config is None:
            config = load_config(config_file).config
        return _start(config, instrument=instrument)
    except Exception as error:
        _state.error = error
        _logger.error("Nothing is audited: %s", error, exc_info=not isinstance(error, AuditError))
        _stop()
        _state.refused = refuses_to_start(config, config_file)
        if _state.refused:
            if isinstance(error, AuditError):
                raise
            raise StartupError(f"audit could not be started: {error}") from error
        return None


def shutdown() -> None:
    """Stop audit in this process: remove every wrapper, end the stream, and wait for the sink."""
    if _state.running is not None:
        _state.off_because = "audit has been shut down"
    _stop()


def _stop() -> None:
    running, _state.running = _state.running, None
    if running is None:
        return
    for instrumentor in reversed(running.instrumentors):
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    if running.propagator is not None:
        from otel_audit.propagation import uninstall

        uninstall(running.propagator)
    if running.exporters is not None:
        running.exporters.undo()
    if provider.configured() is running.pipeline:
        provider.stop()


def _start(config: AuditConfig, *, instrument: bool) -> provider.AuditPipeline | None:
    if not config.enabled:
        _state.off_because = "audit is switched off: enabled = false"
        _logger.warning("Nothing is audited: enabled = false in otel-audit's configuration")
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _logger.warning(
            "OTEL_SDK_DISABLED is set: no spans are made, but audit stays on. To switch audit off, set "
            "OTEL_AUDIT_ENABLED=false"
        )
    if not _can_keep_records():
        raise StartupError(_NEEDS_POSIX)
    installed = list(_installed(config))
    _warn_before_start(config, installed)
    from otel_audit.redaction.redactor import Redactor

    redactor = Redactor(config.redaction)
    _state.running = _Running(provider.start(config, redactor=redactor))
    _cover_spans(_state.running, config, redactor)
    if instrument:
        instrument_all(installed)
    return _state.running.pipeline


def _can_keep_records() -> bool:
    """Say whether the system has what the spool stands on: locks of files, and hooks at a fork."""
    return fcntl is not None and hasattr(os, "register_at_fork")


def _cover_spans(running: _Running, config: AuditConfig, redactor: Any) -> None:
    from otel_audit.otel_api import say_once, tracer_provider
    from otel_audit.propagation import ActorSpanProcessor, install
    from otel_audit.redaction.spans.exporters import ExporterRedaction

    try:
        running.propagator = install()
    except Exception as error:  # noqa: BLE001 - a propagator may be anybody's
        say_once("Baggage with otel-audit's names is not removed: the propagator cannot be wrapped", error)
    running.exporters = ExporterRedaction(redactor if config.redaction.spans else None, ActorSpanProcessor())
    running.exporters.apply(tracer_provider())


def must_not_run() -> bool:
    """Say whether audit could not be started and the configuration asks for ``fail_closed``."""
    return _state.refused


def cover_provider() -> None:
    """Look at the tracer provider again: one may have been set without our noticing since the start."""
    if _state.running is not None and _state.running.exporters is not None:
        from otel_audit.otel_api import tracer_provider

        _state.running.exporters.cover(tracer_provider())


def is_running() -> bool:
    """Say whether audit was started in this process."""
    return _state.running is not None


# --- configuration -----------------------------------------------------------------------------


def load_config(config_file: str | os.PathLike[str] | None = None) -> LoadedConfig:
    """Load the configuration from everywhere it may stand.

    Raises:
        ConfigurationError: it is wrong; or OTEL_CONFIG_FILE is set and cannot be read.
    """
    path = find_file(os.environ, Path.cwd()) if config_file is None else Path(config_file)
    settings = None
    if path is not None:
        _state.setting_ignored = f"the configuration is {path}"
    elif django_setting.has_settings():
        settings = django_setting.read_setting()
        _state.setting_ignored = ""
    else:
        _state.setting_ignored = (
            "Django had no settings yet when audit started. Call otel_audit.setup() after "
            "settings.configure(), or write otel-audit.toml"
        )
    loaded = load(path, django_settings=settings, declarative=declared_options())
    for note in loaded.notes:
        _logger.warning("%s", note)
    return loaded


def why_setting_ignored() -> str:
    """Say why Django's OTEL_AUDIT setting makes no difference in this process; empty if it does."""
    return _state.setting_ignored


def declared_options() -> dict[str, Any]:
    """Read what OpenTelemetry's OTEL_CONFIG_FILE says about our instrumentors, by section.

    They stand under ``instrumentation/development: python: otel_audit_django:``. The SDK would hand them to
    the instrumentor, and ignore ``enabled: false`` and wrong ones a moment later (facts: opentelemetry, A2).

    Raises:
        ConfigurationError: the file cannot be read.
    """
    path = os.environ.get("OTEL_CONFIG_FILE")
    if not path:
        return {}
    try:
        from opentelemetry.configuration import load_config_file

        document: Any = load_config_file(path)
        options = document.instrumentation_development and document.instrumentation_development.python
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_CONFIG_FILE is set to {path!r} and cannot be read: pip install opentelemetry-configuration"
        ) from error
    except Exception as error:
        raise ConfigurationError(
            f"OTEL_CONFIG_FILE is set to {path!r} and cannot be read: {error}"
        ) from error
    return {
        name.removeprefix(_PREFIX): dict(section or {})
        for name, section in (options or {}).items()
        if name.startswith(_PREFIX)
    }


def refuses_to_start(config: AuditConfig | None, config_file: str | os.PathLike[str] | None = None) -> bool:
    """Say whether ``on_error`` is ``fail_closed``, also where the configuration itself is what is wrong.

    A configuration that cannot be read is searched for the words: who wrote ``fail_closed`` next to a typo
    did not mean to run without audit.
    """
    if config is not None:
        return config.fail_closed
    if _ON_ERROR in os.environ:
        return os.environ[_ON_ERROR].strip().lower() == "fail_closed"
    with suppress(AuditError, OSError):
        file = Path(config_file) if config_file is not None else find_file(os.environ, Path.cwd())
        if file is not None:
            text = file.read_text("utf-8", "replace")
            return re.search(r"^\s*on_error\s*=\s*[\"']fail_closed", text, re.MULTILINE) is not None
    with suppress(AuditError):
        setting = django_setting.read_setting()
        return isinstance(setting, Mapping) and setting.get("on_error") == "fail_closed"
    return False


# --- instrumentors -----------------------------------------------------------------------------


def instrument_all(installed: Iterable[Any] | None = None) -> list[Any]:
    """Activate each of our instrumentors whose library is installed, and return them.

    Args:
        installed: these, where they have been looked for already.
    """
    activated = []
    for instrumentor in _installed() if installed is None else installed:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        instrumentor.instrument(skip_dep_check=True)
        activated.append(instrumentor)
    return activated


def _installed(config: AuditConfig | None = None) -> Iterator[Any]:
    """Load each of our instrumentors whose library is there, and not too old.

    Args:
        config: without those that it leaves switched off, as they are by default: most processes want few.
    """
    from importlib.metadata import PackageNotFoundError, distribution, entry_points

    try:  # of our own distribution alone: reading those of all takes longer, the more are installed
        found = distribution("otel-audit").entry_points.select(group=_INSTRUMENTORS)
    except PackageNotFoundError:  # some bundle the code without its metadata, or under theirs
        found = entry_points(group=_INSTRUMENTORS)
    for entry_point in sorted(found, key=lambda each: each.name):
        if entry_point.name.startswith(_PREFIX) and not is_left_off(config, entry_point.name):
            instrumentor = entry_point.load()()
            if instrumentor._check_dependency_conflicts() is None:
                yield instrumentor


def is_left_off(config: AuditConfig | None, name: str) -> bool:
    """Say whether an instrumentor (by its entry point) is off by default, and nobody asked for it."""
    if config is None:
        return False
    section = name.removeprefix(_PREFIX)
    wanted, default = (
        getattr(getattr(each, section, None), "enabled", True) for each in (config, AuditConfig())
    )
    return not (wanted or default)


def _warn_before_start(config: AuditConfig, installed: Iterable[Any]) -> None:
    """Log what our instrumentors see is wrong with the process before anything is instrumented."""
    for instrumentor in installed:
        for warning in instrumentor.preflight(config):
            _logger.warning("%s", warning)


def keep_instrumentor(instrumentor: Any) -> None:
    """Remember an instrumentor that became active, for :func:`shutdown` to deactivate."""
    if _state.running is not None and instrumentor not in _state.running.instrumentors:
        _state.running.instrumentors.append(instrumentor)


def active_instrumentors() -> list[Any]:
    """Return our instrumentors that are active in this process."""
    return [] if _state.running is None else list(_state.running.instrumentors)


def for_instrumentor(section: str, options: Mapping[str, Any]) -> AuditConfig | None:
    """Return an instrumentor its configuration, starting audit if nobody has; None if there is nothing to do.

    ``options`` are what ``instrument()`` was called with: settings of ``section``, laid over the others.

    Raises:
        ConfigurationError: an option is unknown or has a bad value.
    """
    # OTEL_CONFIG_FILE has instrumentors started before anything else of ours could be.
    nobody_tried = provider.configured() is None and _state.error is None
    if nobody_tried and (options or os.environ.get("OTEL_CONFIG_FILE")):
        setup(instrument=False)
    pipeline = provider.configured()
    if pipeline is None:
        return None
    config = pipeline.config
    if not options:
        return config
    from otel_audit.config.diagnosis import diagnose

    problems = list(diagnose(mapping_layer({section: dict(options)}, "instrument()")))
    if problems:
        raise ConfigurationError("\n".join(problems))
    merged = msgspec.to_builtins(getattr(config, section)) | dict(options)
    chosen = msgspec.convert(merged, type(getattr(config, section)))
    return msgspec.structs.replace(config, **{section: chosen})
