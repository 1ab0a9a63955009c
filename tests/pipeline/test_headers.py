"""What becomes a header of a request to the sink is checked at the start, and no message shows a value."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from otel_audit.config.environment import environment_layer
from otel_audit.config.headers import sink_header_problems, sink_headers, value_problem
from otel_audit.config.model import AuditConfig, ServerConfig, SinkConfig, StoreConfig
from otel_audit.errors import ConfigurationError
from otel_audit.pipeline import provider
from otel_audit.pipeline.delivery.drain import drain
from otel_audit.pipeline.delivery.otlp_http import Transport
from otel_audit.pipeline.endpoint import parse_endpoint
from otel_audit.store.query import AuditStore
from tests.pipeline.otlp_sink import Sink
from tests.pipeline.spooling import audit_config, make_record, target_ids

SECRET = "s3cr3t"
BAD = {
    "a line break": f"{SECRET}\r\nX-Injected: 1",
    "only a line feed": f"{SECRET}\n",
    "a euro sign": f"{SECRET}\u20ac",
    "a NUL": f"{SECRET}\0",
    "a delete": f"{SECRET}\x7f",
    "a next-line": f"{SECRET}\x85",
    "half of a pair": f"{SECRET}\ud800",
    "a blank before": f" {SECRET}",
    "a blank behind": f"{SECRET}\t",
    "a no-break space behind": f"{SECRET}\xa0",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("where", ["token", "header"])
def test_what_no_header_can_carry_is_said_at_the_start_by_its_key(
    spool_directory: Path, sink: Sink, caplog: pytest.LogCaptureFixture, kind: str, where: str
) -> None:
    """Records go on, without that header; the value is in no log line."""
    given = {"sink_token": BAD[kind]} if where == "token" else {"sink_headers": {"x-team": BAD[kind]}}
    with caplog.at_level(logging.DEBUG):
        pipeline = provider.start(audit_config(spool_directory, sink.url, **given))
        pipeline.logger.emit(make_record(pipeline, 1))
        assert pipeline.flush(20)
        provider.stop()
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert ("sink.token (OTEL_AUDIT_SINK_TOKEN)" if where == "token" else "'x-team'") in line
    assert SECRET not in caplog.text
    assert target_ids(sink.records) == ["1"]
    assert not {"authorization", "x-team", "x-injected"} & {name.lower() for name in sink.headers[0]}


@pytest.mark.parametrize("kind", BAD)
def test_fail_closed_refuses_to_start_with_it(spool_directory: Path, kind: str) -> None:
    """So does everything that asks once and ends."""
    config = audit_config(spool_directory, on_error="fail_closed", sink_token=BAD[kind])
    for start in (lambda: provider.start(config), lambda: drain(spool_directory, config)):
        with pytest.raises(ConfigurationError, match=r"sink\.token \(OTEL_AUDIT_SINK_TOKEN\)") as caught:
            start()
        assert SECRET not in str(caught.value)
    assert provider.current() is None
    with pytest.raises(ConfigurationError, match=r"store\.token \(OTEL_AUDIT_STORE_TOKEN\)") as caught:
        AuditStore(StoreConfig(token=BAD[kind]))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["x a:", "", "x\r\ny", "z\u00fcrich", f"authorization: {SECRET}", "Content-Length"]
)
def test_a_name_that_is_none_is_not_sent(name: str) -> None:
    """Nor one that would break the request; a secret written as a name is not shown."""
    config = SinkConfig(headers={"x-first": "1", name: "2"})
    [problem] = sink_header_problems(config)
    assert "sink.headers" in problem
    assert SECRET not in problem
    assert sink_headers(config) == {"x-first": "1"}


@pytest.mark.parametrize("value", ["", "abc", "a b", "a\tb", "Zürich", "x" * 5000, "a,b=c;d", "%41"])
def test_what_http_carries_passes(sink: Sink, value: str) -> None:
    assert value_problem(value) == ""
    transport = Transport(SinkConfig(endpoint=sink.url, headers={"x-team": value}))
    transport.send(b"")
    transport.close()
    assert sink.headers[0]["x-team"] == value


def test_the_token_wins_over_a_header_of_that_name(sink: Sink) -> None:
    """In any spelling: two of them would be one too many."""
    config = SinkConfig(endpoint=sink.url, token="t", headers={"authorization": "Basic x"})
    Transport(config).send(b"")
    assert [v for k, v in sink.headers[0].items() if k.lower() == "authorization"] == ["Bearer t"]


def test_headers_of_the_environment_are_percent_encoded() -> None:
    """As those of OTEL_EXPORTER_OTLP_HEADERS; what stands in a file is as it is written."""
    text = "x-team=a%2Cb%20, x-plus=a+b,x-equals=a=b==,authorization=Basic%20eA==,x-percent=100%"
    layer, problems = environment_layer({"OTEL_AUDIT_SINK_HEADERS": text})
    assert problems == []
    assert layer.values["sink"]["headers"] == {
        "x-team": "a,b ",
        "x-plus": "a+b",
        "x-equals": "a=b==",
        "authorization": "Basic eA==",
        "x-percent": "100%",
    }
    layer, _ = environment_layer({"OTEL_AUDIT_SINK_HEADERS": '{"x-team": "a%2Cb"}'})
    assert layer.values["sink"]["headers"] == {"x-team": "a%2Cb"}
    layer, _ = environment_layer({"OTEL_AUDIT_SINK_HEADERS": "x-team=a%0D%0Ab"})
    assert list(sink_header_problems(SinkConfig(headers=layer.values["sink"]["headers"])))


def test_a_configuration_shows_no_secret() -> None:
    """Its representation ends in tracebacks."""
    config = AuditConfig(
        sink=SinkConfig(token=SECRET, headers={"x": SECRET}),
        store=StoreConfig(token=SECRET, password=SECRET, user="me"),
        server=ServerConfig(token=SECRET),
    )
    assert SECRET not in repr(config)
    assert SECRET not in f"{config.sink}"
    assert "user='me'" in repr(config)
    assert "[hidden]" in repr(config.store)
    assert "token=''" in repr(SinkConfig())


def test_credentials_in_the_address_are_in_no_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_endpoint(SinkConfig(endpoint=f"ftp://me:{SECRET}@sink/"))
    assert SECRET not in str(caught.value)
    answer = Transport(SinkConfig(endpoint=f"http://me:{SECRET}@127.0.0.1:9/v1/audit?key={SECRET}")).send(b"")
    assert SECRET not in answer.reason
    assert "http://127.0.0.1:9/v1/audit" in answer.reason
