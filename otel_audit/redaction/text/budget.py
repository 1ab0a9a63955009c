"""How much of one text is searched for secrets; what is beyond is replaced whole, and the text says so.

Counted in characters and tokens, never in time: what is redacted must not depend on the load of the machine.
Below these bounds every step is linear, so that no text can hold a worker.
"""

from __future__ import annotations

from typing import Final

CHARACTERS: Final = 256 * 1024
"""Of one text; a record keeps 64 Ki of them (:data:`otel_audit.pipeline.limits.MAX_TEXT`)."""
TOKENS: Final = 50_000
"""Names before values in a text, and words, literals and signs in a statement."""
LAYERS: Final = 2
"""JSON or an address inside a text, inside a text: what is quoted deeper is searched as it stands."""

# A secret that the cut goes through shows its beginning at most here: the end of what was searched goes, too.
_SEAM: Final = 128


def withheld(mask: str, count: int) -> str:
    """Return what stands in place of ``count`` characters that were not searched."""
    return f"{mask} ({count} more characters were not searched for secrets and are omitted)"


def cut(text: str, end: int, mask: str) -> str:
    """Return ``text`` up to ``end``, and the note about the rest."""
    return text[:end] + withheld(mask, len(text) - end)


def searched(scrubbed: str, length: int, mask: str) -> str:
    """Return what a text of ``length`` characters becomes whose beginning was searched."""
    return scrubbed[:-_SEAM] + withheld(mask, length - CHARACTERS + _SEAM)
