"""How much one request may become, judged before it does.

A small request can become large in three ways: when it is decompressed, when it is decoded (an empty
attribute takes two bytes on the wire and fifty in memory), and as rows, each of which repeats the resource
and the scope of its record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from otel_audit.named_tuples import NamedTuple
from otel_audit.server.bodies import TooLarge

MESSAGES: Final = 1_000_000
"""Records, spans, attributes, values and items of values in one request; 20 000 records of 20 attributes have
820 000. Decoding as many takes one to two seconds and some 200 MB."""
JSON_NODES: Final = 200_000
"""Objects, lists and members of one request in JSON, which is decoded at a twentieth of the speed. An
attribute has four."""
_ROW: Final = 64
"""Bytes of a row beside what came with it: time, flags, lengths, offsets."""
_GROWTH: Final = 6
"""A nested value becomes JSON, where a control character takes six bytes."""


def _nothing(_: int) -> None:
    pass


class Limits(NamedTuple):
    """The limits of one request: bytes of the body when decompressed, bytes of rows, messages, JSON."""

    body: int
    rows: int
    messages: int = MESSAGES
    nodes: int = JSON_NODES

    @classmethod
    def of(cls, body: int) -> Limits:
        """Return the limits that go with the largest body, ``[server] max_request_bytes``.

        Rows may take twice as much: a resource as large as the record it belongs to is usual.
        """
        return cls(body, 2 * body)


class Budget:
    """Counts the bytes of the rows of a request before they are made.

    Args:
        most: how many there may be; None: any number.
        take: called with each number of bytes, to count them elsewhere too; may raise.
    """

    __slots__ = ("_most", "_take", "size")

    def __init__(self, most: int | None = None, take: Callable[[int], None] = _nothing) -> None:
        self.size = 0
        self._most = most
        self._take = take

    def add(self, size: int) -> None:
        """Count bytes.

        Raises:
            TooLarge: it is more than the limit.
        """
        self.size += size
        if self._most is not None and self.size > self._most:
            raise TooLarge(
                f"the rows of this request would exceed {self._most} bytes, because each record is "
                "stored with its resource and scope"
            )
        self._take(size)

    def rows(self, count: int, shared: int) -> None:
        """Count rows that all repeat ``shared`` bytes.

        Raises:
            TooLarge: as for :meth:`add`.
        """
        self.add(count * (shared + _ROW))

    def nested(self, size: int) -> None:
        """Judge a nested value of ``size`` bytes, which is about to become JSON.

        Raises:
            TooLarge: it could be more than is left.
        """
        if self._most is not None and self.size + size * _GROWTH > self._most:
            raise TooLarge(f"a nested value of {size} bytes is too large to be stored as JSON")


# --- messages of a protobuf request ------------------------------------------------------------


@cache
def _counted(descriptor: Descriptor) -> dict[int, Descriptor | None]:
    """Return the fields to count of a message, by tag: what is in each, None for a text."""
    fields: dict[int, Descriptor | None] = {}
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            fields[field.number << 3 | 2] = field.message_type
        elif field.is_repeated and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            fields[field.number << 3 | 2] = None
    return fields


@cache
def _uncounted(descriptor: Descriptor) -> bytes:
    """Return the bytes with which no counted field of a request begins, however its tag is written."""
    first: set[int] = set()
    waiting, seen = [descriptor], {descriptor.full_name}
    while waiting:
        for tag, inner in _counted(waiting.pop()).items():
            first |= {tag & 127, tag & 127 | 128}
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                waiting.append(inner)
    return bytes(set(range(256)) - first)


def check_messages(body: bytes, descriptor: Descriptor, most: int) -> None:
    """Return if a protobuf request has at most ``most`` messages; whether it is well-formed is not judged.

    Most requests are told by their size, or by how often the bytes occur that a message begins with. Only the
    others are walked through, and no further than the limit.

    Raises:
        TooLarge: there are more.
    """
    if len(body) < 2 * most or len(body.translate(None, _uncounted(descriptor))) <= most:
        return
    if count_messages(body, descriptor, most) > most:
        raise TooLarge(f"the request has more than {most} records, attributes and values")


def count_messages(body: bytes, descriptor: Descriptor, most: int) -> int:
    """Count the messages of a request, each attribute and value being one; give up above ``most``."""
    count = at = 0
    fields, end = _counted(descriptor), len(body)
    outer: list[tuple[dict[int, Descriptor | None], int]] = []
    try:
        while count <= most:
            if at >= end:
                if not outer:
                    break
                fields, end = outer.pop()
                continue
            tag, at = _varint(body, at)
            kind = tag & 7
            if kind == 2:
                length, at = _varint(body, at)
                if tag not in fields:
                    at += length
                    continue
                count += 1
                if length and (inner := fields[tag]) is not None:
                    outer.append((fields, end))
                    fields, end = _counted(inner), min(at + length, end)
                else:
                    at += length
            elif kind == 0:
                _, at = _varint(body, at)
            elif kind == 1:
                at += 8
            elif kind == 5:
                at += 4
            # Groups, begun by 3 and ended by 4, were never used by OTLP: what is in them counts as well.
    except IndexError:
        pass  # cut short: the decoder says so
    return count


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = body[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    for shift in range(7, 70, 7):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError("a varint of more than ten bytes")


# --- nodes of a JSON request --------------------------------------------------------------------

_TEXT: Final = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_NODE: Final = b"{[,"


def check_nodes(body: bytes, most: int) -> None:
    """Return if a request in JSON has at most ``most`` objects, lists and members.

    Raises:
        TooLarge: there are more.
    """
    if sum(body.count(_NODE[i : i + 1]) for i in range(len(_NODE))) <= most:
        return
    count = at = 0
    for texts, found in enumerate(_TEXT.finditer(body)):  # what stands in texts does not count
        count += sum(body.count(_NODE[i : i + 1], at, found.start()) for i in range(len(_NODE)))
        at = found.end()
        if count > most or texts > 4 * most:
            break
    else:
        count += sum(body.count(_NODE[i : i + 1], at) for i in range(len(_NODE)))
        if count <= most:
            return
    raise TooLarge(
        f"the request has more than {most} objects, lists and members, which is the limit for JSON"
    )
