"""Where things stand in the spool directory, and the lock that says whose they are.

::

    <spool>/<incarnation>/lock            held (flock) by the process that writes or ships this stream
    <spool>/<incarnation>/00000001.seg    segments, append-only, oldest first
    <spool>/<incarnation>/cursor          what the sink has acknowledged
    <spool>/tips/<incarnation>.json       where a finished stream ended; named by the next one's start record
    <spool>/damaged/, <spool>/quarantine/ kept aside for people to look at; damaged-<uid> and so on by users
                                          who cannot write there

An incarnation is one process's life (a fork begins a new one); its name is a UUIDv7, so names sort by time.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from otel_audit import forks
from otel_audit.audit_record import new_record_id
from otel_audit.config.project_directory import make_private_directory
from otel_audit.errors import SpoolError
from otel_audit.file_locks import fcntl
from otel_audit.named_tuples import NamedTuple
from otel_audit.redaction.lazy import pattern

LOCK: Final = "lock"
CURSOR: Final = "cursor"
NEW_CURSOR: Final = ".cursor-new"
TIPS: Final = "tips"
DAMAGED: Final = "damaged"
QUARANTINE: Final = "quarantine"
_INCARNATION: Final = pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_BY_USER: Final = pattern(r"-\d+")
_SEGMENT: Final = pattern(r"(\d{8,})\.seg")
_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
_FLOCK: Final = struct.Struct("hhqqi4x")
"""C's ``struct flock``: type, whence, start, length (0: all), pid."""

FileIdentity: TypeAlias = "tuple[int, int]"
"""Device and inode."""


class Segment(NamedTuple):
    """A segment file: its number in its stream, path and size in bytes."""

    number: int
    path: Path
    size: int


def segment_path(incarnation: Path, number: int) -> Path:
    """Return the path of segment ``number`` in an incarnation's directory."""
    return incarnation / f"{number:08d}.seg"


def list_segments(incarnation: Path) -> list[Segment]:
    """List the segments of an incarnation, oldest first; empty if the directory is gone.

    Only files count: a link or a directory with the name of a segment holds no records of ours.

    Raises:
        OSError: the directory belongs to another user, or its disk cannot be read.
    """
    found: list[Segment] = []
    try:
        with os.scandir(incarnation) as entries:
            for entry in entries:
                match = _SEGMENT.fullmatch(entry.name)
                if match:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # shipped and deleted meanwhile
                        continue
                    if stat.S_ISREG(status.st_mode):
                        found.append(Segment(int(match[1]), Path(entry.path), status.st_size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def created(incarnation: Path) -> int:
    """Return when an incarnation began, by its name (ns)."""
    return int(incarnation.name.replace("-", "")[:12], 16) * 1_000_000


def list_incarnations(directory: Path) -> list[Path]:
    """List the incarnations in a spool directory, oldest first; empty if there is no such directory."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in sorted(names) if _INCARNATION.fullmatch(name)]


def spooled_bytes(directory: Path) -> int:
    """Add up the segments of all incarnations; those that cannot be read (another user's) do not count."""
    total = 0
    for path in list_incarnations(directory):
        with suppress(OSError):
            total += sum(segment.size for segment in list_segments(path))
    return total


def prepare(directory: Path) -> None:
    """Make the spool directory and check that files can be made and locked in it.

    Raises:
        SpoolError: they cannot; the message says what to do.
    """
    try:
        make_private_directory(directory)
        with _probe(directory) as descriptor:
            lockable = _can_lock(descriptor)
    except OSError as error:
        raise SpoolError(
            f"spool directory {directory} cannot be written ({error.strerror}): make it writable for the "
            f"user this process runs as, or set spool.directory"
        ) from error
    if not lockable:
        raise SpoolError(
            f"spool directory {directory} is on a file system without file locks, which show that a "
            "process is alive: set spool.directory to a local disk, or mount that file system with "
            "locks"
        )


@contextmanager
def _probe(directory: Path) -> Iterator[int]:
    """Make a file that lives as long as the ``with`` block.

    Raises:
        OSError: no file can be made there.
    """
    path = directory / f".probe-{os.getpid()}-{new_record_id()[-12:]}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink(missing_ok=True)


class Lock:
    """A held incarnation lock. It goes with the process, however that ends.

    The lock belongs to the open file, which a forked child shares: the child must :meth:`forget` it, or the
    stream of a dead parent would look alive for as long as the child lives.
    """

    __slots__ = ("_descriptor", "_identity", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._identity = identity_of(descriptor)
        _held.add(self)

    @property
    def in_place(self) -> bool:
        """Whether its file still has its name: an incarnation that was removed or moved away is not ours."""
        return is_at(self.path / LOCK, self._identity)

    def release(self) -> None:
        """Release the lock; others may adopt what is left."""
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
    """Take the lock of an incarnation, None if its process is alive or another has adopted it.

    Raises:
        OSError: it cannot be read or locked: another user's, no directory, on a disk that fails.
    """
    try:
        if not stat.S_ISDIR(os.lstat(incarnation).st_mode):  # nor a link, wherever it may lead
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(incarnation))
    except FileNotFoundError:
        return None
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        os.lstat(incarnation / LOCK)
    except FileNotFoundError:
        _remove_if_empty(incarnation)
        if not list_segments(incarnation):
            return None
        flags |= os.O_CREAT  # someone removed the lock file; what lies there must still be shipped
    try:
        return _flock(incarnation, os.open(incarnation / LOCK, flags, _FILE_MODE))
    except FileNotFoundError:  # finished meanwhile
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
        _take(descriptor)
        # Whoever held it before may have removed it between our open and our lock.
        if _identity(os.fstat(descriptor)) == _identity(os.stat(incarnation / LOCK)):
            return Lock(incarnation, descriptor)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _take(descriptor: int) -> None:
    """Lock an open file until it is closed, which the end of the process does, too.

    By flock; where the file system has none, by a lock of the open file description, which lives as long.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file system, or the whole system, has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS or not hasattr(fcntl, "F_OFD_SETLK"):
            raise
        whole_file = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole_file)


def _can_lock(descriptor: int) -> bool:
    try:
        _take(descriptor)
    except OSError:
        return False
    return True


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino


def is_at(path: Path, identity: FileIdentity) -> bool:
    """Say whether a file still has the name ``path``: not removed, renamed, replaced or mounted over."""
    try:
        return _identity(os.stat(path)) == identity
    except OSError as error:
        # Any other trouble (a directory that may no longer be searched) says nothing about the file.
        return error.errno not in _GONE


def identity_of(descriptor: int) -> FileIdentity:
    """Return by what an open file is known, for :func:`is_at`."""
    return _identity(os.fstat(descriptor))


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
    raise OSError(f"no free lock in {directory}")


def open_segment(incarnation: Path, number: int) -> int:
    """Make a new segment and open it for appending; it can be read, too, should its name get lost."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(segment_path(incarnation, number), flags, _FILE_MODE)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def aside(directory: Path, kind: str) -> Path:
    """Return the directory for what is kept aside, made if need be: ``kind`` is DAMAGED or QUARANTINE.

    Where it cannot be written, because another user made it or it is no directory, one of our own stands
    beside it: ``quarantine-1000`` for the user id 1000.

    Raises:
        OSError: neither can be made or written.
    """
    own = directory / f"{kind}-{os.geteuid()}"
    for place in (directory / kind, own):
        try:
            place.mkdir(mode=_MODE, exist_ok=True)
            with _probe(place):
                return place
        except OSError:
            if place == own:
                raise
    raise AssertionError("unreachable")


def keep_aside(directory: Path, source: Path, name: str) -> Path:
    """Move a damaged file out of its stream, for people to look at; gives its new place."""
    target = aside(directory, DAMAGED) / name
    os.replace(source, target)
    return target


def list_kept(directory: Path, kind: str) -> tuple[list[Path], list[str]]:
    """List what was kept aside, and why some of it cannot be listed: ``kind`` is DAMAGED or QUARANTINE."""
    kept: list[Path] = []
    problems: list[str] = []
    for place in sorted(directory.glob(f"{kind}*")):
        if place.name == kind or _BY_USER.fullmatch(place.name.removeprefix(kind)):
            try:
                kept += sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
            except OSError as error:
                problems.append(explain(place, error))
    return kept, problems


def explain(path: Path, error: OSError) -> str:
    """Say why something in the spool cannot be used, whose it is, and what to do about it."""
    reason = error.strerror or str(error)
    me = _user(os.geteuid())
    status = None
    for part in (error.filename, path):
        if part is not None and status is None:
            with suppress(OSError):  # something in a directory of another user
                status = os.lstat(part)
    if not isinstance(error, PermissionError):
        return f"{path} cannot be read ({reason}): check the file and its file system"
    if status is None or status.st_uid == os.geteuid():
        return f"{path} cannot be read ({reason}): chmod -R u+rwX {path}"
    owner = _user(status.st_uid)
    return (
        f"{path} belongs to {owner} and cannot be used by {me} ({reason}): run `otel-audit spool drain` as "
        f"{owner}, or give it to this user: chown -R {me} {path}"
    )


def _user(number: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"user {number}"
