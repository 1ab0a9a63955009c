"""Where things stand in the spool directory, and the lock that says whose they are.

::

    <spool>/<incarnation>/lock            held (flock) by the process that writes or ships this stream
    <spool>/<incarnation>/00000001.seg    segments, append-only, oldest first
    <spool>/<incarnation>/cursor          what the sink has acknowledged
    <spool>/tips/<incarnation>.json       where a finished stream ended; named by the next one's start record
    <spool>/damaged/, <spool>/quarantine/ kept aside for people to look at

An incarnation is one process's life (a fork begins a new one); its name is a UUIDv7, so names sort by time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from otel_audit import forks
from otel_audit.config.project_directory import make_private_directory
from otel_audit.errors import SpoolError
from otel_audit.record import new_record_id

LOCK: Final = "lock"
CURSOR: Final = "cursor"
NEW_CURSOR: Final = ".cursor-new"
TIPS: Final = "tips"
DAMAGED: Final = "damaged"
QUARANTINE: Final = "quarantine"
_INCARNATION: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_SEGMENT: Final = re.compile(r"(\d{8,})\.seg")
_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class Segment(NamedTuple):
    """A segment file: its number in its stream, path and size in bytes."""

    number: int
    path: Path
    size: int


def segment_path(incarnation: Path, number: int) -> Path:
    """Give the path of segment ``number`` in an incarnation's directory."""
    return incarnation / f"{number:08d}.seg"


def list_segments(incarnation: Path) -> list[Segment]:
    """List the segments of an incarnation, oldest first; empty if the directory is gone."""
    found: list[Segment] = []
    try:
        with os.scandir(incarnation) as entries:
            for entry in entries:
                match = _SEGMENT.fullmatch(entry.name)
                if match:
                    try:
                        size = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:  # shipped and deleted meanwhile
                        continue
                    found.append(Segment(int(match[1]), Path(entry.path), size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def list_incarnations(directory: Path) -> list[Path]:
    """List the incarnations in a spool directory, oldest first; empty if there is no such directory."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in sorted(names) if _INCARNATION.fullmatch(name)]


def spooled_bytes(directory: Path) -> int:
    """Add up the segments of all incarnations."""
    return sum(segment.size for path in list_incarnations(directory) for segment in list_segments(path))


def prepare(directory: Path) -> None:
    """Make the spool directory and check that files can be made in it.

    Raises:
        SpoolError: it cannot be made or written; the message says what to do.
    """
    probe = directory / f".probe-{os.getpid()}-{new_record_id()[-12:]}"
    try:
        make_private_directory(directory)
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE))
    except OSError as error:
        raise SpoolError(
            f"spool directory {directory} cannot be written ({error.strerror}): make it writable for the "
            f"user this process runs as, or set spool.directory"
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


class Lock:
    """A held incarnation lock. It goes with the process, however that ends.

    The lock belongs to the open file, which a forked child shares: the child must :meth:`forget` it, or the
    stream of a dead parent would look alive for as long as the child lives.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; others may adopt what is left."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self) -> None:
        """Close the inherited file in a forked child; the parent keeps the lock."""
        with suppress(OSError):  # who made itself a daemon has closed every file
            self.release()

    def remove(self) -> None:
        """Remove the emptied incarnation, then give the lock back."""
        for name in (CURSOR, NEW_CURSOR, LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's lies in there: leave it
            self.path.rmdir()
        self.release()


_held: set[Lock] = set()


def _forget_locks() -> None:
    for lock in list(_held):
        lock.forget()


forks.after_in_child(_forget_locks)


def try_lock(incarnation: Path) -> Lock | None:
    """Take the lock of an incarnation, None if its process is alive or another has adopted it."""
    flags = os.O_RDWR | os.O_CLOEXEC
    if not (incarnation / LOCK).exists():
        _remove_if_empty(incarnation)
        if not list_segments(incarnation):
            return None
        flags |= os.O_CREAT  # someone removed the lock file; what lies there must still be shipped
    try:
        return _flock(incarnation, os.open(incarnation / LOCK, flags, _FILE_MODE))
    except OSError:
        return None


def has_dead_streams(directory: Path) -> bool:
    """Say whether there is a stream whose process is dead and which nobody is shipping."""
    for path in list_incarnations(directory):
        lock = try_lock(path)
        if lock is not None:
            lock.release()
            return True
    return False


def _flock(incarnation: Path, descriptor: int) -> Lock | None:
    """Lock an open lock file, None if another process holds it.

    Raises:
        OSError: the file system has no locks, or the file is gone.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have removed it between our open and our flock.
        if os.fstat(descriptor).st_ino == os.stat(incarnation / LOCK).st_ino:
            return Lock(incarnation, descriptor)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _remove_if_empty(incarnation: Path) -> None:
    """Remove what a process left that died between making its directory and its lock."""
    with suppress(OSError):
        incarnation.rmdir()


def create_incarnation(directory: Path) -> Lock:
    """Make the directory of a new incarnation and take its lock.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(100):
        make_private_directory(directory)
        path = directory / new_record_id()
        path.mkdir(mode=_MODE)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            lock = _flock(path, os.open(path / LOCK, flags, _FILE_MODE))
        except FileNotFoundError:  # taken for debris by an adopter
            continue
        except OSError:
            (path / LOCK).unlink(missing_ok=True)
            _remove_if_empty(path)
            raise
        if lock is not None:
            return lock
        # Someone looked into it just now: leave it to them, it is empty.
    raise OSError(f"no lock to be had in {directory}")


def open_segment(incarnation: Path, number: int) -> int:
    """Make a new segment and open it for appending."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(segment_path(incarnation, number), flags, _FILE_MODE)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_aside(directory: Path, source: Path, name: str) -> Path:
    """Move a damaged file out of its stream, for people to look at; gives its new place."""
    aside = directory / DAMAGED
    aside.mkdir(mode=_MODE, exist_ok=True)
    target = aside / name
    os.replace(source, target)
    return target


def list_kept(directory: Path, kind: str) -> Iterator[Path]:
    """List what was kept aside: ``kind`` is ``DAMAGED`` or ``QUARANTINE``."""
    place = directory / kind
    if place.is_dir():
        yield from sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
