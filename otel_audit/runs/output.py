"""What a run prints, as its records have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_audit.interruptions import faults
from otel_audit.runs.streams import Listening
from otel_audit.semconv import OUTPUT, OUTPUT_SIZE

if TYPE_CHECKING:
    from otel_audit.http.contents import Contents
    from otel_audit.pipeline.failures import Failures


class Output:
    """What a run prints, from :meth:`begin` to :meth:`end`; a failure costs its records the output alone.

    Args:
        limit: how many characters are recorded at most.
        contents: what is shown of it.
        failures: is told of what fails.
        run: the name of the run, for that.
    """

    __slots__ = ("_contents", "_failures", "_limit", "_listening", "_run")

    def __init__(self, limit: int, contents: Contents, failures: Failures, run: str) -> None:
        self._limit = limit
        self._contents = contents
        self._failures = failures
        self._run = run
        self._listening: Listening | None = None

    def begin(self, *streams: Any) -> None:
        """Look at what is printed to the streams of this process, and to those given."""
        listening = Listening(self._limit)
        try:
            listening.begin(*streams)
            self._listening = listening
        except faults() as error:
            self._failures.note("output", error, what=self._run)

    def news(self) -> str:
        """Return what was printed since the last call, and look at every write again."""
        if self._listening is None:
            return ""
        self._listening.renew()
        return self._listening.printed.news(self._contents)

    def end(self) -> None:
        """Look at what is printed no longer."""
        if self._listening is not None:
            try:
                self._listening.end()
            except faults() as error:
                self._failures.note("output", error, what=self._run)

    def shown(self) -> dict[str, Any]:
        """Return attributes for the record of the run: the end of what it printed, and how much that was."""
        if self._listening is None:
            return {}
        printed = self._listening.printed
        return {OUTPUT: printed.text(self._contents), OUTPUT_SIZE: printed.size}
