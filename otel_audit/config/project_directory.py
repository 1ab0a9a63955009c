"""The directory ``.otel-audit`` of a project, where spool and store lie unless configured otherwise."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

PROJECT_DIRECTORY: Final = ".otel-audit"
_IGNORE_ALL: Final = "# Written by otel-audit: spool and store do not belong into version control.\n*\n"


def make_private_directory(path: Path) -> None:
    """Make a directory that only this user may enter, and its missing parents.

    One inside ``.otel-audit`` is kept out of version control by a ``.gitignore`` there.

    Raises:
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for parent in (path, *path.parents):
        if parent.name == PROJECT_DIRECTORY:
            with suppress(OSError), (parent / ".gitignore").open("x", encoding="utf-8") as file:
                file.write(_IGNORE_ALL)
            return
