"""The data directory of the embedded store: ours, of a version we know, and held by one process."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO, Any, Final

from otel_audit.config.project_directory import make_private_directory
from otel_audit.errors import StoreError
from otel_audit.version import __version__

FORMAT: Final = 1
"""Version of the directory's layout; schema versions are the database's own affair."""

_MARKER: Final = "otel-audit-store.json"
_LOCK: Final = "otel-audit-store.lock"


class DataDirectory:
    """A data directory, locked by this process until :meth:`release` or its death."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @property
    def engine(self) -> Path:
        """Where the engine keeps its files."""
        return self.path / "engine"

    @classmethod
    def acquire(cls, path: str | Path) -> DataDirectory:
        """Create or open the directory and lock it.

        Raises:
            StoreError: it cannot be written, is held by another process, belongs to something else or to a
                newer version of otel-audit; the message says which and what to do.
        """
        directory = Path(path).expanduser().absolute()
        try:
            make_private_directory(directory)
            entries = {entry.name for entry in directory.iterdir()}
        except OSError as error:
            raise _unusable(directory, error) from error
        marker = directory / _MARKER
        if _MARKER not in entries and entries - {_LOCK, "engine"}:
            raise StoreError(
                f"data directory {directory} holds files that are not otel-audit's "
                f"({', '.join(sorted(entries)[:3])}); give `data` in [server] an empty or new directory"
            )
        lock = _lock(directory)
        try:
            _check(marker)
            if not marker.exists():
                _write(
                    marker, {"format": FORMAT, "created_by": f"otel-audit {__version__}", "created": _now()}
                )
        except OSError as error:
            lock.close()
            raise _unusable(directory, error) from error
        except StoreError:
            lock.close()
            raise
        return cls(directory, lock)

    def release(self) -> None:
        """Let another process have the directory."""
        with contextlib.suppress(OSError):
            self._lock.truncate(0)
        self._lock.close()


def _lock(directory: Path) -> IO[str]:
    path = directory / _LOCK
    try:
        lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held for as long as the store is
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(lock)
        lock.close()
        raise StoreError(
            f"data directory {directory} is in use by {holder}; stop that `otel-audit serve`, "
            "or give this one another directory (`data` in [server])"
        ) from None
    except OSError as error:
        lock.close()
        raise _unusable(directory, error) from error
    lock.seek(0)
    lock.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}, lock)
    lock.flush()
    return lock


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    try:
        held: dict[str, Any] = json.loads(lock.read())
        return f"process {held['pid']} on host {held['host']} since {held['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _check(marker: Path) -> None:
    if not marker.exists():
        return
    try:
        found = int(json.loads(marker.read_text(encoding="utf-8"))["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{marker} cannot be read ({error}); if this is a store of otel-audit, restore the file: "
            f'{{"format": {FORMAT}}}'
        ) from error
    if found > FORMAT:
        raise StoreError(
            f"data directory {marker.parent} has format {found}, this is otel-audit {__version__}, which "
            f"knows {FORMAT}; install the newer otel-audit that wrote it"
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _unusable(directory: Path, error: OSError) -> StoreError:
    return StoreError(
        f"data directory {directory} cannot be used: {error.strerror or error}; "
        "give `data` in [server] a directory this user may write"
    )
