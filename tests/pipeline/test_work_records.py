"""The record of a request, a call or a task: it is made in a quick way, and is what the general way makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from otel_audit.audit_context import ContextFields, enter_scope, leave_scope, moment
from otel_audit.audit_record import Actor, AuditRecord, Origin, Request, Source, Target, new_record_id
from otel_audit.config.model import PlaceRules, RedactionConfig
from otel_audit.interruptions import faults
from otel_audit.pipeline import work_records
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.record_heads import EncodedRecord
from otel_audit.pipeline.spool.frames import decode_record
from tests.hostile_values import anything
from tests.pipeline.spooling import audit_config, spooled_records

NOW = 1_700_000_000_123_456_789
TRACER = TracerProvider().get_tracer("tests")
SECRETS = ["password=hunter2", "4111 1111 1111 1111", "Bearer abcdefghijklmnop", "a\ud800b", "x" * 70_000]
TEXTS = st.one_of(*[st.text(max_size=6)] * 8, st.just(""), st.sampled_from(SECRETS), anything)
IDS = st.one_of(st.builds(new_record_id), TEXTS)
TARGETS = st.builds(Target, st.one_of(st.sampled_from(["http.route", "django.token"]), TEXTS), TEXTS)
SAID = st.builds(
    ContextFields,
    actor=st.one_of(
        st.builds(
            Actor, TEXTS, st.sampled_from(["user", "user", "service", "robot", 1]), TEXTS, TEXTS, TEXTS, TEXTS
        ),
        st.just(Actor()),
        anything,
    ),
    source=st.one_of(st.builds(Source, TEXTS, TEXTS, TEXTS, TEXTS), st.just(Source())),
    request=st.one_of(st.builds(Request, IDS, TEXTS, TEXTS, TEXTS, TEXTS, IDS), st.just(Request())),
    tenant=TEXTS,
    reason=TEXTS,
    system=TEXTS,
    slug=TEXTS,
    related=st.sampled_from([(), (), (), (Target("shop.Order", "7"),)]),
    attributes=st.sampled_from([{}, {}, {}, {"flag": 1}]),
    truncated=st.sampled_from([False, False, False, True]),
    origin=st.one_of(st.none(), st.builds(Origin, TEXTS, TEXTS, TEXTS)),
)
NAMES = st.one_of(
    st.sampled_from(
        ["server.address", "server.port", "url.query", "http.request.header.x", "password", "seen"]
    ),
    st.text(max_size=6),
)
VALUES = st.one_of(
    TEXTS, st.integers(), st.booleans(), st.none(), st.floats(), st.lists(st.text(), max_size=2), anything
)
SHOWN = st.dictionaries(
    NAMES, st.one_of(st.text(max_size=9), st.integers(0, 10**6), st.lists(st.text(), max_size=3)), max_size=4
)
WORK = st.fixed_dictionaries(
    {"target": TARGETS},
    optional={
        "outcome": st.sampled_from(["success", "failure", "unknown", "perhaps"]),
        "log": st.sampled_from(["activity", "pageview", "audit", ""]),
        "error": TEXTS,
        "related": st.sampled_from([(), (), (), [Target("shop.Order", "7")]]),
        "attributes": st.one_of(
            st.dictionaries(NAMES, VALUES, max_size=4),
            st.just({f"name{number}": number for number in range(40)}),
        ),
        "shown": SHOWN,
        "record_id": st.builds(new_record_id),
        "event_type": TEXTS,
        "event_code": TEXTS,
        "slug": TEXTS,
        "system": TEXTS,
        "truncated": st.sampled_from([False, False, False, True]),
    },
)
USUAL: dict[str, Any] = {
    "target": Target("http.route", "orders/<int:pk>/"),
    "attributes": {"server.address": "shop.example", "server.port": 8000},
    "shown": {"http.server.request.duration": 0.5, "http.request.body": {"rows": [1, "a"]}},
    "record_id": new_record_id(),
}
REQUEST = ContextFields(
    Actor("7", "user", "ana"),
    Source("192.0.2.1", "ipv4", "curl/8", "sha256:0123456789abcdef"),
    Request(new_record_id(), "POST", "orders/<int:pk>/", "/orders/7/", "shop.views.order", new_record_id()),
)


class WorkScope:
    """A scope that says what it was given."""

    def __init__(self, said: ContextFields) -> None:
        self._said = said

    def fields(self) -> ContextFields:
        return self._said


class MadeWork(NamedTuple):
    """The bytes of a record of work, or what making it raised."""

    payloads: list[bytes]
    raised: str
    is_quick: bool


def _made(logger: AuditLogger, work: dict[str, Any], *, quickly: bool) -> MadeWork:
    make: Any = logger.work if quickly else logger.record
    try:
        made = make("http.server.request", "REQUEST", **{"log": "activity"} | work)
        return MadeWork(logger._encode([made]), "", type(made) is EncodedRecord)
    except faults() as error:
        return MadeWork([], repr(error), False)


def both_ways(
    logger: AuditLogger, work: dict[str, Any], said: ContextFields = REQUEST, tenant: str | None = ""
) -> MadeWork:
    """Make a record in both ways at the same moment, with the same ids."""
    token = enter_scope(WorkScope(said))
    try:
        with ExitStack() as stack:
            stack.enter_context(TRACER.start_as_current_span("work"))
            stack.enter_context(patch("time.time_ns", lambda: NOW + 7))
            for place in ("logger", "work_records"):
                stack.enter_context(patch(f"otel_audit.pipeline.{place}.new_record_id", lambda *_: "01" * 18))
            work = {**work, "at": msgspec.structs.replace(moment(), time=NOW, tenant=tenant)}
            general = _made(logger, work, quickly=False)
            made = _made(logger, work, quickly=True)
    finally:
        leave_scope(token)
    assert made[:2] == general[:2]
    return made


def known(pipeline: AuditPipeline) -> AuditPipeline:
    """The names of an event are looked at when the first of its kind is made."""
    both_ways(pipeline.logger, USUAL)
    return pipeline


@pytest.fixture(scope="module", params=["usual", "keyed", "places"])
def configured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AuditPipeline]:
    redaction = {
        "usual": RedactionConfig(),
        "keyed": RedactionConfig(hmac_key="k" * 32, names=["^seen$", "^route$"]),
        "places": RedactionConfig(headers=PlaceRules(names=["x"]), queries=PlaceRules(allow=["password"])),
    }[request.param]
    config = audit_config(tmp_path_factory.mktemp("work"), redaction=redaction, tenant="acme", system="shop")
    pipeline = AuditPipeline(config, ship=False)
    yield known(pipeline)
    pipeline.shutdown(0)


# --- the same bytes ------------------------------------------------------------------------------


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(said=SAID, tenant=st.sampled_from(["", "a", None]), work=WORK)
def test_whatever_is_said_of_work_the_bytes_are_those_of_the_general_way(
    configured: AuditPipeline, said: ContextFields, tenant: str | None, work: dict[str, Any]
) -> None:
    """Texts and values of any type, secrets, contexts that are broken: the same record, or the same error."""
    both_ways(configured.logger, work, said, tenant)


@pytest.mark.parametrize("name", ["slug", "reason", "system", "tenant"])
@pytest.mark.parametrize("value", [None, 0, False, b""])
def test_what_is_no_text_is_not_taken_for_an_empty_one(
    configured: AuditPipeline, name: str, value: Any
) -> None:
    both_ways(configured.logger, USUAL, msgspec.structs.replace(REQUEST, **{name: value}))


@pytest.mark.parametrize("name", ["slug", "event_type", "event_code", "system", "error"])
@pytest.mark.parametrize("value", [None, 0, False, b""])
def test_what_is_said_of_the_work_and_no_text_is_not_taken_for_an_empty_one(
    configured: AuditPipeline, name: str, value: Any
) -> None:
    both_ways(configured.logger, {**USUAL, name: value})


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    said=st.builds(
        ContextFields,
        actor=st.builds(Actor, st.text(min_size=1, max_size=5), st.just("user"), st.text(max_size=5)),
        request=st.builds(Request, st.builds(new_record_id), *[st.text(max_size=5)] * 4),
        origin=st.one_of(st.none(), st.builds(Origin, st.text(max_size=3))),
        slug=st.text(max_size=4),
    ),
    shown=SHOWN,
    slug=st.text(max_size=4),
    error=st.text(max_size=4),
    outcome=st.sampled_from(["success", "failure", "unknown"]),
)
def test_whatever_usual_work_says_the_bytes_are_those_of_the_general_way(
    configured: AuditPipeline, said: ContextFields, shown: dict[str, Any], slug: str, error: str, outcome: str
) -> None:
    """Most of these go the quick way."""
    both_ways(
        configured.logger, {**USUAL, "shown": shown, "slug": slug, "error": error, "outcome": outcome}, said
    )


# --- made quickly --------------------------------------------------------------------------------


def test_the_record_of_a_usual_request_is_made_quickly(pipeline: AuditPipeline) -> None:
    """With a body that has been redacted, with an origin and a failure as well."""
    logger = known(pipeline).logger
    for said in (REQUEST, msgspec.structs.replace(REQUEST, origin=Origin("8", "bob", "r"), reason="why")):
        for work in (USUAL, {**USUAL, "outcome": "failure", "error": "500", "slug": "pay", "system": "s"}):
            made = both_ways(logger, work, said)
            assert made.is_quick
            [record] = map(decode_record, made.payloads)
            assert (record.actor, record.request, record.source) == (said.actor, said.request, said.source)
            assert record.attributes == {**work["attributes"], **work["shown"]}
            assert (record.origin, record.error) == (said.origin, work.get("error", ""))


@pytest.mark.parametrize("setting", ["hooks", "values"])
def test_hooks_and_own_patterns_see_the_record_of_work(spool_directory: Path, setting: str) -> None:
    """It is made in the general way."""
    values = ["x[0-9]+"] if setting == "values" else []
    seen: list[AuditRecord] = []

    def hook(record: AuditRecord) -> AuditRecord:
        seen.append(record)
        return record

    config = audit_config(spool_directory, redaction=RedactionConfig(values=values))
    pipeline = known(AuditPipeline(config, hooks=[hook] if setting == "hooks" else (), ship=False))
    before = len(seen)
    assert not both_ways(pipeline.logger, USUAL).is_quick
    assert len(seen) - before == (2 if setting == "hooks" else 0)
    pipeline.shutdown(0)


@pytest.mark.parametrize(
    "said",
    [
        msgspec.structs.replace(REQUEST, reason="password=hunter2"),
        msgspec.structs.replace(REQUEST, slug="password=hunter2"),
        msgspec.structs.replace(REQUEST, source=Source("192.0.2.1", "ipv4", "password=hunter2")),
        msgspec.structs.replace(REQUEST, request=Request(path="/?password=hunter2")),
        msgspec.structs.replace(REQUEST, request=Request("password=hunter2")),
        msgspec.structs.replace(REQUEST, origin=Origin("8", "password=hunter2")),
        msgspec.structs.replace(REQUEST, actor=Actor("8", "user", "password=hunter2")),
    ],
)
def test_a_secret_said_of_work_is_removed_before_it_is_on_disk(
    pipeline: AuditPipeline, spool_directory: Path, said: ContextFields
) -> None:
    """Wherever it stands (G5)."""
    logger = known(pipeline).logger
    token = enter_scope(WorkScope(said))
    try:
        logger.keep([logger.work("http.server.request", "REQUEST", at=moment(), **USUAL)])
    finally:
        leave_scope(token)
    assert all(b"hunter2" not in path.read_bytes() for path in spool_directory.rglob("*") if path.is_file())
    assert len(spooled_records(spool_directory)) == 1


def test_the_record_of_work_with_long_bodies_is_held_to_its_limits(pipeline: AuditPipeline) -> None:
    """In the general way."""
    made = both_ways(known(pipeline).logger, {**USUAL, "shown": {"http.request.body": "a word " * 100_000}})
    assert not made.is_quick
    assert decode_record(made.payloads[0]).truncated


def test_a_fault_in_the_quick_way_costs_no_record_of_work(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Nor any detail: the record is made in the general way."""
    logger = known(pipeline).logger
    with patch.object(work_records, "encode_record", side_effect=RuntimeError("broken")):
        logger.keep([logger.work("http.server.request", "REQUEST", at=moment(), **USUAL)])
    [record] = spooled_records(spool_directory)
    assert record.attributes == {**USUAL["attributes"], **USUAL["shown"]}
