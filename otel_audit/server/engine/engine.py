"""The embedded ClickHouse engine: the one place that imports chdb.

Only `otel-audit serve` may come here: after a mere import of chdb a forked child hangs. Each request takes a
connection of its own, because one connection runs one statement at a time; opening one costs 0.2 ms.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import msgspec

from otel_audit.errors import StoreError

_CODE: Final = re.compile(r"Code: (\d+)")
_IN_LITERAL: Final = str.maketrans({"\\": "\\\\", "'": "\\'"})
_OPEN_FILES: Final = 65536
_OWNER: Final = "otel_audit_owner"
_READER: Final = "otel_audit_reader"
_INSERTS: Final = {
    # One request may span more partitions than the engine's default of 100 days or months allows.
    "max_partitions_per_insert_block": 0,
    # Rows sent twice go when parts are merged, as ever. To look for them in the rows of each insert as well,
    # column by column, takes the engine three times as long as to write them.
    "optimize_on_insert": 0,
    # Compiling saves less than asking whether to compile costs.
    "compile_expressions": 0,
}
_CACHES: Final = {
    "mark": 16,
    "index_mark": 32,
    "primary_index": 32,
    "text_index_tokens": 32,
    "text_index_header": 32,
    "text_index_postings": 16,
    "query_condition": 64,
    "parquet_metadata": 64,
    "iceberg_metadata_files": 64,
    "vector_similarity_index": 64,
}
"""The engine's caches and their share of its memory; its own defaults add up to 16 GB."""


class EngineError(StoreError):
    """The engine refused a statement; ``code`` is ClickHouse's error code, 0 if unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = _CODE.search(message)
        self.code = int(found.group(1)) if found else 0


class Connection:
    """One connection to the engine, for one thread at a time."""

    def __init__(self, raw: Any, sync: Callable[[], None], formats: Path) -> None:
        self._raw = raw
        self._sync = sync
        self._formats = formats

    def query(
        self, sql: str, output_format: str = "TabSeparated", parameters: Mapping[str, str] | None = None
    ) -> Answer:
        """Run one statement; parameters are text, escaped as on ClickHouse's HTTP interface."""
        try:
            result = self._raw.query(sql, output_format, params=dict(parameters or {}))
        except RuntimeError as error:
            raise EngineError(str(error)) from None
        except UnicodeDecodeError as error:  # the message quotes what it complains of, which is not text
            raise EngineError(bytes(error.object).decode("utf-8", "replace")) from None
        if result.has_error():
            raise EngineError(result.error_message())
        return Answer(result.bytes(), int(result.rows_read()), float(result.elapsed()))

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """Run one statement; give the rows of a SELECT."""
        body = self.query(sql, "JSONCompactEachRow").body
        try:
            return [msgspec.json.decode(line) for line in body.split(b"\n") if line]
        except ValueError:  # names that a client made up need not be text
            lines = body.decode("utf-8", "replace").split("\n")
            return [msgspec.json.decode(line) for line in lines if line]

    def prepare_inserts(self) -> None:
        """Set what every insert on this connection wants."""
        for name, value in _INSERTS.items():
            self.query(f"SET {name} = {value}")

    def insert(
        self,
        table: str,
        columns: Sequence[str],
        input_format: str,
        chunks: Sequence[bytes | memoryview],
        *,
        without: str = "",
    ) -> None:
        """Insert encoded rows into ``table``; durable and visible on return.

        The rows are read as from a file. The engine has two other ways in, and neither can be trusted: its
        streaming insert reports success when the last step fails (a view that raises, a full disk), and rows
        within the text of a statement are cut at the first empty line, what follows being run as SQL.

        Args:
            table: with its database.
            columns: those the rows have; empty: for Native what the block says, else all of the table.
            input_format: a ClickHouse format; rows of several chunks must do as one.
            chunks: the rows.
            without: names of indexes, separated by commas, that the next merge makes soon enough.

        Raises:
            EngineError: nothing was inserted, or not everything: send all of it again.
        """
        with _readable(chunks) as path:
            source = f"file('{path}', '{input_format}'"
            if input_format == "Native":
                source += ")"
                names = columns or [str(row[0]) for row in self.rows(f"DESCRIBE TABLE {source}")]
            else:
                described = {
                    str(name): str(kind)
                    for name, kind, computed, *_ in self.rows(f"DESCRIBE TABLE {table}")
                    if computed in ("", "DEFAULT")
                }
                names = columns or list(described)
                if missing := [name for name in names if name not in described]:
                    raise EngineError(
                        f"Code: 16. DB::Exception: No such column {missing[0]} in table {table}"
                    )
                structure = ", ".join(f"{quoted(name)} {described[name]}" for name in names)
                source += f", '{structure.translate(_IN_LITERAL)}')"
            listed = ", ".join(map(quoted, names))
            self.query(f"INSERT INTO {table} ({listed}){_without(without)} SELECT {listed} FROM {source}")
        self._sync()

    def insert_selected(
        self,
        table: str,
        columns: Sequence[str],
        select: str,
        chunks: Sequence[bytes | memoryview],
        *,
        without: str = "",
    ) -> None:
        """Insert what ``select`` makes of the file ``{path}``, which has the chunks one after the other.

        In it ``{formats}`` is the directory of descriptions the engine was given; ``without`` as for
        :meth:`insert`.

        Raises:
            EngineError: as for :meth:`insert`.
        """
        with _readable(chunks) as path:
            listed = ", ".join(map(quoted, columns))
            formats = str(self._formats).translate(_IN_LITERAL)
            statement = select.replace("{path}", path).replace("{formats}", formats)
            self.query(f"INSERT INTO {table} ({listed}){_without(without)} {statement}")
        self._sync()

    def classify(self, sql: str) -> tuple[str, int]:
        """Say what a text would do, without running it, and how many statements it has.

        It is ``READ_ONLY``, ``MUTATING``, ``CONTROL``, or ``UNKNOWN`` if it does not parse.
        """
        found = self._raw.classify_query(sql)
        return found["query_class"].name, int(found["statement_count"])

    def become_reader(self) -> None:
        """Give up, for the rest of this connection, all but what the engine was told is readable."""
        self.query(f"SET ROLE {_READER}")

    def close(self) -> None:
        """Return the connection to the engine."""
        self._raw.close()


def _without(indexes: str) -> str:
    return f" SETTINGS exclude_materialize_skip_indexes_on_insert = '{indexes}'" if indexes else ""


class Answer(msgspec.Struct):
    """What a statement gave: the bytes, rows read, seconds taken."""

    body: bytes
    rows_read: int
    elapsed: float


class Engine:
    """The engine over one directory. The first connection stays open: with the last one the engine stops.

    Args:
        path: the directory; its parent must be ours, too.
        memory_bytes: how much it may use.
        fsync: whether an insert returns only when it is on the disk.
        readable: what :meth:`Connection.become_reader` leaves: tables that can be asked and described, as
            ``database.table`` or ``database.*``.
        formats: descriptions of formats by the name of their file, for ``{formats}`` in
            :meth:`Connection.insert_selected`. A description within a statement would do as well, but the
            engine leaves a copy of each where the process happens to run.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_bytes: int,
        fsync: bool,
        formats: Mapping[str, str] | None = None,
        readable: Iterable[str] = (),
    ) -> None:
        raise_open_files()
        try:
            from chdb import _chdb
        except ImportError as error:
            raise StoreError(
                f"the embedded store needs chdb-core ({error}): pip install 'otel-audit[server]'. There are "
                "no builds for Windows and musl (Alpine): point `url` in [store] at a ClickHouse server there"
            ) from error
        self._connect: Callable[[str], Any] = getattr(_chdb, "connect")  # noqa: B009 - its stub lacks it
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.largest_merge = largest_merge(memory_bytes)
        self._formats = path.parent / "formats"
        self._formats.mkdir(exist_ok=True)
        for name, description in (formats or {}).items():
            (self._formats / name).write_text(description, encoding="utf-8")
        self._disk = _Disk(path) if fsync else None
        users = path.parent / "users.xml"
        users.write_text(_users(readable), encoding="utf-8")
        self._options = path.parent / "engine.xml"
        self._options.write_text(
            _settings(memory_bytes, users, fsync=self._disk is not None and not self._disk.syncs),
            encoding="utf-8",
        )
        try:
            self._first: Connection | None = self._open(f"{path}?config-file={self._options}")
        except RuntimeError as error:
            raise StoreError(f"the engine cannot open {path}: {error}") from None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of its own."""
        connection = self._open(str(self._path))
        try:
            yield connection
        finally:
            connection.close()

    def _open(self, address: str) -> Connection:
        sync = self._disk.sync if self._disk else _nothing
        return Connection(self._connect(address), sync, self._formats)

    def close(self) -> None:
        """Stop the engine; all other connections must be closed."""
        if self._first is not None:
            self._first.close()
            self._first = None
            if self._disk is not None:
                self._disk.close()


class _Disk:
    """Flushes what was written under a directory, in one call.

    The engine can flush each file of a part by itself (``fsync_after_insert``). With its indexes a part has
    some forty files: that takes 100 to 300 ms on a busy disk where ``syncfs`` takes 4 ms, measured side by
    side. Where there is no ``syncfs`` (macOS), the engine is left to do it.
    """

    def __init__(self, path: Path) -> None:
        self._call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        self._path = path
        self._directory = os.open(path, os.O_RDONLY)

    @property
    def syncs(self) -> bool:
        """Whether :meth:`sync` does anything."""
        return self._call is not None

    def sync(self) -> None:
        """Wait until all that was written is on the disk.

        Raises:
            StoreError: the disk says it is not.
        """
        if self._call is not None and self._call(self._directory):
            reason = os.strerror(ctypes.get_errno())
            raise StoreError(f"{self._path} was not flushed to the disk: {reason}")

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._directory)


def _nothing() -> None:
    pass


@contextmanager
def _readable(chunks: Sequence[bytes | memoryview]) -> Iterator[str]:
    """Show bytes to the engine as a file; in memory where the system can do that (Linux)."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("rows"), "wb", buffering=0) as file:
            for chunk in chunks:
                _write(file, chunk)
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="otel-audit-", suffix=".rows") as stored:
        stored.writelines(chunks)
        stored.flush()
        yield stored.name


def _write(file: io.RawIOBase | io.FileIO, chunk: bytes | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def largest_merge(memory_bytes: int) -> int:
    """Return how many bytes on the disk one merge may have.

    Its memory hardly grows with them, but its time does, and a merge that is interrupted begins anew.
    """
    return 4 * memory_bytes


def raise_open_files() -> None:
    """Allow this process the open files a merge of many columns needs (788 seen, the usual limit is 1024)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settings(memory_bytes: int, users: Path, *, fsync: bool) -> str:
    flag = int(fsync)
    tree = {
        "fsync_after_insert": flag,
        "fsync_part_directory": flag,
        # Column by column, merging takes half as long for rows that come in the order of time, as they do.
        "vertical_merge_algorithm_min_rows_to_activate": 1,
        # What was just inserted is merged within seconds: one file for all its columns, not two for each.
        "min_level_for_wide_part": 1,
        # Merge ten parts of a size, not five: merges are half the cost of a record. Some fifty parts at most,
        # as ever: the more there are, the less the engine keeps to this.
        "merge_selector_base": 10,
        # A list reads many columns of a few rows each, far from each other, and of each column a granule and
        # what was compressed with it: 2048 rows and 64 KiB without this. With a thousand large rows and 2 KiB
        # that takes a quarter less than with 2048 rows and 8 KiB, which took half of what 64 KiB did, for two
        # per cent more bytes in all.
        "min_compress_block_size": 2048,
        # Buffers grow with what a column holds. Without this, each merge and each insert that writes a part
        # holds 80 MB in them at once, and with it 30; 7 to 22 % more records are inserted in a second.
        "min_columns_to_activate_adaptive_write_buffer": 1,
        "index_granularity_bytes": 1_000_000,
        # A merge builds its text indexes anew, and by default each holds up to 1 GiB before it writes. To
        # merge 680 000 records takes 600 MB that way and 150 MB this way, in the same time.
        "text_index_max_memory_usage_before_flush": memory_bytes // 64,
        # Of each part of a merge a block is held.
        "merge_max_block_size_bytes": min(memory_bytes // 256, 10 * 1024 * 1024),
        "max_bytes_to_merge_at_max_space_in_pool": largest_merge(memory_bytes),
    }
    server: dict[str, object] = {
        "users_config": users,
        "max_server_memory_usage": memory_bytes,
        "uncompressed_cache_size": 0,
        # None is begun while others hold as much.
        "merges_mutations_memory_usage_soft_limit": memory_bytes // 2,
        # Merges can wait, senders cannot.
        "os_threads_nice_value_merge_mutate": 10,
        **{f"{cache}_cache_size": memory_bytes // share for cache, share in _CACHES.items()},
    }
    lines = [f"  <{name}>{escape(str(value))}</{name}>" for name, value in server.items()]
    lines += ["  <merge_tree>", *(f"    <{n}>{v}</{n}>" for n, v in tree.items()), "  </merge_tree>"]
    return "<clickhouse>\n" + "\n".join(lines) + "\n</clickhouse>\n"


def _users(readable: Iterable[str]) -> str:
    # The engine has one user, which has roles and no rights beside: so a connection can give some of them up.
    # Table functions ask for CREATE TEMPORARY TABLE, even those that read nothing.
    reader = ["CREATE TEMPORARY TABLE ON *.*", *(f"SELECT ON {table}" for table in readable)]
    grants = "".join(f"<query>GRANT {escape(grant)}</query>" for grant in reader)
    return f"""<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <roles>
    <{_OWNER}><grants><query>GRANT ALL ON *.* WITH GRANT OPTION</query></grants></{_OWNER}>
    <{_READER}><grants>{grants}</grants></{_READER}>
  </roles>
  <users>
    <default>
      <password/>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT {_OWNER}, {_READER}</query></grants>
    </default>
  </users>
</clickhouse>
"""
