"""The data directory of the embedded store: ours, of a version we know, and held by one process."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import IO, Any, Final

from otel_audit.config.project_directory import make_private_directory
from otel_audit.config.sources import expanded
from otel_audit.errors import StoreError
from otel_audit.version import __version__

FORMAT: Final = 1
"""Version of the directory's layout; schema versions are the database's own affair."""

_MARKER: Final = "otel-audit-store.json"
_LOCK: Final = "otel-audit-store.lock"
_TOKEN: Final = "read-token"  # noqa: S105 - the name of a file
_MOST_TOKEN: Final = 4096


class DataDirectory:
    """A data directory, locked by this process until :meth:`release` or its death."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @property
    def token_file(self) -> Path:
        """Where the read token is kept, if there is one."""
        return self.path / _TOKEN

    def token(self, *, make: bool = False, renew: bool = False) -> str:
        """Return the read token; it is generated at first use.

        A directory from before there were tokens has none, and gets one only if told so.

        Args:
            make: make one also for such a directory.
            renew: make another one.

        Raises:
            StoreError: it cannot be read or written, or others can read it.
        """
        marker = self.path / _MARKER
        try:
            content: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
            if not renew and (token := self._kept_token()):
                return token
            if not (make or renew or content.get("token")):
                return ""
            token = secrets.token_hex(32)
            _write_private(self.token_file, f"{token}\n")
            _write(marker, content | {"token": True})
        except OSError as error:
            raise StoreError(
                f"the read token in {self.token_file} cannot be used: {error.strerror or error}"
            ) from error
        return token

    def _kept_token(self) -> str:
        try:
            file = os.open(self.token_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        with open(file, encoding="ascii", errors="replace") as kept:
            mode = os.fstat(file).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise StoreError(
                    f"other users can read {self.token_file}, which holds the read token: `otel-audit "
                    "serve --new-token` replaces it; `chmod 600` is enough if nobody has read it"
                )
            return kept.read(_MOST_TOKEN).strip()

    @property
    def engine(self) -> Path:
        """Where the engine keeps its files."""
        return self.path / "engine"

    @property
    def journal(self) -> Path:
        """Where requests are that are acknowledged and not inserted yet."""
        return self.path / "journal"

    @classmethod
    def acquire(cls, path: str | Path) -> DataDirectory:
        """Create or open the directory and lock it.

        Raises:
            ConfigurationError: it begins with a home directory that is not known.
            StoreError: it cannot be written, is held by another process, belongs to something else or to a
                newer version of otel-audit; the message says which and what to do.
        """
        directory = expanded(path).absolute()
        try:
            make_private_directory(directory)
            entries = {entry.name for entry in directory.iterdir()}
        except OSError as error:
            raise _unusable(directory, error) from error
        marker = directory / _MARKER
        if _MARKER not in entries and entries - {_LOCK, "engine"}:
            raise StoreError(
                f"data directory {directory} contains files that are not otel-audit's "
                f"({', '.join(sorted(entries)[:3])}); set `data` in [server] to an empty or new "
                "directory"
            )
        lock = _lock(directory)
        try:
            _check(marker)
            if not marker.exists():
                made = {"created_by": f"otel-audit {__version__}", "created": _now(), "token": True}
                _write(marker, {"format": FORMAT} | made)
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
            f"data directory {directory} is in use by {holder}; stop that `otel-audit serve`, or use "
            "another directory for this one (`data` in [server])"
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
            f"{marker} cannot be read ({error}); if this is a store of otel-audit, restore the file "
            f'with the content {{"format": {FORMAT}}}'
        ) from error
    if found > FORMAT:
        raise StoreError(
            f"data directory {marker.parent} has format {found}, but otel-audit {__version__} supports "
            f"only {FORMAT}; install the newer otel-audit that wrote it"
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at no time anybody else."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    temporary.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _unusable(directory: Path, error: OSError) -> StoreError:
    return StoreError(
        f"data directory {directory} cannot be used: {error.strerror or error}; set `data` in [server] "
        "to a directory that this user can write"
    )
