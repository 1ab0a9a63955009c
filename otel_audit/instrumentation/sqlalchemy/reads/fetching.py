"""The rows of one result as the application fetches them: counted before it has them, and left as they are.

A result of SQLAlchemy's fetches by a strategy, which this one stands in front of: whatever the application
does with its result, rows come through here. Those that are all fetched at once are on record before the
application has them. Of those that it fetches piece by piece an intent is kept before the first, and the
record when the last was fetched, or the result is closed or its connection goes back to the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine.cursor import ResultFetchStrategy

from otel_audit.interruptions import interrupts

if TYPE_CHECKING:
    from otel_audit.capture.reads import ReadRecords, Tally

_PIECE: Final = 100
"""Rows fetched one by one that are counted together."""


class Fetched:
    """What was fetched of one result so far, and what is to be recorded of it.

    Args:
        records: of the statement.
        tallies: of the tables it displays.
        internally: runs what we do ourselves, whose statements are not recorded.
        ended: is called when the result is on record.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_internally",
        "_kept",
        "_pending",
        "_records",
        "_tallies",
    )

    def __init__(
        self,
        records: ReadRecords,
        tallies: list[Tally],
        internally: Callable[..., Any],
        ended: Callable[[Fetched], None],
    ) -> None:
        self._records = records
        self._tallies = tallies
        self._internally = internally
        self._ended = ended
        self._pending: list[Any] = []
        self._kept = False

    def begin(self) -> None:
        """Put on disk that rows are about to be fetched piece by piece.

        Raises:
            AuditError: it cannot be kept and ``on_error`` is ``fail_closed``: there are no rows then.
        """
        self._internally(self._records.begin, self._tallies)

    def one(self, row: Any) -> None:
        """Count a row."""
        self._pending.append(row)
        if len(self._pending) >= _PIECE:
            self._count()

    def some(self, rows: Sequence[Any]) -> None:
        """Count rows."""
        if self._pending:
            self._count()
        self._records.count(self._tallies, rows)

    def _count(self) -> None:
        pending, self._pending = self._pending, []
        self._records.count(self._tallies, pending)

    def finish(self) -> None:
        """Keep what was fetched; once more where that is interrupted: the application has the rows."""
        if self._kept:
            return
        try:
            self._keep()
        except BaseException as error:
            if interrupts(error):
                self._keep()
            raise
        finally:
            self._ended(self)

    def _keep(self) -> None:
        if self._pending:
            self._count()
        self._kept = True
        self._internally(self._records.keep, self._tallies)


class WatchedRows(ResultFetchStrategy):
    """Fetches as the strategy that it stands in front of, and counts the rows.

    Args:
        inner: the strategy.
        fetched: counts them.
        begun: is called when they are fetched piece by piece, before the first.
    """

    __slots__ = ("_begun", "_closed", "_fetched", "_fetching", "_inner", "_started")

    def __init__(self, inner: Any, fetched: Fetched, begun: Callable[[Fetched], None]) -> None:
        self._inner = inner
        self._fetched = fetched
        self._begun = begun
        self._started = False
        self._fetching = False
        self._closed = False

    @property
    def alternate_cursor_description(self) -> Any:  # type: ignore[override]
        return self._inner.alternate_cursor_description

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def soft_close(self, result: Any, dbapi_cursor: Any) -> None:
        self._inner.soft_close(result, dbapi_cursor)
        self._close()

    def hard_close(self, result: Any, dbapi_cursor: Any) -> None:
        self._inner.hard_close(result, dbapi_cursor)
        self._close()

    def _close(self) -> None:
        self._closed = True
        if self._started and not self._fetching:  # a result nobody has fetched from displays nothing
            self._fetched.finish()

    def yield_per(self, result: Any, dbapi_cursor: Any, num: int) -> None:
        self._inner.yield_per(result, dbapi_cursor, num)
        if result.cursor_strategy is not self:
            self._inner, result.cursor_strategy = result.cursor_strategy, self

    def fetchone(self, result: Any, dbapi_cursor: Any, hard_close: bool = False) -> Any:
        row = self._fetch(self._inner.fetchone, result, dbapi_cursor, hard_close)
        if row is not None:
            self._fetched.one(row)
        if self._closed:
            self._fetched.finish()
        return row

    def fetchmany(self, result: Any, dbapi_cursor: Any, size: int | None = None) -> Any:
        rows = self._fetch(self._inner.fetchmany, result, dbapi_cursor, size)
        if rows:
            self._fetched.some(rows)
        if self._closed:
            self._fetched.finish()
        return rows

    def fetchall(self, result: Any, dbapi_cursor: Any) -> Any:
        rows = self._fetch(self._inner.fetchall, result, dbapi_cursor, whole=True)
        self._started = True
        self._fetched.some(rows)
        self._fetched.finish()
        return rows

    def _fetch(self, fetch: Callable[..., Any], *args: Any, whole: bool = False) -> Any:
        if not (self._started or whole):
            self._started = True
            self._begun(self._fetched)
        self._fetching = True
        try:
            return fetch(*args)
        except BaseException:
            if self._started:
                self._fetched.finish()
            raise
        finally:
            self._fetching = False

    def handle_exception(self, result: Any, dbapi_cursor: Any, err: BaseException) -> Any:
        self._inner.handle_exception(result, dbapi_cursor, err)


class WatchedAnswer(WatchedRows):
    """Fetches the one row that answers for many: what it says is on record before the application has it.

    Args:
        inner: the strategy.
        keep: records the answer; gets the row, None if there is none.
    """

    __slots__ = ("_keep",)

    def __init__(self, inner: Any, keep: Callable[[Any], None]) -> None:
        self._inner = inner
        self._keep: Callable[[Any], None] | None = keep
        self._fetching = self._closed = self._started = False

    def _close(self) -> None:
        return

    def _answer(self, row: Any) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep(row)

    def fetchone(self, result: Any, dbapi_cursor: Any, hard_close: bool = False) -> Any:
        row = self._inner.fetchone(result, dbapi_cursor, hard_close)
        self._answer(row)
        return row

    def fetchmany(self, result: Any, dbapi_cursor: Any, size: int | None = None) -> Any:
        rows = self._inner.fetchmany(result, dbapi_cursor, size)
        self._answer(rows[0] if rows else None)
        return rows

    def fetchall(self, result: Any, dbapi_cursor: Any) -> Any:
        rows = self._inner.fetchall(result, dbapi_cursor)
        self._answer(rows[0] if rows else None)
        return rows
