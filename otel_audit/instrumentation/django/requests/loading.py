"""How a middleware of ours comes into every handler of Django's without an entry in the settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings

from otel_audit import forks

Change = Callable[[list[str] | tuple[str, ...]], list[str]]


class _Loading:
    """Whose turn it is to change the setting."""

    mutex = threading.RLock()

    @classmethod
    def begin_in_child(cls) -> None:
        cls.mutex = threading.RLock()


forks.after_in_child(_Loading.begin_in_child)


def loading_with(change: Change, original: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``BaseHandler.load_middleware``: it reads the list as ``change`` returns it.

    Django offers no other way in than the setting. It is put back as it was: checks, tests and `diffsettings`
    see the user's own list.
    """

    def load_middleware(handler: Any, /, *args: Any, **kwargs: Any) -> None:
        with _Loading.mutex:
            configured = settings.MIDDLEWARE
            settings.MIDDLEWARE = change(configured)
            try:
                original(handler, *args, **kwargs)
            finally:
                settings.MIDDLEWARE = configured

    return load_middleware
