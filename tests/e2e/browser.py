"""The visitors of the demo, for tests: the same browser, the same people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.running import SHOP

if str(SHOP) not in sys.path:
    sys.path.insert(0, str(SHOP))

from tour import expectations, story
from tour.visitors import Visitor

__all__ = ["Visitor", "expectations", "logged_in", "story"]

ADDRESS = "203.0.113.7"


@contextmanager
def logged_in(name: str, url: str) -> Iterator[Visitor]:
    """Return someone's browser, logged in."""
    visitor = Visitor(name, url, ADDRESS, "firefox", lambda _who, _what: None)
    try:
        visitor.login(story.PASSWORD)
        yield visitor
    finally:
        visitor.close()
