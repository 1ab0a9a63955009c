"""Requests of few records, acknowledged when they are on the disk; the engine gets many in one insert.

An insert takes the engine some 20 ms of processor time, for one record as for two hundred: the statement is
analysed, and a part of twenty files is written. To put a request on the disk takes a hundredth of that. So it
is appended to a file here first, as it came, and inserted within half a second, or at once when somebody asks
a question: a question waits for all that was acknowledged before it (:meth:`Journal.settle`), but for the
records of other questions, or each would pay for the insert of the last.

A file is removed when the engine has its requests on the disk. What a dead process left is inserted before
the server listens. If it was inserted already, that is as if a sender had sent it twice, and is seen once.

What the engine refuses is put aside, so that no request holds up questions and a start for ever: at once if
others pass, otherwise after some tries. Its file stays, and it is tried again each minute and at each start.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_audit.config.project_directory import make_private_directory
from otel_audit.errors import StoreError
from otel_audit.pipeline.spool.frames import RECORD, Gap, frame, read_pieces
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.inserts import insert_rows, together
from otel_audit.server.otlp.rows import Rows, log_rows

if TYPE_CHECKING:
    from otel_audit.server.engine.engine import Connection, Engine

_logger: Final = logging.getLogger(__name__)
FEW: Final = 256
"""Records of a group up to which it comes here; a larger one is worth an insert of its own."""
_FEW_BYTES: Final = 1024 * 1024
_ENOUGH: Final = 768
_ENOUGH_BYTES: Final = 4 * 1024 * 1024
"""Records, or bytes of them, that are inserted without waiting for more."""
_MOST: Final = 4096
_MOST_BYTES: Final = 16 * 1024 * 1024
"""What may wait at a time; beyond, senders wait for the engine as they would without a journal."""
_SECONDS: Final = 0.5
"""How long a record waits for others to be inserted with."""
_AGAIN: Final = 1.0
"""Seconds after which what the engine refused is tried again."""
_TRIES: Final = 5
_AGAIN_ASIDE: Final = 60.0
"""How often that is tried until it is put aside, and after how many seconds then."""
_SPLIT: Final = 30
"""Inserts that may fail at a time until no smaller ones are tried: enough to find one request among many, and
soon at an end where the engine refuses all."""
_SUFFIX: Final = ".requests"
_datasync: Final = getattr(os, "fdatasync", os.fsync)


class Journal:
    """The requests that are acknowledged and not inserted yet, and the thread that inserts them."""

    def __init__(self, directory: Path, engine: Engine, database: str, *, fsync: bool) -> None:
        self._directory = directory
        self._engine = engine
        self._database = database
        self._fsync = fsync
        self._wake = threading.Condition()
        self._file: int | None = None
        self._paths: list[Path] = []
        self._waiting: list[Rows] = []
        self._rows = self._bytes = 0
        self._since = 0.0
        self._taken = self._awaited = self._inserted = 0
        self._asking = 0
        self._failures = 0
        self._failure: Exception | None = None
        self._aside: list[Rows] = []
        self._aside_paths: list[Path] = []
        self._aside_again = 0.0
        self._writable = True
        self._closed = False
        try:
            make_private_directory(directory)
            files = sorted(path for path in directory.iterdir() if path.stem.isdecimal())
            self._numbers = itertools.count(1 + max((int(path.stem) for path in files), default=0))
            self._insert_left([path for path in files if path.suffix == _SUFFIX])
        except OSError as error:
            raise StoreError(f"{directory} cannot be used: {error}") from error
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether what waits will be inserted."""
        return self._thread.is_alive()

    def take(self, group: Sequence[Rows]) -> bool:
        """Put requests on the disk, to be inserted soon; False if they must be inserted right now instead."""
        count, size = sum(rows.size for rows in group), sum(len(rows.block) for rows in group)
        if count > FEW or size > _FEW_BYTES or not all(rows.select for rows in group):
            return False
        with self._wake:
            if self._failure is not None or self._closed:
                return False
            if self._rows + count > _MOST or self._bytes + size > _MOST_BYTES:
                return False
            if sum(len(rows.block) for rows in self._aside) > _MOST_BYTES:
                return False
            try:
                self._append(group)
            except OSError as error:
                if self._writable:  # said once
                    _logger.warning(
                        "%s cannot be written, requests are inserted at once: %s", self._directory, error
                    )
                self._writable = False
                self._end_file()  # what follows a request that is not whole would not be found
                return False
            self._writable = True
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting += group
            self._taken += len(group)
            if any(rows.awaited for rows in group):
                self._awaited = self._taken
            self._rows += count
            self._bytes += size
            if len(self._waiting) == len(group) or self._is_enough():
                self._wake.notify_all()
        return True

    def passed(self) -> None:
        """Note that the engine takes what did not come here: it is not the engine that fails."""
        if self._failure is not None:
            with self._wake:
                if self._inserted == self._taken:  # none is being tried
                    self._failure = None

    def settle(self) -> None:
        """Return when all that was acknowledged before and is awaited is inserted, or put aside.

        Raises:
            StoreError: the engine refuses it just now; an answer without it would be wrong.
        """
        with self._wake:
            wanted, failures = self._awaited, self._failures
            if self._inserted >= wanted:
                return
            self._asking += 1
            self._wake.notify_all()
            try:
                while self._inserted < wanted:
                    if self._failures > failures or not self._thread.is_alive():
                        raise StoreError(
                            f"{wanted - self._inserted} requests that were acknowledged cannot be inserted: "
                            f"{self._failure}. They are kept in {self._directory}, and tried again"
                        )
                    self._wake.wait(_AGAIN)
            finally:
                self._asking -= 1

    def close(self) -> None:
        """Insert what waits and stop; what the engine refuses stays for the next start."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()
        self._end_file()

    # --- the files ----------------------------------------------------------------------------

    def _append(self, group: Sequence[Rows]) -> None:
        if self._file is None:
            path = self._directory / f"{next(self._numbers):012}{_SUFFIX}"
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._paths.append(path)
            if self._fsync:
                _sync_directory(self._directory)
        rest = memoryview(b"".join(frame(RECORD, rows.block) for rows in group))
        while rest:
            rest = rest[os.write(self._file, rest) :]
        if self._fsync:
            _datasync(self._file)

    def _end_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _insert_left(self, paths: list[Path]) -> None:
        """Insert what a former process left."""
        for path in paths:
            bodies, left = _requests(path)
            parts = [rows for body in bodies for rows in _rows(body)]
            with self._engine.connection() as connection:
                connection.prepare_inserts()
                refused, error = self._insert(connection, parts)
            if error is not None:
                self._put_aside(refused, [path], error)
                continue
            if left:  # a request that was being written, most likely, and never acknowledged
                kept = path.with_suffix(".damaged")
                path.replace(kept)
                _logger.warning("%d bytes of %s are no whole request; kept as %s", left, path, kept)
            else:
                path.unlink()
            _logger.info("inserted %d requests that the last process had acknowledged", len(bodies))

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with self._engine.connection() as connection:
            connection.prepare_inserts()
            while (batch := self._next()) is not None:
                waiting, paths = batch
                if waiting and not self._insert_batch(connection, waiting, paths):
                    return
                if self._aside and time.monotonic() >= self._aside_again:
                    self._try_aside(connection)

    def _insert_batch(self, connection: Connection, waiting: list[Rows], paths: list[Path]) -> bool:
        """Insert what waits, or put it aside; False if the server stops meanwhile."""
        count = len(waiting)
        refused, error = self._insert(connection, waiting)
        tries = 1
        while error is not None and len(refused) == count and tries < _TRIES:
            if not self._refused(error):
                return False
            refused, error = self._insert(connection, refused)
            tries += 1
        if error is not None:
            self._put_aside(refused, paths, error)
        with self._wake:
            self._inserted += count
            # Nothing passed: until something does, senders hear themselves what the engine says.
            self._failure = error if len(refused) == count else None
            self._wake.notify_all()
        if error is None:
            _remove(paths)
        return True

    def _put_aside(self, refused: list[Rows], paths: list[Path], error: Exception) -> None:
        _logger.error(
            "%d requests that were acknowledged cannot be inserted, and no answer has them until they are: "
            "%s. They are kept in %s, and tried again each minute and at each start",
            len(refused),
            error,
            ", ".join(map(str, paths)),
        )
        self._aside += refused
        self._aside_paths += paths
        self._aside_again = time.monotonic() + _AGAIN_ASIDE

    def _try_aside(self, connection: Connection) -> None:
        paths, self._aside_paths = self._aside_paths, []
        requests, self._aside = self._aside, []
        refused, error = self._insert(connection, requests)
        if error is not None:
            self._put_aside(refused, paths, error)
            return
        _logger.warning("%d requests that could not be inserted are inserted now", len(requests))
        self.passed()
        _remove(paths)

    def _next(self) -> tuple[list[Rows], list[Path]] | None:
        """Wait for what is to be inserted now, and its files; None when the server stops and all is."""
        with self._wake:
            while True:
                if not self._waiting:
                    if self._closed:
                        return None
                    if not self._aside:
                        self._wake.wait()
                    elif (left := self._aside_again - time.monotonic()) > 0:
                        self._wake.wait(left)
                    else:
                        return [], []
                    continue
                left = self._since + _SECONDS - time.monotonic()
                if left <= 0 or self._is_enough() or self._asking or self._closed:
                    break
                self._wake.wait(left)
            batch = self._waiting, self._paths
            self._waiting, self._paths = [], []
            self._rows = self._bytes = 0
            self._end_file()
            return batch

    def _is_enough(self) -> bool:
        return self._rows >= _ENOUGH or self._bytes >= _ENOUGH_BYTES

    def _insert(self, connection: Connection, requests: list[Rows]) -> tuple[list[Rows], Exception | None]:
        """Insert requests; return those the engine refuses, and why."""
        refused: list[Rows] = []
        failure: Exception | None = None
        failed = 0
        ordered = sorted(requests, key=together)
        groups = [list(group) for _, group in itertools.groupby(ordered, key=together)]
        while groups:
            group = groups.pop()
            try:
                insert_rows(connection, self._database, group)
            except Exception as error:  # noqa: BLE001 - whatever it is, what was acknowledged must be kept
                failure = error
                failed += 1
                if len(group) == 1 or failed > _SPLIT:
                    refused += group
                else:  # those that can be inserted must not wait for another
                    half = len(group) // 2
                    groups += group[half:], group[:half]
        return refused, failure if refused else None

    def _refused(self, error: Exception) -> bool:
        """Note that the engine refuses what was acknowledged; return when to try again, False to stop."""
        _logger.error("requests that were acknowledged cannot be inserted, and are tried again: %s", error)
        with self._wake:
            self._failure = error
            self._failures += 1
            self._wake.notify_all()
            if not self._closed:
                self._wake.wait(_AGAIN)
            return not self._closed


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            _logger.warning("%s is inserted, and cannot be removed: %s", path, error)


def _requests(path: Path) -> tuple[list[bytes], int]:
    """Return the whole requests of a file, and how many bytes of it are none."""
    with path.open("rb") as file:
        pieces = list(read_pieces(file.fileno(), 0, os.fstat(file.fileno()).st_size))
    bodies = [piece.payload for piece in pieces if not isinstance(piece, Gap)]
    return bodies, sum(piece.end - piece.offset for piece in pieces if isinstance(piece, Gap))


def _rows(body: bytes) -> list[Rows]:
    made = rows_by_engine(body)
    return [made] if made is not None else log_rows(body)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
