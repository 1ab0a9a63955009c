"""Which requests are recorded at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from otel_audit.audit_context import AuditContext
from otel_audit.config.model import AuditConfig
from otel_audit.http.requests.asked import Asked
from otel_audit.http.requests.ignored import Ignored
from otel_audit.http.requests.marks import Marked
from otel_audit.http.requests.recording import RequestRecording
from otel_audit.http.requests.rules import RequestRules
from otel_audit.interruptions import faults
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.policy import Facts, Level

# A member of an enumeration is looked up anew each time.
_NONE: Final = Level.NONE
_METADATA: Final = Level.METADATA


class RequestRecords(RequestRules):
    """Begins the records of requests; for each kind of server, something of its own goes on with them."""

    def __init__(
        self, config: AuditConfig, logger: Callable[[], AuditLogger | None], failures: Failures
    ) -> None:
        super().__init__(config, logger, failures)
        self._ignored = Ignored(config.requests)
        self._ignores = bool(config.requests.ignore_paths or config.requests.ignore_addresses)

    def recording(self, asked: Asked, context: AuditContext) -> RequestRecording | None:
        """Begin with a request whose scope is that of ``context``; None if it is not recorded. Never raises.

        None of a path or address that is ignored, and where the rules are sure before anything is known.
        """
        try:
            if not (self._ignores or self.has_rules):
                return RequestRecording(self, asked, context, _METADATA)
            path = asked.path()
            if self._ignored.path(path) or (
                self._ignored.by_address and self._ignored.address(asked.address())
            ):
                return None
            if not self.has_rules:
                return RequestRecording(self, asked, context, _METADATA)
            facts = Facts(path=path, method=asked.method() or None, host=asked.header("host") or None)
            highest = self.policy.highest("request", facts)
            if highest is _NONE and (Marked.highest is _NONE or self.is_certain(facts)):
                return None
            return RequestRecording(self, asked, context, highest)
        except faults() as fault:
            self.failures.note("request", fault, lost=1)
            return None
