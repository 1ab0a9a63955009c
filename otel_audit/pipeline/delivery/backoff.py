"""How long to wait before the next attempt."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Final

FIRST: Final = 0.25
LONGEST_RETRY_AFTER: Final = 3600.0
"""A sink may ask for patience, but not switch delivery off."""


def delay(attempt: int, longest: float, retry_after: float | None = None) -> float:
    """Return the seconds to wait after failed attempt number ``attempt`` (from 1).

    Exponential with full jitter, at most ``longest``; what the sink asked for by Retry-After is the least.
    """
    ceiling = min(longest, FIRST * 2.0 ** min(attempt - 1, 30))
    pause = random.uniform(0, ceiling)  # noqa: S311 - spreads clients, keeps no secret
    return pause if retry_after is None else retry_after + pause


def parse_retry_after(text: str | None, now: float | None = None) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date, as seconds from ``now``; None if there is none."""
    if not text:
        return None
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = moment.timestamp() - (time.time() if now is None else now)
    if not seconds < float("inf"):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)
