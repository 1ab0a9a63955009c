"""ClickHouse's HTTP interface over the embedded engine.

What clickhouse-connect, the Collector's exporter (clickhouse-go) and Grafana need of it, all unmodified.
Every request takes a connection of its own. A session only remembers settings and the current database.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from otel_audit.errors import StoreError
from otel_audit.server import bodies
from otel_audit.server.access import Access, presented
from otel_audit.server.bodies import Malformed, TooLarge
from otel_audit.server.clickhouse import framing, gate
from otel_audit.server.clickhouse.gate import Denied, ReadGate
from otel_audit.server.clickhouse.http_status import http_status
from otel_audit.server.clickhouse.questions import Asker, Question, Questions
from otel_audit.server.engine import native
from otel_audit.server.engine.engine import Connection, Engine, EngineError, quoted
from otel_audit.server.origin import from_a_page
from otel_audit.server.otlp.commit import Backlog, Busy
from otel_audit.server.otlp.engine_rows import block_by_engine
from otel_audit.server.otlp.http_receiver import read_body
from otel_audit.store import schema
from otel_audit.store.columns import RECORD_COLUMNS

_logger: Final = logging.getLogger(__name__)

_OPTIONS: Final = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
"""Parameters of a request that are no settings."""
_HELLO: Final = re.compile(
    r"\A\s*SELECT\s+displayName\(\)\s*,\s*version\(\)\s*,\s*revision\(\)\s*,\s*timezone\(\)\s*;?\s*\Z",
    re.IGNORECASE,
)
_SETTINGS_LIST: Final = re.compile(
    r"\A\s*SELECT\s+[\w\s,*]+\s+FROM\s+system\.settings(?:\s+LIMIT\s+\d+)?(?:\s+FORMAT\s+\w+)?\s*\Z",
    re.IGNORECASE,
)
_FORMAT: Final = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_NATIVE_REVISION: Final = 54454
"""From this version on clickhouse-go reads the first answer with block info and serialization flags."""

_AUTHENTICATION_FAILED: Final = 516
_MAX_SECONDS: Final = 300
_SMALLEST_BLOCK: Final = 2 * 1024 * 1024
_STOP_AGAIN: Final = 0.2
"""Seconds until a statement is stopped once more: it may not have begun when it was the first time."""
_NAME: Final = "otel-audit"
"""By which the command line knows that this server records questions."""
_SESSIONS: Final = 1000
_SESSION_SECONDS: Final = 3600.0
_COMPRESS_FROM: Final = 1024

_CONTENT_TYPES: Final = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "JSON": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "Native": "application/octet-stream",
}


class _Session(msgspec.Struct):
    """What lasts from one request of a session to the next."""

    settings: dict[str, str] = {}
    database: str = ""
    used: float = 0.0


class _May(msgspec.Struct, frozen=True):
    """What a request may do: ask, write (why not; empty if it may), see whether we are there.

    ``known`` if it has a token of ours.
    """

    read: bool
    no_write: str
    greet: bool
    known: bool


class _Call(msgspec.Struct):
    """One request, taken apart."""

    options: dict[str, str]
    settings: dict[str, str]
    parameters: dict[str, str]
    sql: str
    body: bytes
    session: _Session
    may: _May
    mark: str
    """By which the engine knows its statement, among those it runs."""
    asker: Asker
    reads: bool = False
    """Whether it may be stopped at any time."""
    question: str = ""
    """The query, if the statement is one: an INSERT is not."""
    gone: bool = False
    """Whether its client went away."""

    @property
    def format(self) -> str:
        return self.options.get("default_format") or "TabSeparated"


class _Result(msgspec.Struct):
    body: bytes
    format: str
    summary: dict[str, str]
    rows: int = 0


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class QueryPort:
    """Runs the statements that come in on the query port."""

    def __init__(
        self,
        engine: Engine,
        database: str,
        *,
        access: Access,
        backlog: Backlog,
        limit: int,
        memory_bytes: int,
        questions: Questions | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """``settle`` returns when all that was acknowledged can be seen."""
        self._questions = questions
        self._settle = settle
        self._engine = engine
        self._database = database
        self._access = access
        self._backlog = backlog
        self._limit = limit
        self._max_memory = memory_bytes // 2
        self._max_result = memory_bytes // 8
        self._max_block = max(memory_bytes // 512, _SMALLEST_BLOCK)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="query")
        with engine.connection() as connection:
            self._gate = ReadGate(connection)
            self._version = str(connection.rows("SELECT version()")[0][0])
            self._timezone = str(connection.rows("SELECT timezone()")[0][0])

    def app(self) -> Starlette:
        """Build the application."""

        async def ok(_: Request) -> Response:
            return PlainTextResponse("Ok.\n", headers={"X-ClickHouse-Server-Display-Name": _NAME})

        async def query(request: Request) -> Response:
            if request.method in ("GET", "HEAD") and "query" not in request.query_params:
                return await ok(request)
            return await self._answer(request)

        return Starlette(
            routes=[
                Route("/ping", ok),
                Route("/replicas_status", ok),
                Route("/", query, methods=["GET", "POST"]),
            ]
        )

    def close(self) -> None:
        """Wait for running statements."""
        self._threads.shutdown(wait=True)

    async def _answer(self, request: Request) -> Response:
        query_id = request.query_params.get("query_id") or str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Query-Id": query_id if query_id.isprintable() and query_id.isascii() else "",
            "X-ClickHouse-Server-Display-Name": _NAME,
            "X-ClickHouse-Timezone": self._timezone,
        }
        try:
            may = self._may(request)
            asker = self._asker(request)
            with self._backlog.hold() as held:
                body = await read_body(request, self._limit, held)
                call = await asyncio.to_thread(self._call, request, body, may, asker)
                held.grow(max(len(call.body) - len(body), 0))
                del body
                result = await self._result(request, call)
                wanted = request.headers.get("accept-encoding", "")
                payload, encoding = await asyncio.to_thread(_encode, result.body, call.options, wanted)
        except (StoreError, Malformed, TooLarge, TimeoutError, ClientDisconnect) as error:
            return self._failure(error, headers)
        except Exception as error:
            _logger.exception("a statement failed with an unexpected error")
            return self._failure(error, headers)
        if encoding:
            headers["Content-Encoding"] = encoding
        headers["X-ClickHouse-Format"] = result.format
        headers["X-ClickHouse-Summary"] = json.dumps(result.summary)
        media_type = _CONTENT_TYPES.get(result.format, "text/plain; charset=UTF-8")
        return Response(payload, headers=headers, media_type=media_type)

    def no_entry(self, _: Headers, status: int, message: str) -> Response:
        """Answer a request that is not let in."""
        headers = {"X-ClickHouse-Exception-Code": str(gate.ACCESS_DENIED)}
        text = f"Code: {gate.ACCESS_DENIED}. DB::Exception: {message} (version {self._version})\n"
        return PlainTextResponse(text, status, headers)

    def _may(self, request: Request) -> _May:
        """Say what a request may do, by its headers; raise if that is nothing."""
        secrets = presented(request.headers.items())
        rights = self._access.rights(secrets)
        read = self._access.allows("read", secrets)
        why = "" if self._access.allows("write", secrets) else "that requires the write token"
        page = "" if why or rights else from_a_page(request.headers)
        if not read and (why or page):
            raise _unauthenticated(f". Rows are accepted without one, but {page}" if page else "")
        why = why or page
        if not why and request.method != "POST":
            why = f"rows are not accepted by {request.method}; send POST"
        # clickhouse-go without a password still says who it is.
        greet = bool(rights) or (not secrets and "authorization" in request.headers)
        return _May(read, why, greet, bool(rights))

    def _asker(self, request: Request) -> Asker:
        name = self._access.named(presented(request.headers.items()))
        address = request.client.host if request.client else ""
        return Asker(name, address, request.headers.get("user-agent", ""))

    async def _result(self, request: Request, call: _Call) -> _Result:
        """Run a call, and stop it when its client is gone: nobody would see the answer.

        Rows that are being inserted are inserted to the end.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call)
        gone = asyncio.create_task(_disconnected(request))
        try:
            both: set[asyncio.Future[Any]] = {running, gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            call.gone = not running.done()
            while not running.done():
                if call.reads:
                    await asyncio.to_thread(self._stop, call)
                await asyncio.wait({running}, timeout=_STOP_AGAIN)
        finally:
            gone.cancel()
        if call.gone:
            running.exception()  # looked at, so that nobody complains that it was not
            raise ClientDisconnect
        return running.result()

    def _stop(self, call: _Call) -> None:
        with self._engine.connection() as connection:
            connection.query(f"KILL QUERY WHERE Settings['log_comment'] = '{call.mark}' ASYNC")

    def _failure(self, error: Exception, headers: dict[str, str]) -> Response:
        code = gate.engine_code(error) if isinstance(error, StoreError) else 1002
        status = http_status(code)
        text = str(error)
        if isinstance(error, Malformed):
            code, status = 117, 400
        elif isinstance(error, TooLarge):
            code, status = 307, 413
            headers["Connection"] = "close"
        elif isinstance(error, Busy):
            code, status = 202, 503
            headers["Retry-After"] = "1"
        elif isinstance(error, TimeoutError | ClientDisconnect):
            code, status, text = 209, 408, "the request did not arrive in time"
        if not text.startswith("Code:"):
            text = f"Code: {code}. DB::Exception: {text}"
        headers["X-ClickHouse-Exception-Code"] = str(code)
        return PlainTextResponse(f"{text} (version {self._version})\n", status, headers)

    # --- taking a request apart ---------------------------------------------------------------

    def _call(self, request: Request, body: bytes, may: _May, asker: Asker) -> _Call:
        encoding = request.headers.get("content-encoding", "").strip().lower()
        body = bodies.decompress(body, encoding, self._limit)
        given = dict(request.query_params)
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("multipart/form-data"):
            given.update(bodies.form(content_type, body))
            body = b""
        if given.get("decompress") == "1":
            body = framing.unframe(body, self._limit)
        for header, name in (
            ("x-clickhouse-database", "database"),
            ("x-clickhouse-format", "default_format"),
        ):
            if header in request.headers:
                given[name] = request.headers[header]
        options = {name: value for name, value in given.items() if name in _OPTIONS}
        parameters = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
        settings = gate.allowed_settings(
            (name, value) for name, value in given.items() if name not in _OPTIONS and name[:6] != "param_"
        )
        session = self._session(options.get("session_id", ""))
        sql = options.get("query", "")
        return _Call(options, settings, parameters, sql, body, session, may, uuid.uuid4().hex, asker)

    def _session(self, name: str) -> _Session:
        if not name:
            return _Session()
        now = time.monotonic()
        session = self._sessions.pop(name, None)
        if session is None or now - session.used > _SESSION_SECONDS:
            session = _Session()
        session.used = now
        self._sessions[name] = session
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    # --- running it ---------------------------------------------------------------------------

    def _run(self, call: _Call) -> _Result:
        """Run a call; if it asks something, that is on record before it is answered."""
        began, rows, error = time.perf_counter(), 0, ""
        try:
            result = self._statement(call)
            rows = result.rows
            return result
        except Exception as failure:
            error = (
                str(gate.engine_code(failure)) if isinstance(failure, StoreError) else type(failure).__name__
            )
            raise
        finally:
            if call.question and self._questions is not None:
                seconds = time.perf_counter() - began
                question = Question(call.asker, call.question, call.parameters, rows, seconds, error)
                self._questions.asked(question)

    def _statement(self, call: _Call) -> _Result:
        current = call.options.get("database") or call.session.database or "default"
        # An INSERT's rows follow the statement, in the same body or after the `query` parameter, and need not
        # be text: latin-1 keeps every byte and every offset.
        head = call.sql.encode() + b"\n" if call.sql else b""
        whole = head + call.body
        insert = gate.parse_insert(whole[:262_144].decode("latin-1"), self._database, current)
        if insert is not None:
            if call.may.no_write:
                raise Denied(f"rows are not accepted from this request: {call.may.no_write}")
            return self._insert(call, insert, whole)
        try:
            sql = whole.decode().strip().rstrip(";")
        except UnicodeDecodeError as error:
            raise Malformed(f"the statement is not UTF-8: {error}") from error
        if not sql:
            raise Denied("Empty query", gate.SYNTAX_ERROR)
        empty = _Result(b"", call.format, {})
        if (setting := gate.parse_set(sql)) is not None:
            call.session.settings |= gate.allowed_settings([setting])
            return empty
        if (database := gate.parse_use(sql)) is not None:
            call.session.database = database
            return empty
        if _HELLO.match(sql) and "client_protocol_version" in call.options:
            return _Result(self._hello(call), "Native", {})
        call.question = sql
        greets = call.may.greet and gate.is_greeting(sql)
        if not (call.may.read or greets or gate.asked_by_writers(sql, self._database, current)):
            if not call.may.known:
                raise _unauthenticated()
            raise Denied("this token can only write: it may insert rows and describe their tables")
        with self._engine.connection() as connection:
            created = gate.created_name(sql, current)
            if created is not None:
                self._exists(connection, *created)
                return empty
            gate.check_database(current, self._database)
            if current != "default":
                connection.query(f"USE {quoted(current)}")
            return self._read(connection, call, sql)

    def _read(self, connection: Connection, call: _Call, sql: str) -> _Result:
        call.reads = True
        settings = call.session.settings | call.settings
        wished = settings.pop("max_execution_time", "")
        seconds = float(wished) if re.fullmatch(r"\d+(\.\d+)?", wished) else 0.0
        settings["max_execution_time"] = f"{min(seconds or _MAX_SECONDS, _MAX_SECONDS):g}"
        # What is ours comes last, and so counts.
        settings |= {
            "max_result_bytes": str(self._max_result),
            "result_overflow_mode": "throw",
            "max_memory_usage": str(self._max_memory),
            "log_comment": call.mark,
        }
        named = ", ".join(f"{name} = '{value.translate(_LITERAL)}'" for name, value in settings.items())
        connection.query(f"SET {named}")
        found = _FORMAT.search(sql)
        output = gate.output_format(found.group(1) if found else call.format)
        self._gate.check(connection, sql, call.parameters)
        if call.gone:
            raise ClientDisconnect
        if not gate.is_greeting(sql):
            self._settle()
        connection.become_reader()
        # Read-only, the engine says of every setting that it cannot be changed, and drivers believe it.
        if not _SETTINGS_LIST.match(sql):
            connection.query("SET readonly = 1")
        answer = connection.query(sql, output, call.parameters)
        body = answer.body
        if not body and output == "Native":
            body = _empty_block(connection, sql[: found.start()] if found else sql, call.parameters)
        return _Result(
            body,
            output,
            {"read_rows": str(answer.rows_read), "elapsed_ns": str(int(answer.elapsed * 1e9))},
            answer.rows_read,
        )

    def _insert(self, call: _Call, insert: gate.Insert, whole: bytes) -> _Result:
        with self._engine.connection() as connection:
            connection.prepare_inserts()
            connection.query(f"SET max_execution_time = {_MAX_SECONDS}")
            # A view takes some ten times the memory of the rows it turns: it gets a large block in pieces.
            connection.query(f"SET max_insert_block_size_bytes = {self._max_block}")
            connection.query("SET use_strict_insert_block_limits = 1")
            # In VALUES an expression would be run, with whatever it calls.
            connection.query("SET input_format_values_interpret_expressions = 0")
            connection.query("SET input_format_values_deduce_templates_of_expressions = 0")
            for name, value in (call.session.settings | call.settings).items():
                if name.startswith(("input_format_", "date_time_", "insert_dedup")):
                    connection.query(f"SET {name} = '{value.translate(_LITERAL)}'")
            if insert.format == "Native":
                self._insert_block(connection, insert, whole)
            elif (data := whole[insert.data_at :]).strip():
                connection.insert(insert.table, insert.columns, insert.format, [data])
        return _Result(b"", call.format, {})

    def _insert_block(self, connection: Connection, insert: gate.Insert, whole: bytes) -> None:
        block = memoryview(whole)[insert.data_at :]
        if not block:
            return
        database, _, table = insert.table.rpartition(".")
        made = block_by_engine(table, insert.columns, whole, insert.data_at)
        if made is not None:
            try:
                connection.insert_selected(f"{database}.{made.table}", RECORD_COLUMNS, made.select, [block])
                return
            except EngineError as error:
                # Some of it belongs elsewhere, or nothing of it can be written: the long way tells which.
                _logger.debug("a block for %s goes through the views: %s", insert.table, error)
        connection.insert(insert.table, insert.columns, "Native", [block])

    def _exists(self, connection: Connection, database: str, table: str) -> None:
        # Of other databases nothing is said: in the engine's own a table is a file of the host.
        there = database == self._database
        if table and there:
            there = bool(connection.rows(f"EXISTS TABLE {quoted(database)}.{quoted(table)}")[0][0])
        if not there:
            raise Denied(
                f"{database}{('.' if table else '')}{table} does not exist, and clients cannot create "
                f"it: they may write to {', '.join(schema.WRITABLE)} in {self._database}; in the "
                "Collector's clickhouse exporter set create_schema: false and use these tables"
            )

    def _hello(self, call: _Call) -> bytes:
        # With revision 0 clickhouse-go reads every further answer as plain Native, which the engine writes.
        offered = call.options.get("client_protocol_version", "0")
        modern = offered.isdigit() and int(offered) >= _NATIVE_REVISION
        columns = (
            ("displayName()", "String", native.text(_NAME)),
            ("version()", "String", native.text(self._version)),
            ("revision()", "UInt32", b"\0\0\0\0"),
            ("timezone()", "String", native.text(self._timezone)),
        )
        info = b"\x01\x00\x02\xff\xff\xff\xff\x00" if modern else b""
        flag = b"\0" if modern else b""
        parts = [native.text(name) + native.text(kind) + flag + data for name, kind, data in columns]
        return info + native.varint(len(columns)) + native.varint(1) + b"".join(parts)


_LITERAL: Final = str.maketrans({"\\": "\\\\", "'": "\\'"})


def _empty_block(connection: Connection, sql: str, parameters: dict[str, str]) -> bytes:
    # The engine writes nothing for no rows, but drivers read names and types from the block's head.
    if not re.match(r"\s*(SELECT|WITH)\b", sql, re.IGNORECASE):
        return b""
    try:
        described = connection.query(f"DESCRIBE TABLE ({sql})", "JSONCompactEachRow", parameters)
    except EngineError:
        return b""
    rows = [msgspec.json.decode(line) for line in described.body.split(b"\n") if line]
    return native.block(0, (native.Column(str(row[0]), str(row[1]), b"") for row in rows))


def _unauthenticated(more: str = "") -> Denied:
    return Denied(
        "default: Authentication failed: missing or invalid token; send it as Authorization: Bearer, as "
        f"X-ClickHouse-Key or as the password of basic authentication, never in the URL{more}",
        _AUTHENTICATION_FAILED,
    )


def _encode(body: bytes, options: dict[str, str], accepted: str) -> tuple[bytes, str]:
    if options.get("compress") == "1":
        return framing.frame(body), ""
    if options.get("enable_http_compression") == "0" or len(body) < _COMPRESS_FROM:
        return body, ""
    return bodies.compress(body, accepted)
