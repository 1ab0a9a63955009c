"""The end of a message about a wrong name: the nearest right ones."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str], *, listed: int = 12) -> str:
    """Say ``; did you mean …?``, or list what is valid where nothing is near and the list is short."""
    import difflib

    names = list(valid)
    by_lower = {each.lower().replace("-", "_"): each for each in names}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if len(names) <= listed:
        return "; valid are " + ", ".join(names)
    return ""
