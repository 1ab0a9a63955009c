"""What all our instrumentors have in common: configuration, start, stop, and taking everything back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_audit.instrumentation import celery_tasks, click_commands, django_commands, threads
from otel_audit.instrumentation.patching import AppliedPatches, Listener, Patch
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline

_logger = logging.getLogger(__name__)


class Part(Protocol):
    """Something an instrumentor switches on with its patches, and off before they are taken back."""

    def start(self) -> None:
        """Begin to capture."""
        return

    def stop(self) -> None:
        """Capture no longer."""
        return


class OnceImported(Part):
    """What captures of a library that is not imported for it, made once the application has imported it."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None) -> None:
        self.config = config
        self.pipeline = pipeline
        self.patches = AppliedPatches()

    def begin(self) -> None:
        """Make what captures, and apply its patches."""
        raise NotImplementedError

    def end(self) -> None:
        """Take back what :meth:`begin` did."""
        self.patches.undo()

    def listener(self, module: str) -> Listener:
        """List what waits for a module of the library."""
        return Listener(f"{module}:import", self.begin, self.end, "there is nothing before", late=True)


class _Active(NamedTuple):
    parts: list[Part]
    patches: AppliedPatches


class _Handovers:
    """What carries the context to where work goes on, and names commands; in force with any instrumentor."""

    users = 0
    patches = AppliedPatches()

    @classmethod
    def begin(cls) -> None:
        if not cls.users:
            threads.Handing.over = True
            cls.patches.apply([*threads.table(), *click_commands.table(), *django_commands.table()])
            threads.watch_process_pools()
            celery_tasks.watch()
        cls.users += 1

    @classmethod
    def end(cls) -> None:
        cls.users -= 1
        if not cls.users:
            celery_tasks.unwatch()
            threads.Handing.over = False
            threads.Handing.process_pools.undo(only_ours=True)
            cls.patches.undo(only_ours=True)  # OpenTelemetry wraps them as well


class AuditInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Audit one library; ``uninstrument`` leaves no trace.

    ``instrument(pipeline=..., config=...)`` takes an :class:`~otel_audit.pipeline.provider.AuditPipeline`
    and an :class:`~otel_audit.config.model.AuditConfig`; both default to what was started. Any other option
    is a setting of ``section``, laid over the configuration; one that does not exist is an error.
    """

    library: ClassVar[str]
    """As messages name it: ``Django``."""
    section: ClassVar[str]
    """Its table of the configuration: ``django``."""
    requires: ClassVar[Collection[str]] = ()
    """The distributions it needs: ``Django >= 5.2``."""
    _active: _Active | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        return self.requires

    def is_wanted(self, config: AuditConfig) -> bool:
        """Say whether its section asks for it; where audit as a whole is off, nobody asks."""
        return bool(getattr(config, self.section).enabled)

    def preflight(self, config: AuditConfig) -> Iterable[str]:
        """Say what the user should hear before anything starts, and before other instrumentors do."""
        return ()

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        """Make what captures, as configured; nothing is started yet."""
        raise NotImplementedError

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        """List everything of the library that is wrapped or listened to."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do what must be there even if the rest fails."""

    def withdraw(self) -> None:
        """Undo :meth:`prepare`."""

    def _instrument(self, **kwargs: Any) -> None:
        from otel_audit import startup

        self.prepare()
        pipeline = kwargs.pop("pipeline", None)
        config = kwargs.pop("config", None) or (pipeline.config if pipeline is not None else None)
        if config is None or kwargs:
            config = startup.for_instrumentor(self.section, kwargs)
        if config is None:
            _logger.error("%s is not audited: %s", self.library, startup.why_off())
            return
        if not (config.enabled and self.is_wanted(config)):
            _logger.info("%s is not audited: switched off by configuration", self.library)
            return
        parts = self.parts(config, pipeline)
        self._active = active = _Active([], AppliedPatches())
        _Handovers.begin()
        try:
            active.patches.apply(self.patches(parts))
            for part in parts:
                active.parts.append(part)
                part.start()
        except BaseException:
            self._take_back()
            raise
        startup.keep_instrumentor(self)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._take_back()
        self.withdraw()

    def _take_back(self) -> None:
        active, self._active = self._active, None
        if active is not None:
            for part in reversed(active.parts):
                part.stop()
            _Handovers.end()
            active.patches.undo()
