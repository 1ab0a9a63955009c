"""G5 redacted at birth: nothing secret of requests, commands and tasks reaches the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_audit.http.contents import Body
from otel_audit.pipeline.provider import AuditPipeline
from tests.http.contents.test_no_secret_survives import BASIC, JWT, PLACES, SECRET, TOKEN
from tests.pipeline.conftest import pipeline, pipelines, spool_directory  # noqa: F401


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def check(directory: Path, records: int) -> None:
    written = on_disk(directory)
    assert written.count(b"http.server.request") >= records
    for secret in (SECRET, TOKEN, JWT, BASIC):
        assert secret.encode() not in written
        assert secret[4:12].encode() not in written


def test_no_place_of_a_request_brings_a_secret_to_the_disk(
    pipeline: AuditPipeline,  # noqa: F811
    spool_directory: Path,  # noqa: F811
) -> None:
    for place, show in PLACES.items():
        shown = show()
        attributes = shown.attributes("request") if type(shown) is Body else {"shown": shown}
        kept = pipeline.logger.log("http.server.request", "REQUEST", attributes=attributes)
        assert kept is not None, place
    check(spool_directory, len(PLACES))


@pytest.mark.parametrize(
    "attributes",
    [
        {"request.body": {"deep": [{"password": SECRET}], "note": f"see {TOKEN}"}},
        {"response.body": [["authorization", SECRET]]},
        {"http.request.header.authorization": f"Bearer {SECRET}", "http.response.header.set-cookie": SECRET},
        {"url.query": f"a=b&token={SECRET}", "url.full": f"https://ann:{SECRET}@h/"},
        {"arguments": ["--password", SECRET, f"--token={SECRET}"]},
        {"arguments": {"args": [JWT], "kwargs": {"token": SECRET}}, "task.result": {"token": SECRET}},
        {"exception.message": f"password={SECRET}", "output": f"password: {SECRET}\n"},
    ],
)
def test_what_was_put_on_a_record_as_it_came_is_redacted_there(
    pipeline: AuditPipeline,  # noqa: F811
    spool_directory: Path,  # noqa: F811
    attributes: dict[str, Any],
) -> None:
    assert pipeline.logger.log("http.server.request", "REQUEST", attributes=attributes) is not None
    check(spool_directory, 1)
