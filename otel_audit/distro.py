"""What ``opentelemetry-instrument`` loads: the hook that starts audit, and a distro for users who have none.

The agent swallows every exception of start-up and lets the application run. With ``fail_closed`` it must not:
the hook then ends the process itself.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NoReturn

from opentelemetry.instrumentation.distro import BaseDistro, DefaultDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
    OTEL_PYTHON_DISTRO,
)
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

from otel_audit import startup
from otel_audit.errors import AuditError
from otel_audit.startup import startup_error

__all__ = ["AuditConfigurator", "AuditDistro", "pre_instrument", "startup_error"]

_logger = logging.getLogger(__name__)

_NAME: Final = "otel_audit"
_EXIT_STATUS: Final = 78  # EX_CONFIG of sysexits.h


def pre_instrument() -> None:
    """Start audit beside whatever distro is there; the agent calls this before it loads instrumentors."""
    try:
        if startup.is_running():
            startup.cover_provider()
        elif startup_error() is None:
            startup.setup(instrument=False)
    except AuditError:
        _refuse()
    if startup.must_not_run():
        _refuse()
    if startup.is_running():
        _warn_about_disabled_instrumentors()


def _refuse() -> NoReturn:
    """End the process: no exception gets through the agent and the interpreter's ``site`` reliably."""
    sys.stderr.write(f'otel-audit: refusing to start, because on_error = "fail_closed": {startup_error()}\n')
    sys.stderr.flush()
    os._exit(_EXIT_STATUS)


def _warn_about_disabled_instrumentors() -> None:
    disabled = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").replace(" ", "").split(",")
    ours = sorted(name for name in disabled if name == "*" or name.startswith(f"{_NAME}_"))
    if ours:
        _logger.warning(
            "%s disables %s: these instrumentors of otel-audit record nothing",
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
            ", ".join(ours),
        )


class AuditDistro(BaseDistro):  # type: ignore[misc]
    """Exports over OTLP if it was asked for by name; otherwise hands over to another distro, or does nothing.

    The agent takes the first distro it finds, in no particular order. Being found first must not take the
    user's own distro away, nor prepare spans for somebody who has other plans for them.
    """

    def __init__(self) -> None:
        self._other: BaseDistro | None = _other("distro", BaseDistro)

    def _configure(self, **kwargs: Any) -> None:
        if self._other is not None:
            try:
                self._other.configure(**kwargs)
            except Exception:  # it is installed beside us, and audit does not depend on it
                _logger.exception("The distro %s failed; audit starts without it", type(self._other).__name__)
            return
        if not _asked_for():
            return
        if _has_exporter("traces", "otlp"):
            os.environ.setdefault("OTEL_TRACES_EXPORTER", "otlp")
        if "OTEL_EXPORTER_OTLP_PROTOCOL" not in os.environ and not _has_exporter("traces", "otlp_proto_grpc"):
            os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load an instrumentor as the other distro does."""
        (self._other or DefaultDistro()).load_instrumentor(entry_point, **kwargs)


class AuditConfigurator(_OTelSDKConfigurator):
    """Configures the SDK if it was asked for by name; otherwise another configurator does, or nobody.

    Whoever has none installed sets the tracer provider otherwise, or wants none; a second one would be
    refused. If configuring fails, audit starts all the same: it does not depend on the SDK's exporters.
    """

    def _configure(self, **kwargs: Any) -> None:
        try:
            other = _other("configurator", object)
            if other is not None:
                other.configure(**kwargs)
            elif _asked_for():
                super()._configure(**kwargs)  # type: ignore[no-untyped-call]
        except Exception:  # a missing exporter, a bad variable: no reason not to audit
            _logger.exception(
                "OpenTelemetry could not be configured: no spans are made. Audit starts without them"
            )


def _asked_for() -> bool:
    """Say whether our distro or our configurator was asked for by name: then spans are to be exported."""
    return _NAME in (os.environ.get(OTEL_PYTHON_DISTRO), os.environ.get(OTEL_PYTHON_CONFIGURATOR))


def _other(kind: str, base: type) -> Any:
    """Make the first other distro or configurator that can be loaded; None if ours was asked for by name."""
    if os.environ.get(f"OTEL_PYTHON_{kind.upper()}") == _NAME:
        return None
    for entry_point in entry_points(group=f"opentelemetry_{kind}"):
        if entry_point.name == _NAME:
            continue
        try:
            other = entry_point.load()()
        except Exception:
            _logger.exception("The %s %s cannot be loaded; audit starts without it", kind, entry_point.name)
            continue
        if isinstance(other, base):
            _handed_over.names.add(entry_point.name)
            return other
    return None


class _HandedOver(logging.Filter):
    """Keeps the agent from saying that what we handed over to was not loaded, because we were."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass but that sentence."""
        args = record.args
        return not (
            record.msg == "Configuration of %s not loaded, %s already loaded"
            and isinstance(args, tuple)
            and len(args) == 2
            and args[0] in self.names
            and args[1] == _NAME
        )


_handed_over: Final = _HandedOver()
logging.getLogger("opentelemetry.instrumentation.auto_instrumentation._load").addFilter(_handed_over)


def _has_exporter(signal: str, name: str) -> bool:
    return bool(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
