"""Which function of the application runs: the nearest frame that is neither a library's nor ours."""

from __future__ import annotations

import sys
from functools import cache
from types import FrameType
from typing import Any

_application: dict[str, bool] = {}


def application_function() -> str:
    """Return the application's function that runs, as ``module.qualname``; empty if none is on the stack.

    None is, where the work was handed to another thread: the async ORM runs in one that knows only Django.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        mine = _application.get(code.co_filename)
        if mine is None:
            mine = _application[code.co_filename] = _is_application(code.co_filename)
        if mine:
            return f"{frame.f_globals.get('__name__', '')}.{code.co_qualname}".removesuffix(".<module>")
        frame = frame.f_back
    return ""


@cache
def _libraries() -> tuple[str, ...]:
    import sysconfig
    from pathlib import Path

    paths = sysconfig.get_paths()
    libraries = (paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts"))
    return tuple(f"{Path(directory).resolve()}/" for directory in (str(Path(__file__).parent), *libraries))


def _is_application(filename: str) -> bool:
    from pathlib import Path

    if filename.startswith("<"):  # frozen modules, and what was made with exec
        return False
    path = Path(filename).resolve()
    if path.name == "manage.py" or (not path.suffix and path.parent.name in ("bin", "Scripts")):
        return False  # it only starts the work: a server's script, another environment's included
    text = str(path)
    return (
        not text.startswith(_libraries()) and "/site-packages/" not in text and "/dist-packages/" not in text
    )


def view_name(view: Any) -> str:
    """Name a function or class by module and qualified name: ``shipping.api.ship``; empty for None."""
    if view is None:
        return ""
    while not hasattr(view, "__qualname__") and hasattr(view, "func"):  # functools.partial
        view = view.func
    if not hasattr(view, "__qualname__"):
        view = type(view)
    return f"{view.__module__}.{view.__qualname__}"
