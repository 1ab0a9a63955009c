"""A real ``otel-audit serve`` with records in it, for tests that ask the trail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Database,
    Origin,
    Request,
    Sequence,
    Source,
    Target,
    new_record_id,
)
from otel_audit.semconv import to_attributes
from otel_audit.store.client import StoreClient
from otel_audit.store.schema import TRACES, landing

COMMAND = (sys.executable, "-c", "from otel_audit.cli import main; main()")
START_SECONDS = 60
DRIVER = {"Content-Type": "application/octet-stream"}
"""What a client sends that is no page in a browser: rows without it need a token."""


class Serving(NamedTuple):
    """Where a server of ours listens."""

    http: str
    grpc: str
    clickhouse: str
    pid: int


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without what would configure us or OpenTelemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    return kept | variables


@contextlib.contextmanager
def serving(directory: Path, *options: str, makes_token: bool = False, **variables: str) -> Iterator[Serving]:
    """Run ``otel-audit serve`` on free ports over ``directory``; stop it as a user would.

    It answers without a token, for tests that speak HTTP themselves, unless it has one or ``makes_token``.
    """
    if not makes_token and not any(name.endswith("_TOKEN") for name in variables):
        options = ("--no-token", *options)
    ports = [text for name in ("http", "grpc", "clickhouse") for text in (f"--{name}-port", "0")]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data", str(directory / "data"), "--no-fsync", *ports, *options],
        cwd=directory,
        env=clean_environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    said = ""
    try:
        while "queries" not in said:
            line = process.stderr.readline()
            assert line, f"otel-audit serve ended: {said}"
            said += line
        timer.cancel()
        found = {
            name: match.group(1)
            for name, match in (
                (name, re.search(rf"{name}\s+(\S+)", said))
                for name in ("OTLP over HTTP", "OTLP over gRPC", "queries")
            )
            if match
        }
        yield Serving(found["OTLP over HTTP"], found["OTLP over gRPC"], found["queries"], process.pid)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=START_SECONDS)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
long_text = st.builds(lambda part, times: part * times, text, st.sampled_from([1, 30, 3000]))
named = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.integers(0, 2**63 - 1)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
known_or_not = values | st.just(msgspec.UNSET)
arrays = st.lists(values, max_size=4) | st.just(msgspec.UNSET)
records = st.builds(
    AuditRecord,
    id=named,
    timestamp=numbers,
    observed_timestamp=numbers,
    event_name=named,
    action=named,
    outcome=st.sampled_from(["success", "failure", "unknown"]),
    log=named,
    actor=st.builds(
        Actor,
        id=named,
        type=st.sampled_from(["user", "service", "system", "unknown"]),
        name=text,
        on_behalf_of=text,
        on_behalf_of_name=text,
        roles=text,
    ),
    target=st.none() | st.builds(Target, type=named, id=text),
    source=st.builds(Source, id=text, type=text, user_agent=long_text, session=text),
    request=st.builds(Request, id=text, method=text, route=text, path=text, view=text, parent=text),
    origin=st.none() | st.builds(Origin, actor=named, name=text, request=text),
    database=st.builds(
        Database,
        system=text,
        namespace=text,
        table=text,
        transaction=text,
        address=text,
        port=st.integers(0, 65535),
    ),
    changes=st.lists(
        st.builds(Change, field=named, old=known_or_not, new=known_or_not, type=text), max_size=3
    ),
    image=st.dictionaries(text, values, max_size=3),
    bulk=st.none()
    | st.builds(
        Bulk,
        count=numbers,
        keys=st.lists(text, max_size=3),
        columns=st.lists(st.builds(Column, field=named, old=arrays, new=arrays, type=text), max_size=2),
        id=text,
        part=st.integers(1, 9),
        parts=st.integers(1, 9),
    ),
    fields=st.lists(text, max_size=3),
    completeness=st.sampled_from(["full", "ids", "count", "statement"]),
    old_values=st.sampled_from([None, "as_loaded", "exact"]),
    message=text,
    reason=text,
    tenant=text,
    system=text,
    event_type=text,
    event_code=text,
    slug=text,
    error=text,
    code=text,
    related=st.lists(st.builds(Target, type=named, id=text), max_size=2),
    attributes=st.dictionaries(text, values, max_size=3),
    truncated=st.booleans(),
    trace_id=text,
    span_id=text,
    sequence=st.none()
    | st.builds(
        Sequence,
        stream=named,
        number=st.integers(1, 2**63 - 1),
        previous_hash=text,
        previous_record=text,
        end=st.booleans(),
    ),
)
"""Any record there may be."""


def sent(record: AuditRecord) -> AuditRecord:
    """Return a record the id, time and trace of one that is really sent."""
    return msgspec.structs.replace(
        record,
        id=new_record_id(),
        timestamp=max(record.timestamp, 1),  # 0 is how OTLP says that there is none
        observed_timestamp=max(record.observed_timestamp, 1),
        trace_id="ab" * 16,
        span_id="cd" * 8,
    )


def record(event_name: str, action: str, *, at: int, **values: Any) -> AuditRecord:
    """Make a record whose id fits its time."""
    values.setdefault("id", new_record_id(at))
    return AuditRecord(timestamp=at, observed_timestamp=at, event_name=event_name, action=action, **values)


def exported(record: AuditRecord) -> dict[str, str]:
    """Return the attributes of a record as the Collector's ClickHouse exporter writes them: all text."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in to_attributes(record).items()
    }


def land(
    client: StoreClient,
    records: Iterable[AuditRecord],
    *,
    service: str = "shop",
    attributes: Iterable[Mapping[str, str]] | None = None,
) -> None:
    """Insert records as a Collector does: routed by their log, every attribute as text.

    ``attributes`` are others than those of the records, one mapping for each.
    """
    records = list(records)
    rows: dict[str, list[dict[str, Any]]] = {}
    for each, given in zip(records, attributes or map(exported, records), strict=True):
        rows.setdefault(landing(each.log), []).append(
            {
                "Timestamp": f"{each.timestamp // 10**9}.{each.timestamp % 10**9:09d}",
                "TraceId": each.trace_id,
                "SpanId": each.span_id,
                "ServiceName": service,
                "Body": each.message,
                "LogAttributes": given,
                "ResourceAttributes": {"service.name": service, "host.name": "web-1"},
                "EventName": each.event_name,
            }
        )
    for table, landed in rows.items():
        client.insert(table, landed)


def land_span(client: StoreClient, **values: Any) -> None:
    """Insert one span, given by the columns of the exporter."""
    client.insert(TRACES, [values])
