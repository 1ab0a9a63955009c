"""Many texts looked at together: most columns hold no secret, and one look says so of all of their texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.text.suspicions import may_hold_secret

# No shape or name spans it, and none begins or ends otherwise beside it: it is neither letter nor digit, and
# longer than what may stand between the groups of a number.
SEAM: Final = "\0" * 4
_NUMBERS = pattern(r"[0-9T:.+\-\0]*+")
_ANY_DIGIT: Final = str.maketrans("123456789", "0" * 9)
_EIGHT_DIGITS = pattern(r"0{4}[^\w\n]{0,3}0{4}")
_MOMENTS: Final = tuple(
    SEAM + moment
    for moment in (
        "0000-00-00T00:00:00.000000+00:00",
        "0000-00-00T00:00:00+00:00",
        "0000-00-00T00:00:00",
        "0000-00-00",
    )
)
"""The longest first: what stands behind one that is part of a longer text is looked at."""


def any_may_hold_secret(texts: Iterable[str]) -> bool:
    """Say of many texts together what :func:`may_hold_secret` says of one."""
    joined = SEAM.join(["", *texts])
    if _NUMBERS.fullmatch(joined):
        # Of all that is searched for, numbers, dates and times may be card numbers only; of one that begins
        # with the last digits of a moment, enough is left without these.
        rest = joined.translate(_ANY_DIGIT)
        for moment in _MOMENTS:
            rest = rest.replace(moment, "")
        if not _EIGHT_DIGITS.search(rest):
            return False
    return may_hold_secret(joined)
