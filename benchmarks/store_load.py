"""A large store: records made inside the engine, through the landing table and its view, and questions to it.

usage: python -m benchmarks.store_load fill DIRECTORY [RECORDS [REQUESTS]]
       python -m benchmarks.store_load multiply DIRECTORY TIMES
       python -m benchmarks.store_load ask DIRECTORY [TIMES]

Not one of the benchmarks that run together: ten million records take some ten minutes and 4 GB. They are the
same in every run: 90 days up to :data:`END`, 20 000 actors, 40 models, some of each far more often than the
rest; updates, creations, deletions, reads and logins, some 1400 bytes each.

``fill`` goes on where it was stopped, then merges what a server merges at night, and prints what lies on the
disk. ``multiply`` makes of a filled store one of as many times more records, users and objects over as many
times the days (:mod:`benchmarks.store_multiply`).

``ask`` prints each question's times: the first with nothing of the store in the page cache, the others with
all of it, as far as it fits. The processor time of the server says more than times do on a machine that does
other things as well. In the end, the server's memory.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import Figure, quantile, report
from benchmarks.request_records import COUNTS
from benchmarks.request_records import statement as request_statement
from benchmarks.serving import serve
from benchmarks.store_multiply import multiply
from otel_audit.config.model import StoreConfig
from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION
from otel_audit.server.engine.datadir import DataDirectory
from otel_audit.server.engine.engine import Connection, Engine
from otel_audit.server.engine.upkeep import Upkeep
from otel_audit.server.otlp.engine_rows import FORMATS
from otel_audit.store.columns import attribute_names
from otel_audit.store.entries import LISTED
from otel_audit.store.migrations import migrate
from otel_audit.store.query import AuditStore
from otel_audit.store.retention import Retention
from otel_audit.store.schema import DEFAULT_LOG, EVENTS, LANDING, events
from otel_audit.store.work import REQUEST_LOGS

DAYS: Final = 90
END: Final = "2026-11-28 00:00:00"
_STEP: Final = 500_000
_BLOCK: Final = 65_536
_NIGHT: Final = 3
"""An hour at which a server merges."""
_MEMORY: Final = 6 << 30
"""More than a server has by default: the blocks are larger than a sender's."""

_FIELDS: Final = (
    *("status", "updated_at", "price", "email", "name", "quantity", "owner_id", "notes"),
    *("is_active", "address", "phone", "role", "due_date", "priority", "title", "country"),
)
_WORDS: Final = (
    *("lorem", "ipsum", "dolor", "refund", "chargeback", "invoice", "shipment", "approval", "escalated"),
    "customer",
)
_PLACES: Final = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")
_STATES: Final = ("new", "open", "paid", "closed", "void")
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
    *("curl/8.5", "python-requests/2.32", "okhttp/4.12"),
)


def _value(of: str, state: str, flag: str, mail: str, price: str) -> str:
    """Return the SQL of the values of the changed fields, by the field's name."""
    return f"""arrayMap(x -> multiIf(
      startsWith(x, 'status'), {list(_STATES)}[1 + {state} % {len(_STATES)}],
      startsWith(x, 'is_'), toString({flag} % 2), startsWith(x, 'email'), {mail},
      startsWith(x, 'price'), toString({price} % 100000 / 100),
      toString(sipHash64({of}, x) % 100000)), fields)"""


def _attributes() -> str:
    """Return the SQL of the map of a record's attributes; those that are empty are left out."""
    values = {
        "log": f"'{DEFAULT_LOG}'",
        "action": "action",
        "outcome": "if(g % 50 = 0, 'failure', 'success')",
        "actor.id": "toString(actor)",
        "actor.type": "multiIf(u2 < 0.8, 'user', u2 < 0.9, 'service', 'system')",
        "actor.name": "concat('user', toString(actor))",
        "target.type": "concat('app', toString(model % 7), '.Model', toString(model))",
        "target.id": "toString(object)",
        "source.id": "concat('10.', toString(actor % 200), '.', toString(h % 250), '.7')",
        "source.type": "'ipv4'",
        "source.session": "lower(hex(intHash64(actor)))",
        "source.user_agent": f"{list(_AGENTS)}[1 + h % {len(_AGENTS)}]",
        "request.id": "request_id",
        "request.method": "['POST', 'PUT', 'PATCH', 'GET'][1 + h % 4]",
        "request.route": "concat('api/v1/model', toString(model), '/<int:pk>/')",
        "request.path": "concat('/api/v1/model', toString(model), '/', toString(object), '/')",
        "request.view": "concat('app.views.View', toString(model))",
        "database.system": "'postgresql'",
        "database.namespace": "'shop'",
        "database.table": "concat('app', toString(model % 7), '_model', toString(model))",
        "database.transaction": "transaction",
        "changes": "changes",
        "image": "if(action IN ('UPDATE', 'CREATE'), image, '')",
        "completeness": "'full'",
        "old_values": "if(action = 'UPDATE', 'as_loaded', '')",
        "sequence.stream": "concat('019ab1c2-7d3e-7c10-9a52-', leftPad(toString(h % 64), 12, '0'), '/audit')",
        "sequence.number": "toString(intDiv(i, 64) + 1)",
        "event_name": "event",
        "observed_timestamp": "toString(toUnixTimestamp64Nano(time) + 30000)",
    }
    pairs = [f"'{SCHEMA_VERSION}', '1', '{RECORD_ID}', record"]
    pairs += [f"'{attribute_names(path)[0]}', {value}" for path, value in values.items()]
    return f"mapFilter((k, v) -> v != '' AND v != '[]', map({', '.join(pairs)}))"


def _statement(first: int, count: int, records: int) -> str:
    """Return the INSERT of ``count`` records from number ``first`` on, of ``records`` in all."""
    old = _value("g", "g", "g", "concat('u', toString(object), '@example.org')", "g")
    new = _value("h", "(g + 1)", "(g + 1)", "concat('n', toString(g % 500000), '@example.org')", "h")
    span = DAYS * 86_400 * 10**9
    text = f"""
      concat('user:', toString(actor), ' ', lower(action), ' ', {list(_WORDS)}[1 + g % {len(_WORDS)}], ' ',
        {list(_PLACES)}[1 + h % {len(_PLACES)}], ' #', toString(object))"""
    return f"""INSERT INTO {{db}}.{LANDING}
      (Timestamp, TraceId, SpanId, ServiceName, Body, ResourceAttributes, ScopeName, LogAttributes, EventName)
WITH
    number AS i, intDiv(i, 3) AS request, sipHash64(request, 1) AS h, sipHash64(i, 2) AS g,
    h % 1000003 / 1000003 AS u1, intHash64(h) % 1000003 / 1000003 AS u2, g % 1000003 / 1000003 AS u3,
    sipHash64(g, 3) % 1000003 / 1000003 AS u4, sipHash64(g, 4) % 1000003 / 1000003 AS u5,
    toUInt32(20000 * pow(u1, 3)) AS actor, toUInt8(40 * pow(u3, 2)) AS model,
    toUInt32(pow(u4, 2) * (1000000 / (1 + model))) AS object,
    multiIf(u5 < 0.6, 'UPDATE', u5 < 0.75, 'CREATE', u5 < 0.8, 'DELETE', u5 < 0.92, 'READ', 'LOGIN')
      AS action,
    multiIf(action = 'UPDATE', 1 + toUInt8(5 * pow(g % 97 / 97, 3)), action IN ('CREATE', 'DELETE'), 6, 0)
      AS width,
    arrayDistinct(arrayMap(k -> concat(
        {list(_FIELDS)}[1 + sipHash64(model, toUInt8(60 * pow(sipHash64(g, k, 7) % 1009 / 1009, 2.5)))
          % {len(_FIELDS)}],
        if(sipHash64(g, k, 7) % 3 = 0, '', concat('_', toString(model % 8)))),
      range(width))) AS fields,
    {old} AS old,
    {new} AS new,
    concat('[', arrayStringConcat(arrayMap((f, o, n) -> concat('{{{{"field":"', f, '"',
        if(action = 'CREATE', '', concat(',"old":"', o, '"')),
        if(action = 'DELETE', '', concat(',"new":"', n, '"')),
        if(startsWith(f, 'price'), ',"type":"decimal"', ''), '}}}}'), fields, old, new), ','), ']')
      AS changes,
    concat('{{{{"id":', toString(object), ',"name":"Item number ', toString(object), '","sku":"SKU-',
      leftPad(toString(object), 8, '0'), '","description":"Lorem ipsum dolor sit amet ',
      toString(sipHash64(object) % 1000), '","quantity":', toString(g % 97), ',"price":"',
      toString(g % 100000 / 100), '","active":true,"due_at":"2026-11-23T12:00:00+00:00",',
      '"created_at":"2026-10-01T08:00:00+00:00","category":', toString(object % 40),
      ',"metadata":{{{{"color":"red","n":', toString(object % 1000), '}}}}}}}}') AS image,
    toDateTime64('{END}', 9, 'UTC') - toIntervalDay({DAYS})
      + toIntervalNanosecond(toInt64(i * ({span} / {records})) + g % 1000000) AS time,
    lower(leftPad(hex(toUnixTimestamp64Milli(time)), 12, '0')) AS moment,
    lower(hex(sipHash128(i, 9))) AS random, lower(hex(sipHash128(request, 11))) AS request_id,
    concat(substring(moment, 1, 8), '-', substring(moment, 9, 4), '-7', substring(random, 1, 3), '-8',
      substring(random, 4, 3), '-', substring(random, 7, 12)) AS record,
    concat(substring(moment, 1, 8), '-', substring(moment, 9, 4), '-7', substring(request_id, 1, 3), '-8',
      substring(request_id, 4, 3), '-', substring(request_id, 7, 12)) AS transaction,
    concat('svc-', toString(toUInt8(6 * pow(u2, 2)))) AS service,
    concat('app', toString(model % 7), '.model', toString(model), '.', lower(action)) AS event
SELECT time, lower(hex(sipHash128(request, 5))), lower(hex(g)), service, if(g % 20 = 0, {text}, ''),
    map('service.name', service, 'host.name', concat('web-', toString(h % 4)), 'service.version', '2.4.1',
      'process.pid', toString(1000 + h % 64)),
    'otel_audit', {_attributes()}, event
FROM numbers({first}, {count})"""


def fill(directory: Path, records: int, requests: int = 0) -> None:
    """Make ``records`` records in a data directory, and of requests four page views to each other one.

    Prints what they take on the disk.
    """
    with _opened(directory) as engine, engine.connection() as connection:
        database = StoreConfig().database
        migrate(connection.rows, database, Retention.configured(StoreConfig()))
        connection.prepare_inserts()
        for name, value in {
            "max_threads": 1,
            "max_insert_threads": 1,
            "max_block_size": _BLOCK,
            "min_insert_block_size_rows": _BLOCK,
            "min_insert_block_size_bytes": 0,
        }.items():
            connection.query(f"SET {name} = {value}")
        # What the last run had begun is made again; a record that is there twice is merged to one.
        [[there]] = connection.rows(f"SELECT count() FROM {database}.{EVENTS}")
        for first in range(int(there) // _STEP * _STEP, records, _STEP):
            count = min(_STEP, records - first)
            connection.query(_statement(first, count, records).format(db=database))
            sys.stderr.write(f"{first + count} records\n")
        for log, number in (("pageview", requests * 4 // 5), ("activity", requests - requests * 4 // 5)):
            [[there]] = connection.rows(f"SELECT count() FROM {database}.{events(log)}")
            for first in range(int(there) // _STEP * _STEP, number, _STEP):
                count = min(_STEP, number - first)
                sql = request_statement(log, first, count, number, days=DAYS, end=END)
                connection.query(sql.format(db=database))
                sys.stderr.write(f"{first + count} requests in the log {log}\n")
        _finish(engine, connection, (EVENTS, *(map(events, REQUEST_LOGS) if requests else ())))


def _times(directory: Path, times: int) -> None:
    """Make a filled store ``times`` as large; goes on where it was stopped."""
    with _opened(directory, memory_bytes=2 * _MEMORY) as engine:
        multiply(engine, StoreConfig().database, times, end=END)
        with engine.connection() as connection:
            _finish(engine, connection, (EVENTS,))


@contextmanager
def _opened(directory: Path, memory_bytes: int = _MEMORY) -> Iterator[Engine]:
    held = DataDirectory.acquire(directory)
    engine = Engine(held.engine, memory_bytes=memory_bytes, fsync=False, formats=FORMATS)
    yield engine
    engine.close()
    held.release()


def _finish(engine: Engine, connection: Connection, tables: Sequence[str]) -> None:
    """Merge as a server does at night, and report what is on the disk."""
    database = StoreConfig().database
    night = datetime.datetime.fromisoformat(END).replace(hour=_NIGHT, tzinfo=datetime.UTC)
    for each in Upkeep(engine, database).merge(night):
        sys.stderr.write(f"merged {each.id} of {each.table}\n")
    for table in tables:
        report(_on_disk(connection, database, table))


def _on_disk(connection: Connection, database: str, table: str) -> Iterator[Figure]:
    where = f"WHERE active AND database = '{database}' AND table = '{table}'"
    [[rows, parts, size, indexes]] = connection.rows(
        "SELECT sum(rows), count(), sum(bytes_on_disk), sum(secondary_indices_compressed_bytes) "
        f"FROM system.parts {where}"
    )
    yield Figure(name=f"rows of {table}", value=int(rows), unit="", note=f"in {parts} parts")
    if not int(rows):
        return
    note = f"of these {int(indexes) / int(rows):.1f} for the indexes"
    yield Figure(name="on the disk", value=int(size) / int(rows), unit="bytes a record", goal=180, note=note)


class Question(NamedTuple):
    """A question as a user asks it: its name, and the call that asks it the n-th time.

    The call takes ``parts``, if it lists entries.
    """

    name: str
    ask: Callable[..., object]
    lists: bool = True


_LAST_DAY: Final = "2026-11-27T00:00:00+00:00"
_LAST_WEEK: Final = "2026-11-21T00:00:00+00:00"

QUESTIONS: Final = (
    Question("actor, last day", lambda s, n, **k: s.query(actor=str(100 + n), since=_LAST_DAY, **k)),
    Question("actor by name, any time", lambda s, n, **k: s.query(actor=f"user{100 + n}", **k)),
    Question("history of an object", lambda s, n, **k: s.history(f"app1.Model1/{1000 + n}", **k)),
    Question("object", lambda s, n, **k: s.query(target=f"app1.Model1/{1000 + n}", **k)),
    Question("field changed", lambda s, n, **k: s.query(field=f"status_{n % 8}", **k)),
    Question("field = new value", lambda s, n, **k: s.query(field=f"status_{n % 8}=paid", **k)),
    Question("old or new value", lambda s, n, **k: s.query(text=f"n{300000 + n}@example.org", **k)),
    Question("failed deletions of a week", lambda s, n, **k: s.query(action="DELETE", outcome="failure",
                                                                      since=_LAST_WEEK, **k)),
    Question("free text, two words", lambda s, n, **k: s.query(text="chargeback " + _PLACES[n % 8], **k)),
    Question("free text, a number", lambda s, n, **k: s.query(text=f"#{5000 + n}", **k)),
    Question("newest", lambda s, n, **k: s.query(**k)),
    Question("newest of every log", lambda s, n, **k: s.query(log="*", **k)),
)  # fmt: skip


def ask(directory: Path, times: int) -> Iterator[Figure]:
    """Ask each question ``times`` times of a server over ``directory``, and once before.

    The entries have the parts that the command line lists; whole ones are asked for as often.
    """
    with serve(directory) as addresses, AuditStore(addresses.store) as store:
        some = store.query(limit=times + 1).entries
        by_id = (
            Question("request", lambda s, n, **k: s.query(request_id=some[n % len(some)].request_id, **k)),
            Question("trace", lambda s, n, **k: s.trace(some[n % len(some)].trace_id, **k)),
            Question("record", lambda s, n: s.get(some[n % len(some)].id), lists=False),
        )
        count = Question("count per day and action", lambda s, n: s._client.query(_COUNT), lists=False)

        def asked(question: Question, **parts: object) -> tuple[list[float], float]:
            before = _processor_time(addresses.pid)
            samples = []
            for number in range(1, times + 1):
                start = time.perf_counter()
                question.ask(store, number, **parts)
                samples.append(time.perf_counter() - start)
            return samples, (_processor_time(addresses.pid) - before) / times * 1e3

        questions = [*QUESTIONS, *by_id, count] if some else []
        if store.count_requests():
            questions += [Question(f"requests: {name}", call, lists=False) for name, call in COUNTS.items()]
        cold: dict[str, float] = {}
        for question in questions:
            _forget(directory)
            start = time.perf_counter()
            question.ask(store, 0, **({"parts": LISTED} if question.lists else {}))
            cold[question.name] = time.perf_counter() - start
        _recall(directory)
        for question in questions:
            parts = {"parts": LISTED} if question.lists else {}
            samples, spent = asked(question, **parts)
            note = f"{spent:.0f} ms of processor time"
            if question.lists:
                note += f" ({asked(question)[1]:.0f} for whole entries)"
            note += f", cold {cold[question.name] * 1e3:.0f} ms, p50 {quantile(samples, 0.5) * 1e3:.0f} ms"
            value = quantile(samples, 0.95) * 1e3
            yield Figure(name=f"{question.name}, p95", value=value, unit="ms", goal=100, note=note)
        yield Figure(name="most memory of the server", value=_memory(addresses.pid), unit="MB", goal=1000)


_COUNT: Final = (
    f"SELECT toDate(timestamp) AS day, action, count() AS times FROM {StoreConfig().database}.{EVENTS} "
    "WHERE ordinal = 0 GROUP BY day, action ORDER BY day, action"
)


def _forget(directory: Path) -> None:
    """Take the files of a store from the page cache."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with (
                suppress(FileNotFoundError),
                open(os.path.join(folder, name), "rb") as file,
            ):  # merged meanwhile
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _recall(directory: Path) -> None:
    """Read the files of a store, so that they are in the page cache as far as they fit."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
                while file.read(16 << 20):
                    pass


def _memory(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        [peak] = [line.split()[1] for line in file if line.startswith("VmHWM")]
    return int(peak) / 1000


def _processor_time(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    """Fill or ask, as the arguments say."""
    if len(arguments) not in (2, 3, 4) or arguments[0] not in ("fill", "multiply", "ask"):
        sys.stderr.write(__doc__ or "")
        return 2
    directory, numbers = Path(arguments[1]).absolute(), [int(each) for each in arguments[2:]]
    if arguments[0] == "fill":
        fill(directory, *(numbers or [1_000_000]))
    elif arguments[0] == "multiply":
        _times(directory, *(numbers or [10]))
    else:
        report(ask(directory, *(numbers or [20])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
