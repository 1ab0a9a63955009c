"""Talk to a store over the ClickHouse HTTP interface: `otel-audit serve`, or a ClickHouse server.

Values go as server-side parameters (``{name:Type}`` in the SQL, ``param_name`` beside it) and are never part
of the SQL.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_audit.config.headers import value_problem
from otel_audit.config.model import StoreConfig
from otel_audit.config.showing import without_credentials
from otel_audit.errors import ConfigurationError, QueryError, StoreError
from otel_audit.store.local_tokens import find

Ask: TypeAlias = Callable[[str, dict[str, Any]], list[dict[str, Any]]]
"""Runs a SELECT with its parameters; gives its rows: :meth:`StoreClient.query`."""

_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f", "'": "\\'"}
)
_LONGEST_ADDRESS: Final = 32_768
_AUTHENTICATION_FAILED: Final = "516"
_decode = msgspec.json.Decoder().decode


class RefusedQuery(StoreError):
    """The store answered a statement with an error; ``code`` is ClickHouse's, 0 if it gave none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class StoreClient:
    """A connection to a store; one HTTP connection a thread, reopened when the store has closed it."""

    def __init__(self, config: StoreConfig | str) -> None:
        self.config = StoreConfig(url=config) if isinstance(config, str) else config
        parts = urllib.parse.urlsplit(self.config.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StoreError(
                f"store.url is {without_credentials(self.config.url)!r}; write an HTTP address such as http://127.0.0.1:8123"
            )
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 8123)
        self._path = parts.path or "/"
        self._headers = {"Content-Type": "application/octet-stream"}
        user, password = (
            self.config.user or urllib.parse.unquote(parts.username or ""),
            self.config.password or urllib.parse.unquote(parts.password or ""),
        )
        for key in ("token", "user", "password"):
            problem = value_problem(getattr(self.config, key))
            if problem and (key == "token" or "surrogate" in problem):  # the others are sent encoded
                raise ConfigurationError(f"store.{key} (OTEL_AUDIT_STORE_{key.upper()}) {problem}")
        self._looks_up = not (self.config.token or user or password) and self._tls is None
        if self.config.token:
            self._headers["Authorization"] = f"Bearer {self.config.token}"
        elif user or password:
            token = base64.b64encode(f"{user or 'default'}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self.received = 0
        """Rows of all answers so far."""
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
    ) -> list[dict[str, Any]]:
        """Run a SELECT; give its rows, each by column name.

        Raises:
            QueryError: the parameters are too long to be sent.
            StoreError: the store cannot be reached.
            RefusedQuery: it refused the statement.
        """
        options: dict[str, str | int] = {
            "default_format": "JSONEachRow",
            "output_format_json_quote_64bit_integers": 0,
            **(settings or {}),
        }
        found = [_decode(line) for line in _lines(self._post(sql, parameters or {}, options))]
        self.received += len(found)
        return found

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[list[Any]]:
        """Run any statement; give the rows of a SELECT as lists of values, nothing for other statements."""
        options: dict[str, str | int] = {
            "default_format": "JSONCompactEachRow",
            "output_format_json_quote_64bit_integers": 0,
        }
        found = [_decode(line) for line in _lines(self._post(sql, parameters or {}, options))]
        self.received += len(found)
        return found

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, each by column name, into a table of the database."""
        sql = f"INSERT INTO {self.config.database}.{table} FORMAT JSONEachRow"
        body = b"\n".join(map(msgspec.json.encode, rows))
        self._send(urllib.parse.urlencode({"query": sql}), body)

    def ping(self) -> None:
        """Ask whether the store is there.

        Raises:
            StoreError: it is not, or it is something else.
        """
        self.query("SELECT 1")

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in tuple(self._open):
            connection.close()
        self._open.clear()

    def _post(self, sql: str, parameters: Mapping[str, Any], options: Mapping[str, str | int]) -> bytes:
        query = {
            **options,
            **{f"param_{name}": encode_parameter(value) for name, value in parameters.items()},
        }
        address = urllib.parse.urlencode(query)
        if len(address) > _LONGEST_ADDRESS:  # servers close the connection without a useful word
            raise QueryError(
                f"the query is too long: its values take {len(address):,} characters in the URL, and "
                f"the store accepts {_LONGEST_ADDRESS:,}; search for a shorter text"
            )
        return self._send(address, sql.encode())

    def _send(self, query: str, body: bytes) -> bytes:
        with suppress_instrumentation():  # questions about calls are not calls
            return self._asked(query, body)

    def _asked(self, query: str, body: bytes) -> bytes:
        response, answer = self._exchange(query, body)
        # The server may have been about to start when its token was looked for.
        if response.headers.get("X-ClickHouse-Exception-Code") == _AUTHENTICATION_FAILED and self._look_up():
            response, answer = self._exchange(query, body)
        if response.status != 200:
            raise self._refused(response, answer)
        return answer

    def _exchange(self, query: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        for attempt in (1, 2):
            connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
            fresh = connection is None or connection.sock is None
            if connection is None:
                connection = self._connect()
            if fresh:
                self._look_up()
            try:
                connection.request("POST", f"{self._path}?{query}", body, self._local.headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A kept connection may have been closed by the store meanwhile; that says nothing yet.
                if attempt == 1 and not fresh and not isinstance(error, TimeoutError):
                    continue
                raise StoreError(self._unreachable(error)) from error
            break
        return response, answer

    def _look_up(self) -> bool:
        """Look for a server of this user, if no credentials were given; return whether its token is new."""
        token = find(self._host, self._port) if self._looks_up else ""
        headers = self._headers | ({"Authorization": f"Bearer {token}"} if token else {})
        changed = headers != getattr(self._local, "headers", None)
        self._local.headers = headers
        return changed

    def _connect(self) -> http.client.HTTPConnection:
        timeout = self.config.timeout or None
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        )
        self._local.connection = connection
        self._open.add(connection)
        return connection

    def _unreachable(self, error: Exception) -> str:
        reason = (
            f"no answer within {self.config.timeout:g} s" if isinstance(error, TimeoutError) else str(error)
        )
        return (
            f"no store at {self._where()}: {reason}; is `otel-audit serve` running there? The address "
            "is set by `url` in [store] or OTEL_AUDIT_STORE_URL"
        )

    def _refused(self, response: http.client.HTTPResponse, answer: bytes) -> StoreError:
        text = answer.decode("utf-8", "replace").strip()
        if response.status in (401, 403) and not response.headers.get("X-ClickHouse-Exception-Code"):
            return StoreError(
                f"the store at {self._where()} requires a token: "
                "set `token` in [store], or OTEL_AUDIT_STORE_TOKEN"
            )
        code = response.headers.get("X-ClickHouse-Exception-Code", "0")
        if code == _AUTHENTICATION_FAILED:
            given = "Authorization" in self._local.headers
            return RefusedQuery(
                f"the store at {self._where()} requires credentials, and "
                f"{('those that were sent are not valid' if given else 'none were sent')}: set `token` "
                "in [store] (OTEL_AUDIT_STORE_TOKEN), for a ClickHouse server `user` and `password`. "
                "The token of an `otel-audit serve` of another user is in the file read-token of its "
                "data directory",
                int(code),
            )
        if code == "0" and response.status == 404:
            return StoreError(f"there is no ClickHouse interface at {self._where()}: HTTP 404")
        return RefusedQuery(text or f"HTTP {response.status}", int(code) if code.isdigit() else 0)

    def _where(self) -> str:
        scheme = "https" if self._tls else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}"


def encode_parameter(value: Any, *, nested: bool = False) -> str:
    r"""Return a value as ClickHouse reads a parameter: text escaped, lists and tuples as literals.

    >>> encode_parameter(["it's", 1])
    "['it\\'s',1]"
    """
    if value is None:
        return "NULL" if nested else "\\N"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        inner = ",".join(encode_parameter(item, nested=True) for item in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, Mapping):
        pairs = (
            f"{encode_parameter(key, nested=True)}:{encode_parameter(item, nested=True)}"
            for key, item in value.items()
        )
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        value = value.isoformat(" ")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    text = str(value).translate(_ESCAPES)
    return f"'{text}'" if nested else text


def _lines(body: bytes) -> Iterator[bytes]:
    return (line for line in body.split(b"\n") if line)
