"""The answer of a sink, read by hand: as protobuf reads it, whatever the bytes."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel_audit.pipeline.delivery.export_response import partial_success


def _by_protobuf(content: bytes) -> tuple[int, str] | None:
    try:
        success = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError:
        return None
    return success.rejected_log_records, success.error_message


def _by_hand(content: bytes) -> tuple[int, str] | None:
    try:
        return partial_success(content)
    except ValueError:
        return None


def _answer(rejected: int, message: str) -> bytes:
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = rejected
    response.partial_success.error_message = message
    return response.SerializeToString()


@pytest.mark.parametrize("rejected", [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize("message", ["", "too old", "煎茶 \N{PILE OF POO}", "x" * 1000])
def test_an_answer_is_read(rejected: int, message: str) -> None:
    assert partial_success(_answer(rejected, message)) == (rejected, message)


@pytest.mark.parametrize(
    "content",
    [
        _answer(1, "a") + _answer(2, ""),  # the last counts, and what it leaves out stays
        b"\x08\x05" + _answer(3, "a number where a message is wanted"),
        b"\x0a\x02\x0a\x00",  # a message where a number is wanted
        b"\x1a\x03abc" + _answer(3, "after a field of later versions"),
        b"\x1b\x08\x01\x1c" + _answer(3, "after a group"),
        b"\x1b\x08\x01\x24",  # a group ended by another's end
        b"\x1c",  # an end without a group
        b"\x1b" * 99 + b"\x1c" * 99,
        b"\x1b" * 120 + b"\x1c" * 120,
        b"\x1f\x01",  # no wire type
        b"\x00\x01",  # no field
        b"\x0a\x03\x12\x01\xff",  # a text that is none
        b"\x0a\x7f",  # cut off
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xfa\xff\xff\xff\x7f\x00",
        b"\x80\x80\x80\x80\x80\x00",
        b"<html>nothing of the kind</html>",
    ],
)
def test_an_unusual_answer_is_read_as_protobuf_does(content: bytes) -> None:
    assert _by_hand(content) == _by_protobuf(content)


def test_any_bytes_are_read_as_protobuf_does() -> None:
    chance = random.Random("answers")
    pieces = [
        b"\x0a",
        b"\x08",
        b"\x12",
        b"\x10",
        b"\x0b",
        b"\x0c",
        b"\x09",
        b"\x0d",
        b"\x00",
        b"\x02",
        b"\x80",
    ]
    for number in range(20_000):
        content = bytearray(_answer(chance.randint(-3, 300), chance.choice(("", "no", "煎茶"))))
        for _ in range(chance.randint(0, 4)):
            at = chance.randint(0, len(content))
            kind = chance.randint(0, 2)
            if kind == 0:
                content[at:at] = chance.choice(pieces)
            elif kind == 1:
                del content[at : at + chance.randint(1, 3)]
            elif at < len(content):
                content[at] = chance.randrange(256)
        assert _by_hand(bytes(content)) == _by_protobuf(bytes(content)), (number, bytes(content))
