"""TLS, and two tiers: agents that forward to gateways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.collector import certificates
from tests.collector.running import TOKEN, Application, Collector, Trail, delivered, kill, mirrored_ids
from tests.e2e.running import Store, eventually

GATEWAY_TOKEN = "token-of-the-gateway"


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    """What is started by a test and killed at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def store(tmp_path: Path, parts: ExitStack) -> Store:
    made = Store(tmp_path)
    parts.callback(kill, made)
    made.start()
    return made


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Certificates:
    return certificates.make(tmp_path)


@pytest.fixture
def gateway(
    tmp_path: Path, store: Store, authority: certificates.Certificates, parts: ExitStack
) -> Collector:
    """A gateway that shows a certificate and takes a token of its own."""
    made = Collector(
        tmp_path,
        store.url,
        ["config.yaml", "profiles/tls.yaml", "profiles/gateway.yaml"],
        {
            "OTELCOL_AUDIT_TOKEN": GATEWAY_TOKEN,
            "OTELCOL_TLS_CERT_FILE": str(authority.certificate),
            "OTELCOL_TLS_KEY_FILE": str(authority.key),
        },
        name="gateway",
    )
    parts.callback(kill, made)
    made.start()
    return made


@pytest.fixture
def agent(
    tmp_path: Path, gateway: Collector, authority: certificates.Certificates, parts: ExitStack
) -> Collector:
    """An agent in front of the gateway, with the mirror an agent always has."""
    made = Collector(
        tmp_path,
        configs=["profiles/agent.yaml", "profiles/mirror.yaml"],
        environment={
            "OTELCOL_GATEWAY_URL": gateway.base,
            "OTELCOL_GATEWAY_TELEMETRY_URL": gateway.otlp,
            "OTELCOL_GATEWAY_TOKEN": GATEWAY_TOKEN,
            "OTELCOL_GATEWAY_CA_FILE": str(authority.authority),
        },
        name="agent",
    )
    parts.callback(kill, made)
    return made


@pytest.fixture
def application(tmp_path: Path, agent: Collector, parts: ExitStack) -> Application:
    made = Application(tmp_path, agent.sink)
    parts.callback(kill, made)
    return made


def test_a_sender_that_knows_the_authority_speaks_tls(
    tmp_path: Path, store: Store, gateway: Collector, authority: certificates.Certificates, parts: ExitStack
) -> None:
    """With ``sink.ca_file``; without it nothing is sent, nothing is lost, and doctor says what to set."""
    sender = Application(
        tmp_path,
        gateway.sink,
        environment={
            "OTEL_AUDIT_SINK_TOKEN": GATEWAY_TOKEN,
            "OTEL_AUDIT_SINK_SHUTDOWN_TIMEOUT": "0.2",
        },
    )
    parts.callback(kill, sender)
    sender.start(rate=50)
    eventually(lambda: len(sender.told().ids) > 50, "it records")
    sender.stop()
    assert sender.waiting() >= 50
    finding = sender.doctor()["sink"]
    assert finding["state"] == "bad"
    assert "sink.ca_file" in finding["advice"]

    sender.environment["OTEL_AUDIT_SINK_CA_FILE"] = str(authority.authority)
    assert sender.doctor()["sink"]["state"] == "ok"
    sender.drain()
    told, trail = sender.told(), Trail(store)
    trail.wait_for(told.ids)
    trail.check(told)


def test_records_pass_an_agent_and_a_gateway(
    store: Store, gateway: Collector, agent: Collector, application: Application
) -> None:
    """Also when the gateway is away for a while and the agent is killed meanwhile."""
    trail = Trail(store)
    agent.start()
    application.start(rate=200, logs="audit")
    eventually(lambda: trail.count() > 200, "records arrive", 60)
    gateway.kill()
    eventually(
        lambda: agent.metrics()["otelcol_exporter_queue_size otlp_http/audit"] > 400, "records wait", 60
    )
    agent.kill()
    agent.start()
    gateway.start()
    application.stop()
    application.drain()
    delivered(application)
    told = application.told()
    trail.wait_for(told.ids)
    trail.check(told)
    eventually(lambda: set(told.ids) <= set(mirrored_ids(agent.mirrored())), "the mirror has all")


def test_what_a_gateway_refuses_for_good_can_be_sent_again_from_the_mirror(
    store: Store, gateway: Collector, agent: Collector, application: Application
) -> None:
    """A wrong token between agent and gateway: the agent drops, says so, and its files have every record."""
    agent.environment["OTELCOL_GATEWAY_TOKEN"] = "wrong"
    trail = Trail(store)
    agent.start()
    application.start(rate=100)
    eventually(lambda: len(application.told().ids) > 200, "it records")
    application.stop()
    application.drain()
    delivered(application)
    told = application.told()
    eventually(
        lambda: agent.metrics()["otelcol_exporter_send_failed_log_records otlp_http/audit"] >= len(told.ids),
        "the alarm's metric counts them",
    )
    eventually(lambda: set(told.ids) <= set(mirrored_ids(agent.mirrored())), "the mirror has all")
    assert trail.count() == 0

    agent.stop()
    agent.environment["OTELCOL_GATEWAY_TOKEN"] = GATEWAY_TOKEN
    lines = agent.mirrored()
    agent.start()
    for line in lines:
        assert agent.post(line.encode(), "application/json", token=TOKEN).status_code == 200
    trail.wait_for(told.ids)
    trail.check(told)
