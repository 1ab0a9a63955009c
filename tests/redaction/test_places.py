"""Attributes that show headers, queries, bodies or arguments are redacted by the rules of that place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Request, Source, new_record_id
from otel_audit.config import load
from otel_audit.config.model import AuditConfig, PlaceRules, RedactionConfig
from otel_audit.errors import ConfigurationError
from otel_audit.http.contents import Contents
from otel_audit.redaction import Redactor

MASK = "[redacted]"


def record(attributes: dict[str, Any]) -> AuditRecord:
    return AuditRecord(
        id=new_record_id(1),
        timestamp=1,
        observed_timestamp=1,
        event_name="http.server.request",
        action="REQUEST",
        outcome="success",
        actor=Actor("1"),
        source=Source(),
        request=Request(),
        attributes=attributes,
    )


def test_each_place_has_rules_of_its_own_beside_the_global_ones() -> None:
    redaction = RedactionConfig(
        names=["everywhere"],
        headers=PlaceRules(allow=["x-api-key"]),
        queries=PlaceRules(names=["q"], values=[r"KD-\d+"]),
        bodies=PlaceRules(names=["diary"], allow=["token"]),
        arguments=PlaceRules(names=["customer"], allow=["password"]),
    )
    shown = Redactor(redaction).record(
        record(
            {
                "http.request.header.x-api-key": "a",
                "http.request.header.cookie": "b",
                "http.response.header.everywhere": "c",
                "url.query": "q=tea&id=KD-7&token=d",
                "request.body": {"diary": "e", "token": "f", "password": "g", "everywhere": "h"},
                "response.body": {"diary": "e"},
                "arguments": ["--customer", "ann", "--password", "i"],
                "diary": "j",
                "token": "k",
                "customer": "KD-7",
            }
        )
    )
    assert shown.attributes == {
        "http.request.header.x-api-key": "a",
        "http.request.header.cookie": MASK,
        "http.response.header.everywhere": MASK,
        "url.query": f"q={MASK}&id={MASK}&token={MASK}",
        "request.body": {"diary": MASK, "token": "f", "password": MASK, "everywhere": MASK},
        "response.body": {"diary": MASK},
        "arguments": ["--customer", MASK, "--password", "i"],
        "diary": "j",
        "token": MASK,
        "customer": "KD-7",
    }


def test_the_rules_of_a_place_take_precedence() -> None:
    redaction = RedactionConfig(
        names=["a"],
        allow=["b"],
        bodies=PlaceRules(names=["b"], allow=["a", "c"]),
        headers=PlaceRules(names=["c"]),
    )
    redactor = Redactor(redaction)
    given = {"a": "1", "b": "2", "c": "3"}
    assert redactor.at("bodies").mapping(given) == {"a": "1", "b": MASK, "c": "3"}
    assert redactor.at("headers").mapping(given) == {"a": MASK, "b": "2", "c": MASK}
    assert redactor.at("queries").mapping(given) == {"a": MASK, "b": "2", "c": "3"}
    assert redactor.mapping(given) == {"a": MASK, "b": "2", "c": "3"}


def test_a_place_without_rules_is_everywhere() -> None:
    redactor = Redactor(RedactionConfig())
    assert redactor.at("bodies") is redactor


@pytest.mark.parametrize(
    "redaction", [RedactionConfig(), RedactionConfig(bodies=PlaceRules(allow=["token"]))]
)
def test_what_was_shown_by_contents_stays_as_it_is(redaction: RedactionConfig) -> None:
    contents = Contents.of(AuditConfig(redaction=redaction))
    body = contents.body(b'{"token": "a", "password": "b", "n": [{"pin": "1"}]}', "application/json", 1000)
    attributes = {
        **body.attributes("request"),
        "arguments": contents.arguments(["--password", "x", "--token=y", "a"]),
        "url.query": contents.query("token=a&b=c"),
        "http.request.header.cookie": contents.headers({"Cookie": "a=b"})["cookie"],
    }
    assert Redactor(redaction).record(record(dict(attributes))).attributes == attributes


def test_a_record_whose_secrets_are_gone_is_the_same_object() -> None:
    made = record({"request.body": {"password": MASK, "n": [{"token": MASK, "a": 1}]}, "token": MASK})
    redactor = Redactor(RedactionConfig())
    assert redactor.record(made) is made
    assert redactor.are_clean([], [made.attributes], [], {})


def loaded(tmp_path: Path, text: str) -> AuditConfig:
    path = tmp_path / "otel-audit.toml"
    path.write_text(text, "utf-8")
    return load(path, environ={}).config


def test_places_are_tables_within_redaction(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
        [redaction]
        names = ["sesame"]
        [redaction.headers]
        allow = ["x-api-key"]
        [redaction.bodies]
        names = ["diary"]
        """,
    )
    assert config.redaction.headers.allow == ["x-api-key"]
    assert config.redaction.bodies.names == ["diary"]
    environ = {"OTEL_AUDIT_REDACTION_QUERIES_NAMES": "q,search"}
    assert load(environ=environ).config.redaction.queries.names == ["q", "search"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[redaction.header]\nnames = ['a']",
            r"toml:1: unknown key 'header' in \[redaction\]; did you mean 'headers'",
        ),
        (
            "[redaction.headers]\nname = ['a']",
            r"toml:2: unknown key 'name' in \[redaction.headers\]; did you mean 'names'",
        ),
        ("[redaction]\nbodies = ['a']", r"toml:2: redaction.bodies is a table: write \[redaction.bodies\]"),
        ("[redaction.bodies]\nnames = 'a'", r"toml:2: redaction.bodies.names: 'a' is not a list of strings"),
        (
            "[redaction.bodies]\nnames = ['(']",
            r"toml:2: redaction.bodies.names: '\(' is not a regular expression",
        ),
        ("['redaction.bodies']\nnames = ['a']", "unknown key 'redaction.bodies' at the top level"),
    ],
)
def test_mistakes_in_a_place_are_told_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        loaded(tmp_path, text)


def test_an_expression_of_a_place_that_can_take_exponential_time_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"redaction\.bodies\.values\[0\] can take exponential time"):
        Redactor(RedactionConfig(bodies=PlaceRules(values=[r"(a+)+b"])))
    with pytest.raises(
        ConfigurationError, match=r"redaction\.headers\.names\[0\] is not a regular expression"
    ):
        Redactor(RedactionConfig(headers=PlaceRules(names=["("])))
