"""How much is recorded of requests, calls, commands, tasks and changes: the first rule that matches."""

from otel_audit.policy.decision import Decision, Facts, Kind, Level, Stage
from otel_audit.policy.policy import Policy

__all__ = ["Decision", "Facts", "Kind", "Level", "Policy", "Stage"]
