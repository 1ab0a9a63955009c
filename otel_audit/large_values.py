"""Values too long for a record: their beginning, their length, and a hash to compare them by.

None of it writes the whole value out: a structure is measured part by part until it proves too long, and
hashed piece by piece. However deep, wide or recursive it is, memory is bounded by the size of a piece.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from otel_audit.interruptions import faults
from otel_audit.long_texts import head_of, head_of_bytes, is_rest, rest_of

LONGEST: Final = 128 * 1024
"""Characters: of one value, all its parts together, that is held and recorded whole."""
FITS_WRITTEN: Final = LONGEST // 4
"""Bytes of JSON that certainly fit: an item is two of them at least, and counts as eight characters."""
BEGINNING: Final = 64 * 1024
"""Characters: of a longer one this much is recorded."""
PART: Final = 8
"""What a number, a name or a bracket counts as, beside the characters of texts."""
DEEPEST: Final = 64
"""Levels of a structure."""
CONTAINERS: Final = (dict, Mapping, list, tuple, set, frozenset)
PLAIN_CONTAINERS: Final = frozenset({dict, list, tuple})
"""Classes of structures that JSON knows; of their subclasses only what they hold."""
LEFT_OUT: Final = "…"
"""Stands where a value was nested too deep or had too many parts."""

_MOST: Final = 1 << 30
"""Bytes hashed: no column of a database holds more (PostgreSQL and SQLite: 1 GB)."""
_PIECE: Final = 48 * 1024
"""Of texts and binary data at once; a multiple of three, as base64 wants it."""
_ITEMS: Final = 256
_LEVELS_OF_A_PIECE: Final = 8
_DEEPEST_STORED: Final = 4096
"""Levels that are hashed: no database takes more (SQLite 1000, MariaDB 32, PostgreSQL by its stack)."""

_FEW_PARTS: Final = 48
"""Fewer than there may be levels: as many parts within each other are not too deep either."""
_SHORT_TEXT: Final = 1024
_FLAT: Final = frozenset({type(None), bool, int, float})
_KNOWN: Final = _FLAT | PLAIN_CONTAINERS
_BINARY: Final = (bytes, bytearray, memoryview)

_decode: Final = msgspec.json.Decoder().decode


class Cut:
    """What is held of a value that is too long: equal to another of the same content.

    ``beginning`` is a text, as JSON where the value is a structure; ``unit`` is what ``length`` counts.
    ``type`` is the name of the type, as :func:`otel_audit.values.portable_type` has it.
    """

    __slots__ = ("beginning", "digest", "length", "type", "unit")

    def __init__(
        self,
        beginning: str | bytes,
        length: int,
        digest: bytes,
        *,
        unit: str = "characters",
        type_: str = "",
    ) -> None:
        self.beginning = beginning
        self.length = length
        self.digest = digest
        self.unit = unit
        self.type = type_

    def __len__(self) -> int:
        return self.length

    def __eq__(self, other: object) -> bool:
        return type(other) is Cut and other.digest == self.digest and other.type == self.type

    def __hash__(self) -> int:
        return hash(self.digest)

    def recorded(self, keyed: Callable[[bytes], str] | None = None) -> Any:
        """Return what a record carries: the beginning, and the length of the whole.

        ``keyed`` returns the keyed hash of a digest; empty without a key.
        """
        rest = rest_of(self.length, self.unit, keyed(self.digest) if keyed is not None else "")
        if isinstance(self.beginning, str):
            return self.beginning + rest
        return with_rest(_decode(self.beginning), rest)


def left_out(value: Any, unit: str) -> str:
    """Return what stands in place of the rest of a container: how many ``unit`` it has, if it can say."""
    try:
        return f"{LEFT_OUT} ({len(value)} {unit})"
    except faults():  # a sequence of the application's own
        return LEFT_OUT


def with_rest(beginning: Any, rest: str) -> Any:
    """Put what is said of the whole behind the beginning of a structure, in place of a mark there."""
    if isinstance(beginning, dict):
        beginning.pop(LEFT_OUT, None)
        return {**beginning, LEFT_OUT: rest}
    last = beginning[-1] if beginning else None
    if type(last) is str and is_rest(last):
        beginning.pop()
    return [*beginning, rest]


def rest_said(value: Any) -> str:
    """Return what a cut structure says of its rest; empty for any other."""
    said = value.get(LEFT_OUT) if isinstance(value, dict) else value[-1] if value else None
    return said if type(said) is str and is_rest(said) else ""


def cut_text(text: str) -> Cut:
    """Cut a text."""
    return Cut(head_of(text, BEGINNING), len(text), digest_of_text(text))


def digest_of_text(text: str) -> bytes:
    """Return the hash of a text, made without a copy of it."""
    digest = hashlib.sha256()
    for start in range(0, len(text), _PIECE):
        digest.update(text[start : start + _PIECE].encode("utf-8", "surrogatepass"))
    return digest.digest()


def cut_binary(data: bytes | bytearray | memoryview, base64: Callable[[bytes], str]) -> Cut:
    """Cut binary data; ``base64`` makes a text of its beginning."""
    view = memoryview(data)
    view = view.cast("B") if view.contiguous else memoryview(bytes(view))
    head = head_of_bytes(bytes(view[:_PIECE]), _PIECE)
    return Cut(base64(head), len(view), hashlib.sha256(view).digest(), unit="bytes", type_="bytes")


def cut_structure(value: Any, plain: Callable[[Any], Any], beginning: Any) -> Cut:
    """Cut a structure: ``beginning`` is a portable one, ``plain`` makes its smaller parts portable."""
    digest, length = hashlib.sha256(), 0
    for piece in json_pieces(value, plain):
        digest.update(piece)
        length += len(piece)
        if length > _MOST:
            break
    return Cut(msgspec.json.encode(beginning), length, digest.digest(), unit="bytes")


def digest_of_json(text: bytes) -> bytes:
    """Return the hash of a structure that is held as JSON, its keys in order."""
    return hashlib.sha256(msgspec.json.encode(_decode(text), order="sorted")).digest()


# --- how large a structure is ---------------------------------------------------------------------


def is_small(value: Any) -> bool:
    """Say of a small structure of plain JSON, as most are, that it :func:`fits`; False of any other."""
    parts = [value]
    room = _FEW_PARTS
    for part in parts:  # grows
        room -= len(part)
        if room < 0:
            return False
        if type(part) is dict:
            for key in part:
                if type(key) is not str or len(key) > _SHORT_TEXT:
                    return False
            items: Iterable[Any] = part.values()
        elif type(part) is list:
            items = part
        else:
            return False
        for item in items:
            kind = type(item)
            if kind is str:
                if len(item) > _SHORT_TEXT:
                    return False
            elif kind is dict or kind is list:
                parts.append(item)
            elif kind not in _FLAT:
                return False
    return True


def fits(value: Any, room: int = LONGEST, levels: int = DEEPEST) -> bool:
    """Say whether a structure is small enough to be held whole; looks at no more of it than would be."""
    level = [value]
    try:
        for _ in range(levels):
            below: list[Any] = []
            for part in level:
                room -= PART * len(part)
                if room < 0:
                    return False
                items = part
                if type(part) is not list and isinstance(part, Mapping):
                    items = part.values()
                    room -= sum([len(key) for key in part if type(key) is str])
                kinds = {*map(type, items)}
                if kinds <= _FLAT:
                    continue
                if str in kinds:
                    room -= sum([len(item) for item in items if type(item) is str])
                    kinds.discard(str)
                    if kinds <= _FLAT:
                        continue
                if kinds <= _KNOWN:
                    below += [item for item in items if type(item) in PLAIN_CONTAINERS]
                else:
                    room -= sum(map(_size, items))
                    below += [item for item in items if isinstance(item, CONTAINERS)]
            if room < 0:
                return False
            if not below:
                return True
            level = below
    except faults():  # a mapping or sequence of the application's own
        return False
    return False


def _size(value: Any) -> int:
    """Return the size of what is neither a plain text nor a container: of its text, or about that."""
    kind = type(value)
    if kind is str or issubclass(kind, CONTAINERS):
        return 0
    if issubclass(kind, str | bytes | bytearray):
        return len(value)
    size = getattr(value, "nbytes", 0)  # of a memoryview, an array
    return size if type(size) is int else 0


# --- JSON, piece by piece -------------------------------------------------------------------------


def json_pieces(value: Any, plain: Callable[[Any], Any]) -> Iterator[bytes]:
    """Write a structure as JSON, the keys of each mapping in order, no piece much longer than another.

    A structure within itself is not followed, nor what is deeper than any database takes.
    """
    pieces, path = [_pieces(value, plain)], [id(value)]
    within = {id(value)}
    while pieces:
        for piece in pieces[-1]:
            if type(piece) is bytes:
                yield piece
            elif id(piece) in within or len(path) >= _DEEPEST_STORED:
                yield b'"\xe2\x80\xa6"'
            else:
                pieces.append(_pieces(piece, plain))
                path.append(id(piece))
                within.add(path[-1])
                break
        else:
            pieces.pop()
            within.discard(path.pop())


def _pieces(value: Any, plain: Callable[[Any], Any]) -> Iterator[Any]:
    """Give the JSON of a container; in place of one inside it that is not small, the container itself."""
    try:
        if isinstance(value, Mapping):
            yield from _pairs(value, plain)
        else:
            yield from _items(sorted(value, key=repr) if isinstance(value, set | frozenset) else value, plain)
    except faults():  # a mapping or sequence of the application's own
        yield _encoded(f"<{type(value).__qualname__}>", plain)


def _pairs(value: Mapping[Any, Any], plain: Callable[[Any], Any]) -> Iterator[Any]:
    yield b"{"
    comma = b""
    for keys in _batches(sorted(value, key=_key)):
        some = {key: value[key] for key in keys}
        if fits(some, levels=_LEVELS_OF_A_PIECE):
            yield comma + _encoded(some, plain)[1:-1]
            comma = b","
            continue
        for key, item in some.items():
            yield comma
            comma = b","
            yield from _part(key if type(key) is str else str(plain(key)), plain)
            yield b":"
            yield from _part(item, plain)
    yield b"}"


def _key(key: Any) -> str:
    return key if type(key) is str else repr(key)


def _items(value: Iterable[Any], plain: Callable[[Any], Any]) -> Iterator[Any]:
    yield b"["
    comma = b""
    for some in _batches(value):
        if fits(some, levels=_LEVELS_OF_A_PIECE):
            yield comma + _encoded(some, plain)[1:-1]
            comma = b","
            continue
        for item in some:
            yield comma
            comma = b","
            yield from _part(item, plain)
    yield b"]"


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while some := list(islice(iterator, _ITEMS)):
        yield some


def _part(item: Any, plain: Callable[[Any], Any]) -> Iterator[Any]:
    if isinstance(item, CONTAINERS):
        yield item
    elif isinstance(item, str) and len(item) > _PIECE:
        yield b'"'
        for start in range(0, len(item), _PIECE):
            yield _encoded(str.__str__(item[start : start + _PIECE]), plain)[1:-1]
        yield b'"'
    elif isinstance(item, _BINARY) and len(item) > _PIECE:
        yield b'"'
        for start in range(0, len(item), _PIECE):
            yield b64encode(bytes(item[start : start + _PIECE]))
        yield b'"'
    else:
        yield _encoded(item, plain)


def _encoded(value: Any, plain: Callable[[Any], Any]) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=plain, order="sorted")
    except faults():  # keys that are no text, integers beyond 64 bits, lone surrogates
        return msgspec.json.encode(plain(value), order="sorted")
