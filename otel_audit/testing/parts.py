"""Records by the kind of what they are about, with their parts by name.

What a record does not have is None, or empty where it is a text, list or dict.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from msgspec import UNSET

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord, Target

_WRITES: Final = frozenset({"CREATE", "UPDATE", "DELETE"})
_NO_TARGET: Final = Target("")


class CapturedPart:
    """What all records have; ``record`` is the whole of it."""

    events: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, record: AuditRecord) -> None:
        self.record = record

    @classmethod
    def is_of(cls, record: AuditRecord) -> bool:
        """Say whether a record is of this kind."""
        return record.event_name in cls.events

    @property
    def actor(self) -> str:
        """The id of who acted, ``anonymous`` where nobody was known."""
        return self.record.actor.id

    @property
    def outcome(self) -> str:
        """``success``, ``failure`` or ``unknown``."""
        return self.record.outcome

    @property
    def target(self) -> str:
        """What it was about, as ``shop.Order/7``."""
        return str(self._target)

    @property
    def related(self) -> list[str]:
        """Related objects, as ``shop.Order/7``."""
        return [str(each) for each in self.record.related]

    @property
    def slug(self) -> str:
        return self.record.slug

    @property
    def event_code(self) -> str:
        return self.record.event_code

    @property
    def event_type(self) -> str:
        return self.record.event_type

    @property
    def request_id(self) -> str:
        """The id that all records of one request, command or task have in common."""
        return self.record.request.id

    @property
    def parent(self) -> str:
        """The ``request_id`` of the request, command or task in which it happened."""
        return self.record.request.parent

    @property
    def attributes(self) -> dict[str, Any]:
        """What else the record has, by name."""
        return self.record.attributes

    @property
    def duration(self) -> float | None:
        """Seconds."""
        return self._get(semconv.DURATION)  # type: ignore[no-any-return]

    @property
    def exception(self) -> str:
        """The type of the exception that ended it."""
        return self._get(semconv.EXCEPTION_TYPE) or ""

    @property
    def error(self) -> str:
        """Why it failed, in a word or a sentence."""
        return self.record.error

    def _get(self, name: str) -> Any:
        return self.record.attributes.get(name)

    @property
    def _target(self) -> Target:
        return self.record.target or _NO_TARGET

    def __repr__(self) -> str:
        """Show it for the message of a failed test; a record has no secrets."""
        return f"<{type(self).__name__} {self.record.event_name} {self.target} {self.outcome}>"


class _Rows(CapturedPart):
    """Rows of one model."""

    @property
    def model(self) -> str:
        """Its model, as ``shop.Order``."""
        return self._target.type

    @property
    def ids(self) -> list[str]:
        """The keys of the rows, as far as they are recorded."""
        if self.record.bulk is not None:
            return self.record.bulk.keys
        return [self._target.id] if self._target.id else []

    @property
    def count(self) -> int:
        """How many rows."""
        return 1 if self.record.bulk is None else self.record.bulk.count


class CapturedChange(_Rows):
    """One row written, or many rows by one statement."""

    @classmethod
    def is_of(cls, record: AuditRecord) -> bool:
        return record.action in _WRITES and bool(record.database.table)

    @property
    def action(self) -> str:
        """``CREATE``, ``UPDATE`` or ``DELETE``."""
        return self.record.action

    @property
    def id(self) -> str:
        """The key of the row; empty where there are many: see ``ids``."""
        return self._target.id

    @property
    def fields(self) -> list[str]:
        """The names of the fields that were changed."""
        return self.record.changed_fields

    @property
    def old(self) -> dict[str, Any]:
        """The value of each field before, where it is known; of many rows a list of them."""
        return self._values("old")

    @property
    def new(self) -> dict[str, Any]:
        """The value of each field after, where it is known; of many rows a list of them."""
        return self._values("new")

    def _values(self, which: str) -> dict[str, Any]:
        columns: list[Any] = self.record.changes
        if self.record.bulk is not None:
            columns = self.record.bulk.columns
        found = {each.field: getattr(each, which) for each in columns}
        return {name: value for name, value in found.items() if value is not UNSET}


class CapturedRead(_Rows):
    """The rows that one query showed."""

    @classmethod
    def is_of(cls, record: AuditRecord) -> bool:
        return record.action == "READ"

    @property
    def fields(self) -> list[str]:
        """The names of the fields that were shown; empty if all were."""
        return self.record.changed_fields


class CapturedLogin(CapturedPart):
    """A login that succeeded or failed."""

    @classmethod
    def is_of(cls, record: AuditRecord) -> bool:
        return record.action == "LOGIN"

    @property
    def address(self) -> str:
        """The address of the client."""
        return self.record.source.id

    @property
    def user(self) -> str:
        """The id of the user; of a login that failed, the name that was given."""
        return self._target.id


class _Exchange(CapturedPart):
    """A request and its response."""

    @property
    def status(self) -> int | None:
        """The status of the response; None if there was none."""
        return self._get(semconv.STATUS_CODE)  # type: ignore[no-any-return]

    @property
    def host(self) -> str:
        """The host that was asked for, with its port if there is one."""
        name, port = self._get(semconv.SERVER_ADDRESS) or "", self._get(semconv.SERVER_PORT)
        return f"{name}:{port}" if port else name

    @property
    def query(self) -> str:
        """The query of the address, without secrets."""
        return self._get(semconv.QUERY) or ""

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of the request, by lower-case name; empty below level ``request``."""
        return self._headers(semconv.REQUEST_HEADER)

    @property
    def response_headers(self) -> dict[str, str]:
        """The headers of the response, by lower-case name; empty below level ``request_response``."""
        return self._headers(semconv.RESPONSE_HEADER)

    @property
    def request_body(self) -> Any:
        """The body of the request: of JSON and forms their content; None if it was not recorded."""
        return self._get(semconv.REQUEST_BODY)

    @property
    def response_body(self) -> Any:
        """The body of the response; None if it was not recorded."""
        return self._get(semconv.RESPONSE_BODY)

    @property
    def request_size(self) -> int | None:
        """Bytes of the request's body."""
        return self._get(semconv.REQUEST_SIZE)  # type: ignore[no-any-return]

    @property
    def response_size(self) -> int | None:
        """Bytes of the response's body."""
        return self._get(semconv.RESPONSE_SIZE)  # type: ignore[no-any-return]

    def _headers(self, prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.record.attributes.items()
            if name.startswith(prefix)
        }


class CapturedRequest(_Exchange):
    """A request that the application answered."""

    events = frozenset({"http.server.request"})

    @property
    def method(self) -> str:
        return self.record.request.method

    @property
    def path(self) -> str:
        return self.record.request.path

    @property
    def route(self) -> str:
        return self.record.request.route

    @property
    def view(self) -> str:
        return self.record.request.view

    @property
    def scheme(self) -> str:
        return self._get(semconv.SCHEME) or ""

    @property
    def address(self) -> str:
        """The address of the client."""
        return self.record.source.id

    @property
    def user_agent(self) -> str:
        return self.record.source.user_agent


class CapturedCall(_Exchange):
    """A request that the application made."""

    events = frozenset({"http.client.request"})

    @property
    def method(self) -> str:
        return self._get(semconv.METHOD) or ""

    @property
    def url(self) -> str:
        """The address, without credentials and secrets."""
        return self._get(semconv.URL) or ""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def query(self) -> str:
        return urlsplit(self.url).query

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme


class CapturedCommand(CapturedPart):
    """A command or a job that has ended."""

    events = frozenset({"command.run", "job.run"})

    @property
    def name(self) -> str:
        return self._target.id or self._target.type

    @property
    def arguments(self) -> list[str]:
        """The arguments, without secrets."""
        return self._get(semconv.ARGUMENTS) or []

    @property
    def output(self) -> str:
        """The end of what it printed; empty below level ``request_response``."""
        return self._get(semconv.OUTPUT) or ""

    @property
    def exit_code(self) -> int | None:
        return self._get(semconv.EXIT_CODE)  # type: ignore[no-any-return]


class _Task(CapturedPart):
    @property
    def name(self) -> str:
        """The name of the task."""
        return self._target.type

    @property
    def id(self) -> str:
        """The id under which it was sent."""
        return self._target.id

    @property
    def queue(self) -> str:
        return self._get(semconv.TASK_QUEUE) or ""

    @property
    def state(self) -> str:
        """The state as the library names it: ``PENDING``, ``SUCCESS``, ``RETRY``."""
        return self._get(semconv.TASK_STATE) or ""

    @property
    def arguments(self) -> Any:
        """The arguments, without secrets; None below level ``request``."""
        return self._get(semconv.ARGUMENTS)

    @property
    def retries(self) -> int:
        """How often it was tried before."""
        return self._get(semconv.TASK_RETRIES) or 0


class CapturedPublish(_Task):
    """A task that was sent to a queue."""

    events = frozenset({"task.publish"})


class CapturedRun(_Task):
    """One try to run a task."""

    events = frozenset({"task.run", "task.retry"})

    @property
    def result(self) -> Any:
        """What it returned; None below level ``request_response``."""
        return self._get(semconv.TASK_RESULT)

    @property
    def output(self) -> str:
        """The end of what it printed, where a rule asks for it."""
        return self._get(semconv.OUTPUT) or ""
