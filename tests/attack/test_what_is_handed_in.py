"""Whatever a client, a file or a person hands in: an answer of the kind that is documented, or its error."""

from __future__ import annotations

import contextlib
import datetime as dt
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit.audit_record import AuditRecord
from otel_audit.config.catalog import settings
from otel_audit.config.loader import load
from otel_audit.errors import ConfigurationError, QueryError
from otel_audit.pipeline.delivery import otlp_encoding
from otel_audit.pipeline.spool.frames import decode_record, encode_record
from otel_audit.server.bodies import Malformed
from otel_audit.server.otlp.messages import checked
from otel_audit.server.otlp.rows import log_rows
from otel_audit.store.filters import Filters, select
from otel_audit.store.times import parse_time
from tests.attack.effort import effort, examples
from tests.pipeline.otlp_sink import rebuild
from tests.trail import records, sent

SECRET = "s3cr3t-value"
WORDS = st.text(max_size=40) | st.sampled_from(
    ["'", '"', "\\", "\0", "{p0:String}", "%", "a' OR 1=1 --", "*", "!"]
)


@effort(short=200, long=100_000)
def test_a_record_comes_back_from_spool_and_wire(rounds: int) -> None:
    def check(record: AuditRecord) -> None:
        assert decode_record(encode_record(record)) == record
        assert rebuild(LogRecord.FromString(otlp_encoding.log_record(record))) == record

    examples("records from spool and wire", rounds, records.map(sent), check)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An OTLP request with bytes changed, taken out or put in, or any bytes at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    many = draw(st.lists(records.map(sent), min_size=1, max_size=2))
    body = bytearray(
        otlp_encoding.export_request(
            {"service.name": "shop"}, [otlp_encoding.log_record(one) for one in many]
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(body)))
        body[begin : begin + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(body)


@effort(short=200, long=100_000)
def test_any_body_of_an_otlp_request_is_rows_or_malformed(rounds: int) -> None:
    def check(body: bytes) -> None:
        for content_type in ("application/x-protobuf", "application/json"):
            try:
                request = checked(body, "logs", content_type)
            except Malformed:
                continue
            log_rows(request)

    examples("bodies of OTLP requests decoded", rounds, bodies(), check)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return msgspec.json.encode(value).decode()


@effort(short=100, long=100_000)
def test_any_configuration_is_read_or_refused_by_name(tmp_path: Path, rounds: int) -> None:
    """Right keys with any value, wrong keys, text that is no TOML; a secret is in no message."""
    names = sorted(settings())
    scalars = (
        st.none().map(lambda _: SECRET)
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(max_size=20)
    )
    value = (
        scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=8), scalars, max_size=2)
    )
    lines = st.lists(st.tuples(st.sampled_from(names) | st.text(max_size=12), value), max_size=4)
    file = tmp_path / "otel-audit.toml"

    def check(given: tuple[list[tuple[str, Any]], str]) -> None:
        pairs, tail = given
        text = "\n".join(f"{key if key in names else _toml(key)} = {_toml(what)}" for key, what in pairs)
        environ = {
            f"OTEL_AUDIT_{key.upper().replace('.', '_')}": str(what).replace("\0", "") for key, what in pairs
        }
        secret = [key for key, what in pairs if SECRET in str(what)]
        for content, variables in ((text + tail, {}), ("", environ)):
            file.write_bytes(content.encode("utf-8", "replace"))
            said = ""
            try:
                load(file, variables)
            except ConfigurationError as error:
                said = str(error)
            if all(key.endswith(("token", "password", "hmac_key")) for key in secret):
                assert SECRET not in said

    examples("configurations read", rounds, st.tuples(lines, st.text(max_size=10)), check)


CLOCK = [
    "now",
    "yesterday",
    "today",
    "ago",
    "3 days",
    "2h",
    "monday",
    "12:30",
    "2026-02-30",
    "T",
    "Z",
    "+25:00",
    "@",
]


@effort(short=500, long=100_000)
def test_any_text_is_a_time_or_a_question_that_cannot_be_meant(rounds: int) -> None:
    text = st.text(max_size=30) | st.lists(st.sampled_from(CLOCK) | st.text("0123456789:-", max_size=12)).map(
        " ".join
    )
    zone = dt.timezone(dt.timedelta(hours=5, minutes=45))

    def check(given: tuple[str, bool]) -> None:
        with contextlib.suppress(QueryError):
            moment = parse_time(given[0], now=1_790_000_000_000_000_000, zone=zone, end=given[1])
            assert -(2**63) <= moment < 2**63

    examples("texts read as times", rounds, st.tuples(text, st.booleans()), check)


@effort(short=300, long=100_000)
def test_no_filter_gets_into_the_sql(rounds: int) -> None:
    """Values are parameters: a statement is one of those that harmless values give."""
    names = (
        "actor",
        "target",
        "action",
        "outcome",
        "field",
        "trace_id",
        "request_id",
        "text",
        "log",
        "tenant",
    )
    mark = "zqxj"

    def check(given: dict[str, str]) -> None:
        filters = Filters(**{name: f"{mark}{value}" for name, value in given.items()})
        try:
            statement = select("otel", filters, rows=10, cursor=None)
        except QueryError:
            return
        assert mark not in statement.sql.lower()

    examples("filters made SQL", rounds, st.dictionaries(st.sampled_from(names), WORDS, max_size=4), check)


def test_the_harness_knows_toml() -> None:
    """What it writes for a value is that value."""
    assert tomllib.loads(f"x = {_toml({'a b': [1, 'é']})}") == {"x": {"a b": [1, "é"]}}
