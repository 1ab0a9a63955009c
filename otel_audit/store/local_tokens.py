"""Let a user's own commands find the token of a server that the same user runs on this machine.

While `otel-audit serve` runs, the token it made lies in a directory that only its user can enter, under the
address it answers at. The server holds a lock on the file: one left behind by a crash is not believed, for by
now somebody else may listen there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_audit.file_locks import fcntl

_FOLDER: Final = "otel-audit"
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.02
_MOST: Final = 4096


class Published:
    """Tokens laid out for the commands of this user, until :meth:`close` or the death of this process."""

    def __init__(self, host: str, port: int, token: str) -> None:
        """Lay out a token.

        Args:
            host: the address that is listened on.
            port: its port.
            token: for whoever finds it.
        """
        self._files: dict[Path, int] = {}
        if fcntl is None:  # where `otel-audit serve` does not run either
            return
        for folder in _folders():
            with contextlib.suppress(OSError, ValueError):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not _private(os.lstat(folder), stat.S_ISDIR):
                    continue
                _clean(folder)
                for address in _listened(host):
                    self._lay(folder / _name(address, port), token)

    def _lay(self, path: Path, token: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _private(os.fstat(file), stat.S_ISREG) or not _locked(file):
                os.close(file)
                return
            os.ftruncate(file, 0)
            os.write(file, token.encode())
        except OSError:
            os.close(file)
            raise
        self._files[path] = file

    def close(self) -> None:
        """Take them away."""
        for path, file in self._files.items():
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(file)
        self._files.clear()


def find(host: str, port: int) -> str:
    """Return the token of this user's server at an address of this machine; empty if there is none."""
    if fcntl is None:
        return ""
    for folder in _folders():
        for address in _asked(host):
            with contextlib.suppress(OSError):
                if _private(os.lstat(folder), stat.S_ISDIR) and (
                    token := _read(folder / _name(address, port))
                ):
                    return token
    return ""


def _read(path: Path) -> str:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _private(os.fstat(file), stat.S_ISREG):
            return ""
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(file, _MOST).decode("ascii", "replace").strip()
        return ""  # nobody holds it: the server is gone
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    for _ in range(_ATTEMPTS):  # a command that looks whether we are there holds it for a moment
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PAUSE)
    return False


def _clean(folder: Path) -> None:
    """Remove what servers left behind that were killed."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)


def _private(found: os.stat_result, kind: object) -> bool:
    assert callable(kind)
    return bool(kind(found.st_mode)) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _folders() -> Iterator[Path]:
    """Yield where tokens lie: with the session, and where there may be none, with the user's state."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / _FOLDER
    with contextlib.suppress(RuntimeError):
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        yield Path(state) / _FOLDER / "run"


def _name(address: str, port: int) -> str:
    return re.sub(r"[^\w.-]", "_", f"{socket.gethostname()}-{address}-{port}")


def _listened(host: str) -> tuple[str, ...]:
    """Return the addresses of this machine at which a server that listens on ``host`` is asked."""
    if host == "localhost":
        return ("127.0.0.1",)
    if ipaddress.ip_address(host).is_unspecified:
        return ("127.0.0.1", "::1") if ":" in host else ("127.0.0.1",)
    return (host,)


def _asked(host: str) -> tuple[str, ...]:
    """Return the addresses a name may mean; none that is not an address of some machine."""
    if host.rstrip(".").lower() == "localhost":
        return ("127.0.0.1", "::1")
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        return ()
