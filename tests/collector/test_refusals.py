"""What the Collector does not take: wrong tokens, large requests, garbage. Nobody else notices."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.collector.running import TOKEN, Collector, delivered, kill, site
from tests.e2e.running import eventually


@pytest.mark.parametrize(
    ("token", "why"), [("wrong", "the token is not valid"), ("", "no token is configured")]
)
def test_without_the_right_token_records_stay_in_the_spool_and_doctor_says_why(
    tmp_path: Path, token: str, why: str
) -> None:
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        right = dict(application.environment)
        application.environment |= {"OTEL_AUDIT_SINK_TOKEN": token, "OTEL_AUDIT_SINK_SHUTDOWN_TIMEOUT": "0.2"}
        application.start(rate=50)
        eventually(lambda: len(application.told().ids) > 50, "it records")
        application.stop()

        told = application.told()
        assert application.waiting() >= len(told.ids)
        assert trail.count() == 0
        finding = application.doctor()["sink"]
        assert finding["state"] == "bad"
        assert f"answers 401: {why}" in finding["finding"]
        assert "OTEL_AUDIT_SINK_TOKEN" in finding["advice"]
        assert "OTELCOL_AUDIT_TOKEN" in finding["advice"]
        log = (tmp_path / "application.log").read_text()
        assert "401" in log
        assert "check sink.token" in log

        application.environment = right
        assert application.doctor()["sink"]["state"] == "ok"
        application.drain()
        trail.wait_for(told.ids)
        trail.check(told)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_request_over_the_limit_is_split_by_the_sender(tmp_path: Path, compression: str) -> None:
    """The limit holds before and after decompression; a single record above it is set aside, visibly."""
    with site(
        tmp_path,
        environment={"OTELCOL_AUDIT_MAX_BYTES": "20000"},
        application={"OTEL_AUDIT_SINK_COMPRESSION": compression},
    ) as (store, collector, application, trail):
        application.start(rate=300)
        eventually(lambda: len(application.told().ids) > 700, "batches are full when the Collector comes")
        store.start()
        collector.start()
        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        assert collector.metrics()["otelcol_receiver_accepted_log_records"] >= len(told.ids)
        trail.wait_for(told.ids)
        trail.check(told)
        assert not (application.spool / "quarantine").exists()


def test_garbage_is_refused_and_others_are_unharmed(tmp_path: Path) -> None:
    """From a client that has the token: what it sends is refused as a whole, with an answer that says so."""
    with site(tmp_path, ["config.yaml", "profiles/mirror.yaml"]) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=100)
        eventually(lambda: trail.count() > 100, "records arrive")

        lines = collector.mirrored()
        whole = lines[0].encode()
        refused = [
            (b"\x00\xff" * 500, "application/x-protobuf", {}),
            (b"\x0a\xff\x01\x12\x34half a message", "application/x-protobuf", {}),
            (whole[: len(whole) // 2], "application/json", {}),
            (b'{"resourceLogs": 7}', "application/json", {}),
            (b"not gzip at all", "application/x-protobuf", {"Content-Encoding": "gzip"}),
            (gzip.compress(b"\x0a" * 1000)[:50], "application/x-protobuf", {"Content-Encoding": "gzip"}),
        ]
        for body, content_type, headers in refused:
            answer = collector.post(body, content_type, headers=headers)
            assert answer.status_code == 400, (body[:20], answer.status_code)
        assert collector.post(b"<records/>", "text/xml").status_code == 415
        assert collector.post(whole, "application/json", token="").status_code == 401
        assert collector.post(b"\x00" * (21 << 20)).status_code == 400

        application.stop()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)
        assert json.loads(whole)["resourceLogs"]
        assert collector.post(whole, "application/json", token=TOKEN).status_code == 200  # the same, whole


def test_two_collectors_do_not_share_a_queue(tmp_path: Path) -> None:
    """The second one ends and says so; the first goes on."""
    first = Collector(tmp_path, "http://127.0.0.1:1")
    second = Collector(tmp_path, "http://127.0.0.1:1", environment={"OTELCOL_QUEUE_DIR": str(first.queue)})
    try:
        first.start()
        with pytest.raises(AssertionError, match=r"ended with 1:[\s\S]*timeout"):
            second.start()
        assert first.is_healthy()
    finally:
        for collector in (first, second):
            kill(collector)
