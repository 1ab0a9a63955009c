"""Whatever a client, a file or a person hands in: an answer of the kind that is documented, or its error."""

from __future__ import annotations

import base64
import datetime as dt
import re
import string
import tomllib
import zoneinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf import json_format
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit.audit_record import AuditRecord, Origin, Sequence, new_record_id
from otel_audit.config.catalog import settings
from otel_audit.config.loader import load
from otel_audit.errors import ConfigurationError, QueryError
from otel_audit.pipeline.delivery import otlp_encoding
from otel_audit.pipeline.spool.frames import decode_record, encode_record
from otel_audit.server.bodies import Malformed, TooLarge
from otel_audit.server.otlp import messages
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.limits import Budget, Limits
from otel_audit.server.otlp.rows import log_rows, metric_rows, span_rows
from otel_audit.store.filters import Filters, read_cursor, select, write_cursor
from otel_audit.store.times import format_iso, parse_time
from tests.attack.chance import Chance
from tests.attack.effort import effort, examples, inputs
from tests.pipeline.otlp_sink import rebuild
from tests.trail import records, sent

SECRET = "s3cr3t-value"


# --- records -----------------------------------------------------------------------------------------------


def as_sent(record: AuditRecord) -> AuditRecord:
    """Return a record the id, the times and the parts of one that is really sent."""
    if record.sequence is not None and not record.sequence.number:
        record = msgspec.structs.replace(record, sequence=Sequence(record.sequence.stream, 1))
    if record.origin == Origin():
        record = msgspec.structs.replace(record, origin=None)
    return sent(record)


def comes_back(record: AuditRecord) -> str:
    record = as_sent(record)
    assert decode_record(encode_record(record)) == record
    assert rebuild(LogRecord.FromString(otlp_encoding.log_record(record))) == record
    return "of many rows" if record.bulk else "of one row"


@effort(short=200, long=100_000)
def test_a_record_comes_back_from_spool_and_wire(rounds: int) -> None:
    examples("records from spool and wire", rounds, records, comes_back)
    inputs("records from spool and wire", rounds, lambda chance: chance.of(AuditRecord), comes_back)


# --- OTLP --------------------------------------------------------------------------------------------------


class Body(NamedTuple):
    """A request as a client sends it."""

    signal: str
    content_type: str
    content: bytes


ROWS: Final = {"logs": log_rows, "traces": span_rows, "metrics": metric_rows}
IDS: Final = ("traceId", "spanId", "parentSpanId")
LIMITS: Final = Limits.of(200_000)


def a_body(chance: Chance) -> Body:
    """Return a request of our own, or one with anything in it, as it should be, damaged, or no request."""
    signal = chance.choice(("logs", "logs", "traces", "metrics"))
    if chance.random() < 0.05:
        return Body(
            signal, chance.choice((messages.PROTOBUF, messages.JSON)), chance.randbytes(chance.randrange(200))
        )
    if signal == "logs" and chance.random() < 0.4:
        encoded = [
            otlp_encoding.log_record(as_sent(chance.of(AuditRecord))) for _ in range(chance.randint(1, 2))
        ]
        message = messages.REQUESTS[signal].FromString(
            otlp_encoding.export_request({"service.name": chance.text()}, encoded)
        )
    else:
        message = chance.message(messages.REQUESTS[signal])
    if chance.random() < 0.5:
        content = message.SerializeToString()
        return Body(signal, messages.PROTOBUF, chance.mangled(content) if chance.random() < 0.5 else content)
    document = with_hexadecimal_ids(json_format.MessageToDict(message))
    way = chance.random()
    content = msgspec.json.encode(chance.distorted(document) if way < 0.6 else document)
    return Body(signal, messages.JSON, chance.mangled(content) if way > 0.8 else content)


def with_hexadecimal_ids(document: Any) -> Any:
    """Return a document whose ids are written as OTLP wants them, and not in protobuf's base64."""
    if isinstance(document, list):
        return [with_hexadecimal_ids(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        key: base64.b64decode(value).hex() if key in IDS else with_hexadecimal_ids(value)
        for key, value in document.items()
    }


def is_rows_or_refused(body: Body) -> str:
    """Decode a request as the receiver does."""
    signal, content_type, content = body
    kind = "protobuf" if content_type == messages.PROTOBUF else "JSON"
    try:
        if content_type == messages.PROTOBUF:
            messages.check_size(content, signal, LIMITS)
        request = messages.checked(content, signal, content_type, LIMITS)
        made = ROWS[signal](request, Budget(LIMITS.rows))
    except Malformed:
        return f"{signal} in {kind} malformed"
    except TooLarge:
        return f"{signal} in {kind} too large"
    message = messages.REQUESTS[signal].FromString(request)
    kept = sum(rows.size + rows.dropped for rows in made)
    if signal == "logs":
        assert kept == sum(len(s.log_records) for r in message.resource_logs for s in r.scope_logs)
        if (straight := rows_by_engine(request)) is not None:
            assert straight.size == kept
    elif signal == "traces":
        assert kept == sum(len(s.spans) for r in message.resource_spans for s in r.scope_spans)
    return f"{signal} in {kind} decoded"


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    """An OTLP request with bytes changed, taken out or put in, or any bytes at all."""
    content_type = draw(st.sampled_from([messages.PROTOBUF, messages.JSON]))
    if draw(st.booleans()):
        return Body("logs", content_type, draw(st.binary(max_size=200)))
    many = draw(st.lists(records.map(sent), min_size=1, max_size=2))
    body = bytearray(
        otlp_encoding.export_request(
            {"service.name": "shop"}, [otlp_encoding.log_record(one) for one in many]
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(body)))
        body[begin : begin + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return Body("logs", content_type, bytes(body))


@effort(short=200, long=100_000)
def test_any_body_of_an_otlp_request_is_rows_or_malformed(rounds: int) -> None:
    examples("bodies of OTLP requests", rounds, bodies(), is_rows_or_refused)
    inputs("bodies of OTLP requests", rounds, a_body, is_rows_or_refused)


# --- configuration -----------------------------------------------------------------------------------------

NAMES: Final = sorted(settings())
SECRETS: Final = {key for key, setting in settings().items() if setting.secret}


class Written(NamedTuple):
    """Settings with their values, and what stands in the file below them."""

    pairs: list[tuple[str, Any]]
    tail: str


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(inner)}" for key, inner in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def a_setting(chance: Chance) -> tuple[str, Any]:
    """Return a key there is, nearly or not, and what it should be, a secret, or anything."""
    key = chance.choice(NAMES) if chance.random() < 0.9 else chance.text(12)
    way = chance.random()
    if key in NAMES and way < 0.5:
        default = settings()[key].default
        fitting: Any = (
            True,
            False,
            0,
            1,
            4096,
            65_536,
            0.5,
            "never",
            "exact",
            "https://h",
            "90d",
            ["a.B"],
            "",
        )
        return key, chance.choice(fitting) if default is None or chance.random() < 0.7 else default
    if way < 0.7 or key in SECRETS:
        return key, chance.choice((SECRET, SECRET, [SECRET], {"a": SECRET}, {f"Authorization: {SECRET}": 1}))
    value = chance.value(2)
    return key, "" if value is None else value


def a_configuration(chance: Chance) -> Written:
    return Written(
        chance.some(lambda: a_setting(chance), 4), chance.text(10) if chance.random() < 0.1 else ""
    )


def shows_no_secret(folder: Path, written: Written) -> str:
    """Load a configuration from a file, and from the environment."""
    file = folder / "otel-audit.toml"
    text = "\n".join(
        f"{key if key in NAMES else as_toml(key)} = {as_toml(what)}" for key, what in written.pairs
    )
    environ = {
        f"OTEL_AUDIT_{key.upper().replace('.', '_')}": str(what).replace("\0", "")
        for key, what in written.pairs
    }
    # A value of a setting that is no secret is shown in full, a name of an unknown one as well.
    hidden = all(key in SECRETS or SECRET not in str(what) for key, what in written.pairs)
    became = []
    for content, variables in ((text + written.tail, {}), ("", environ)):
        file.write_bytes(content.encode("utf-8", "replace"))
        said = ""
        try:
            load(file, variables)
        except ConfigurationError as error:
            said = str(error) or "nothing"
        assert not hidden or SECRET not in said
        assert said != "nothing"
        became.append("refused" if said else "read")
    return "as file {}, as variables {}".format(*became)


@effort(short=100, long=100_000)
def test_any_configuration_is_read_or_refused_by_name(tmp_path: Path, rounds: int) -> None:
    """Right keys with any value, wrong keys, text that is no TOML; a secret is in no message."""
    scalars = st.just(SECRET) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)
    value = (
        scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=8), scalars, max_size=2)
    )
    lines = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=12), value), max_size=4)

    def check(written: Written) -> str:
        return shows_no_secret(tmp_path, written)

    examples("configurations", rounds, st.builds(Written, lines, st.text(max_size=10)), check)
    inputs("configurations", rounds, a_configuration, check)


def test_the_harness_knows_toml() -> None:
    """What it writes for a value is that value."""
    value = {"a b": [1, "é", {"\x7f": True}], "": 0.5}
    assert tomllib.loads(f"x = {as_toml(value)}") == {"x": value}


# --- times -------------------------------------------------------------------------------------------------

CLOCK = [
    *(
        "now",
        "yesterday",
        "today",
        "ago",
        "3 days",
        "2h",
        "1w",
        "5mo",
        "1.5h",
        "an hour",
        "and",
        "last",
        "at",
    ),
    *("monday", "fri", "october", "this month", "2026-10", "2026-02-30", "2026-11-23", "12:30", "25:00", "T"),
    *("Z", "utc", "+25:00", "+05:30", "@", "-", ".5", "9999 years", "1700000000", "0001-01-01", "9999-12-31"),
]
SHAPES: Final = (
    *(
        "DDDD-DD-DD",
        "DDDD-DD-DDTDD:DD:DD.DDDZ",
        "DDDD-DD-DD DD:DD+DD:DD",
        "20DD-0D-1D",
        "20DD-1D-0DT1D:0D:2D.DDDZ",
    ),
    *(
        "20DD-0D-2D 1D:1D -0D:30",
        "D ago",
        "D days ago",
        "Dw2h",
        "DDD months ago",
        "D.DDh",
        "last friday",
        "0D:2D",
    ),
    *(
        "yesterday 1D:0D",
        "october 20DD",
        "20DD-0D",
        "17DDDDDDDD",
        "@17DDDDDDDDDDD",
        "17DDDDDDDDDDDDDDDDD",
        "DDy",
    ),
)
ZONES: Final = (
    *(dt.timezone(dt.timedelta(minutes=minutes)) for minutes in (0, 345, -1439, 1439)),
    *map(zoneinfo.ZoneInfo, ("Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Africa/Monrovia")),
)
PRESENT: Final = 1_790_000_000_000_000_000


class Moment(NamedTuple):
    """What a person wrote, where and when."""

    text: str
    end: bool = False
    zone: dt.tzinfo = ZONES[1]
    now: int = PRESENT


def a_moment(chance: Chance) -> Moment:
    way = chance.random()
    if way < 0.45:
        text = chance.choice(("", " ", " ", "  ")).join(
            chance.choice(CLOCK)
            if chance.random() < 0.8
            else "".join(chance.choices("0123456789:-T", k=chance.randrange(12)))
            for _ in range(chance.randint(1, 4))
        )
    elif way < 0.85:
        text = re.sub("D", lambda _: chance.choice(string.digits), chance.choice(SHAPES))
    else:
        text = chance.text(30)
    now = PRESENT if chance.random() < 0.8 else chance.randrange(-(2**61), 2**63)
    return Moment(text, chance.random() < 0.5, chance.choice(ZONES), now)


def is_a_time(moment: Moment) -> str:
    try:
        found = parse_time(moment.text, now=moment.now, zone=moment.zone, end=moment.end)
    except QueryError:
        return "not understood"
    assert -(2**63) <= found < 2**63
    assert parse_time(format_iso(found)) == found
    return "understood"


@effort(short=500, long=100_000)
def test_any_text_is_a_time_or_a_question_that_cannot_be_meant(rounds: int) -> None:
    """What is understood is a time that can be written and read again."""
    text = st.text(max_size=30) | st.lists(st.sampled_from(CLOCK) | st.text("0123456789:-", max_size=12)).map(
        " ".join
    )
    examples("texts read as times", rounds, st.builds(Moment, text, st.booleans()), is_a_time)
    inputs("texts read as times", rounds, a_moment, is_a_time)


# --- filters -----------------------------------------------------------------------------------------------

MARK: Final = "zqxj"
WORDS = st.text(max_size=40) | st.sampled_from(
    ["'", '"', "\\", "\0", "{p0:String}", "%", "a' OR 1=1 --", "*", "!"]
)
TEXTS: Final = tuple(name for name in Filters.__struct_fields__ if name not in ("since", "until"))
SEVERAL: Final = ("action", "outcome", "log", "completeness", "actor_ids", "customer_ids")
REAL: Final = {
    "outcome": ("success", "failure,unknown"),
    "completeness": ("full", "ids,count"),
    "log": ("audit", "*", "!pageview", "activity,audit"),
    "address": ("203.0.113.7", "203.0.113.0/24", "::1", "fe80::1%eth0"),
    "trace_id": ("ab" * 16, f"00-{'ab' * 16}-{'cd' * 8}-01"),
    "target": ("shop.Order/7", "shop.*", "shop.Order"),
    "field": ("price", "price=7", "price=null"),
}


class Question(NamedTuple):
    """Filters by name, and the place to go on from."""

    filters: dict[str, Any]
    cursor: str | None = None
    related: bool = False


def a_question(chance: Chance) -> Question:
    filters: dict[str, Any] = {}
    for name in chance.sample(TEXTS, chance.randrange(5)):
        real = name in REAL and chance.random() < 0.5
        value: Any = chance.choice(REAL[name]) if real else f"{MARK}{chance.text(40)}"
        several = name.endswith("_ids") or (name in SEVERAL and chance.random() < 0.3)
        filters[name] = [value, f"{chance.text()}{MARK}"][: chance.randint(1, 2)] if several else value
    for name in ("since", "until"):
        if chance.random() < 0.2:
            filters[name] = chance.choice((*CLOCK, chance.text(), chance.integer()))
    way = chance.random()
    cursor = None if way < 0.7 else write_cursor(chance.number(), new_record_id())
    return Question(filters, cursor if way < 0.9 else f"{cursor}{chance.text()}", chance.random() < 0.3)


def stays_out_of_the_sql(question: Question) -> str:
    try:
        sql, parameters = select(
            "otel",
            Filters(**question.filters),
            rows=10,
            cursor=question.cursor,
            related=question.related,
            now=PRESENT,
            zone=dt.UTC,
        )
    except QueryError:
        return "refused"
    assert MARK not in sql.lower()
    assert sql.isascii()
    assert set(re.findall(r"\{(p\d+):", sql)) == parameters.keys()
    # What is in quotes is of ours, and everything that is opened is closed.
    bare = re.sub(r"'[^'\\]*'|`[^`]*`", "", sql)
    assert not set("'\"`\\;#") & set(bare)
    assert "--" not in bare
    assert bare.count("(") == bare.count(")")
    if question.cursor is not None:
        read_cursor(question.cursor)
    return "made SQL"


@effort(short=300, long=100_000)
def test_no_filter_gets_into_the_sql(rounds: int) -> None:
    """Values are parameters: a statement is one of those that harmless values give."""
    marked = WORDS.map(lambda word: f"{MARK}{word}")
    given = st.dictionaries(st.sampled_from(TEXTS[:-2]), marked, max_size=4)
    examples("filters", rounds, st.builds(Question, given), stays_out_of_the_sql)
    inputs("filters", rounds, a_question, stays_out_of_the_sql)
