"""Which record of a refused batch the sink will never take, and setting that one aside.

A batch is halved until one record stands alone; it is set aside, visibly, once the sink has refused it again
after taking others.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.delivery.otlp_http import Answer, Verdict
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout

PATIENCE: Final = 5
"""Attempts with the whole batch before a record is suspected of an answer that may pass (503)."""
BY_CONTENT: Final = frozenset({Verdict.REFUSED, Verdict.TOO_LARGE})
"""Answers that can only be about what was sent."""
_STRIKES: Final = {Verdict.REFUSED: 1, Verdict.TOO_LARGE: 1, Verdict.REJECTED: 2, Verdict.UNAVAILABLE: 5}
"""How often a record must be refused, others being taken in between, before it is set aside."""


class _Suspect(NamedTuple):
    """A record refused alone: how many requests the sink had accepted then, how often that was confirmed."""

    record_id: str
    accepted: int
    strikes: int


class Rejections:
    """What is known of refusals in one stream.

    Args:
        directory: the spool directory.
        incarnation: names the stream in what is set aside.
        health: counters to keep.
    """

    def __init__(self, directory: Path, incarnation: str, health: Health) -> None:
        self._directory = directory
        self._incarnation = incarnation
        self._health = health
        self._window = 0
        """Records among which the refused one is; 0 while none is looked for."""
        self._stuck = 0
        self._suspect: _Suspect | None = None

    def begin(self) -> None:
        """Look for none: reading begins anew."""
        self._window = 0

    def most(self, usual: int) -> int:
        """Return how many records to send at most: half of those among which one is refused."""
        return max(1, self._window // 2) if self._window else usual

    def halve(self, size: int) -> None:
        """Note that one among the first ``size`` records is refused."""
        self._window = size

    def acknowledged(self, count: int) -> None:
        """Note that ``count`` records are out of the way."""
        self._window = max(0, self._window - count)
        if not self._window:
            self._stuck = 0

    def may_be_of_content(self, answer: Answer) -> bool:
        """Say whether a failed request may have failed for a record in it, rather than wait."""
        self._stuck += 1
        if answer.verdict in BY_CONTENT:
            return True
        # These may pass, so patience first; but for some sinks they are how one bad record is refused.
        possible = answer.verdict in _STRIKES and answer.reached and answer.retry_after is None
        return possible and self._stuck > PATIENCE

    def is_confirmed(self, record: AuditRecord, answer: Answer, accepted: int) -> bool:
        """Say whether a record, refused alone, was refused often enough while the sink took others.

        ``accepted`` is the number of requests the sink has accepted so far.
        """
        suspect = self._suspect
        if suspect is None or suspect.record_id != record.id:
            suspect = _Suspect(record.id, accepted, 0)
        elif accepted > suspect.accepted:
            suspect = _Suspect(record.id, accepted, suspect.strikes + 1)
            if suspect.strikes >= _STRIKES[answer.verdict]:
                return True
        self._suspect = suspect._replace(accepted=accepted)
        return False

    def set_aside(self, record: AuditRecord, reason: str) -> Path | None:
        """Keep a record the sink will never take where people find it; ``None`` if that cannot be done."""
        content = {
            "reason": reason,
            "time": time.time_ns(),
            "incarnation": self._incarnation,
            "record": record,
        }
        try:
            path = layout.aside(self._directory, layout.QUARANTINE) / f"{record.id}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
        except OSError as error:
            self._health.log(
                logging.ERROR, "quarantine", "refused record %s cannot be kept aside: %s", record.id, error
            )
            return None
        self._health.quarantined += 1
        self._health.log(
            logging.ERROR,
            "quarantined",
            "the audit sink refuses record %s for good (%s); it is kept in %s",
            record.id,
            reason,
            path,
        )
        self._suspect = None
        return path
