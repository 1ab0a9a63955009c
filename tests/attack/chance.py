"""Inputs of any kind at random, each from a seed of its own; hypothesis makes 1000 in the time of 100 000.

Records and OTLP messages follow their own descriptions, so that a new field is attacked from its first day.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from msgspec import inspect

from otel_audit import semconv

T = TypeVar("T")

_ALPHABETS: Final = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    " \t\r\n",
    "\"'`\\/{}[]()<>=:;,.%&?#@$*!|+-_~^",
    "".join(map(chr, range(32))) + "\x7f\x80\x85\x9b\xa0\xad",
    "äöüßéèñçøłğşžİıſǅ",
    "пароль密码パスワード종이עבריתعربي",
    "\u0301\u200b\u200d\u200e\u202e\u2028\u2029\u2066\ufeff\ufffd\ufffe\uffff",
    "😀👩🏽\U00010000\U0001f1e9\U000e0001\U0010ffff",
)
_EVERY: Final = "".join(_ALPHABETS)
_WORDS: Final = (
    *("", " ", "\0", "null", "None", "true", "NaN", "-0", "[redacted]", "...", "../..", "\\N", "$$", "''"),
    *("%s", "%(a)s", "{p0:String}", "${A}", "a' OR 1=1 --", "*", "!", "a.b.c", "a,b", "x=1", "[]", "{}"),
    *("audit", "activity", "success", "failure", "unknown", "user", "CREATE", "shop.Order", "shop.Order/7"),
    *("00000000-0000-0000-0000-000000000000", "2026-11-23T10:00:00Z", "203.0.113.7", "https://a@h/?b=c#d"),
)
_INTEGERS: Final = (
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    2**31,
    2**32,
    2**53,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_FLOATS: Final = (0.0, -0.0, 1.5, -0.1, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1e16, 1e22, 123456789.0)
_LENGTHS: Final = (1, 126, 127, 128, 129, 1_000, 16_383, 16_384, 70_000)


class Chance(random.Random):
    """A source of randomness that knows what our inputs are made of."""

    def text(self, longest: int = 20) -> str:
        """Return text of one alphabet, of all, a word that means something somewhere, or a long one."""
        way = self.random()
        if way < 0.1:
            return self.choice(_WORDS)
        if way < 0.11:
            return self.choice(_EVERY) * self.choice(_LENGTHS)
        alphabet = self.choice(_ALPHABETS) if way < 0.7 else _EVERY
        return "".join(self.choices(alphabet, k=int(longest * self.random() ** 2)))

    def named(self) -> str:
        """Return text that is not empty."""
        return self.text() or "n"

    def integer(self) -> int:
        """Return an integer of JSON: at a bound of something, small, or any of its 64 bits."""
        way = self.random()
        if way < 0.4:
            return self.choice(_INTEGERS)
        return self.randrange(-9, 100) if way < 0.7 else self.randrange(-(2**63), 2**64)

    def number(self) -> int:
        """Return an integer from 0 that fits 63 bits."""
        return abs(self.integer()) & (2**63 - 1)

    def real(self) -> float:
        """Return a finite number."""
        return self.choice(_FLOATS) if self.random() < 0.5 else self.uniform(-1e6, 1e6)

    def some(self, make: Callable[[], T], most: int = 3) -> list[T]:
        """Return up to so many."""
        return [make() for _ in range(self.randint(0, most))]

    def value(self, depth: int = 3) -> Any:
        """Return what JSON can write, nested up to ``depth``."""
        way = self.randrange(9 if depth else 7)
        if way < 3:
            return self.text()
        if way < 5:
            return self.integer()
        if way < 7:
            return self.choice((None, True, False, self.real()))
        if way == 7:
            return self.some(lambda: self.value(depth - 1))
        return {self.text(): self.value(depth - 1) for _ in range(self.randint(0, 3))}

    def of(self, kind: type[T]) -> T:
        """Return any value of a type: of a struct some fields, the rest as they are without."""
        described: Any = kind
        made: T = _maker(described)(self)
        return made

    def message(self, kind: type[Message], depth: int = 6) -> Any:
        """Return a message of protobuf with some of its fields set, to anything they can hold."""
        return self._fill(kind(), depth)

    def _fill(self, message: Any, depth: int) -> Any:
        for field in message.DESCRIPTOR.fields:
            likely = 0.9 if field.type == FieldDescriptor.TYPE_MESSAGE else 0.5
            if self.random() > likely or (not depth and field.type == FieldDescriptor.TYPE_MESSAGE):
                continue
            if not field.is_repeated:
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    held = getattr(message, field.name)
                    held.SetInParent()
                    self._fill(held, depth - 1)
                else:
                    setattr(message, field.name, self._scalar(field))
                continue
            held = getattr(message, field.name)
            for _ in range(self.choice((0, 1, 1, 2, 3))):
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    self._fill(held.add(), depth - 1)
                else:
                    held.append(self._scalar(field))
        return message

    def _scalar(self, field: FieldDescriptor) -> Any:
        kind = field.type
        if kind == FieldDescriptor.TYPE_STRING:
            return self.choice(_KEYS) if field.name == "key" and self.random() < 0.5 else self.text()
        if kind == FieldDescriptor.TYPE_BYTES:
            return self.randbytes(self.choice((0, 1, 8, 16, 16, 17, 200)))
        if kind == FieldDescriptor.TYPE_BOOL:
            return self.random() < 0.5
        if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return self.choice((self.real(), float("nan"), float("inf"), float("-inf")))
        unsigned, bits = _RANGES.get(kind, (False, 32))
        number = self.integer() % 2**bits
        return number if unsigned or number < 2 ** (bits - 1) else number - 2**bits

    def mangled(self, content: bytes) -> bytes:
        """Return bytes damaged in one to four of the ways disks, copies and people have."""
        data = bytearray(content)
        for _ in range(self.randint(1, 4)):
            begin = self.randrange(len(data) + 1)
            end = min(len(data), begin + self.choice((1, 4, 13, 64, 512)))
            way = self.randrange(7)
            if way == 0:
                data[begin:end] = self.randbytes(end - begin)
            elif way == 1:
                del data[begin:end]
            elif way == 2:
                data[begin:begin] = self.randbytes(end - begin)
            elif way == 3:
                data[begin:begin] = data[begin:end]
            elif way == 4:
                data[begin:end] = bytes(end - begin)
            elif way == 5:
                if begin < end:
                    data[begin] ^= 1 << self.randrange(8)
            else:
                other = self.randrange(len(data) + 1)
                data[begin:end], data[other : other + end - begin] = (
                    data[other : other + end - begin],
                    data[begin:end],
                )
        return bytes(data)

    def distorted(self, document: Any) -> Any:
        """Return a JSON document of which here and there something is missing, double or of another type."""
        if self.random() < 0.04:
            return self.value(2)
        if isinstance(document, dict):
            return {
                key if self.random() < 0.97 else self.text(): self.distorted(value)
                for key, value in document.items()
                if self.random() < 0.97
            }
        if isinstance(document, list):
            items = [self.distorted(item) for item in document if self.random() < 0.97]
            return items + items[:1] if self.random() < 0.03 else items
        return document


_KEYS: Final = (
    semconv.RECORD_ID,
    semconv.LOG,
    semconv.ACTOR_ID,
    "otel_audit.bulk",
    "service.name",
    "password",
)
_RANGES: Final = {
    FieldDescriptor.TYPE_UINT32: (True, 32),
    FieldDescriptor.TYPE_FIXED32: (True, 32),
    FieldDescriptor.TYPE_UINT64: (True, 64),
    FieldDescriptor.TYPE_FIXED64: (True, 64),
    FieldDescriptor.TYPE_INT64: (False, 64),
    FieldDescriptor.TYPE_SINT64: (False, 64),
    FieldDescriptor.TYPE_SFIXED64: (False, 64),
}
"""Unsigned or not, and how many bits; all others are signed and have 32."""

Make = Callable[[Chance], Any]


@cache
def _maker(kind: Any) -> Make:
    return _of(inspect.type_info(kind))


def _of(kind: inspect.Type) -> Make:
    match kind:
        case inspect.StrType():
            return Chance.text
        case inspect.IntType():
            return Chance.number
        case inspect.FloatType():
            return Chance.real
        case inspect.BoolType():
            return lambda chance: chance.random() < 0.5
        case inspect.NoneType():
            return lambda chance: None
        case inspect.AnyType():
            return Chance.value
        case inspect.LiteralType():
            return _one_of([_constant(value) for value in kind.values])
        case inspect.UnionType():
            return _one_of([_of(each) for each in kind.types])
        case inspect.ListType():
            item = _of(kind.item_type)
            return lambda chance: chance.some(lambda: item(chance))
        case inspect.DictType():
            key, value = _of(kind.key_type), _of(kind.value_type)
            return lambda chance: {key(chance): value(chance) for _ in range(chance.randint(0, 3))}
        case inspect.StructType():
            return _struct(kind)
        case _:
            raise NotImplementedError(f"no chance makes a {kind}")


def _constant(value: Any) -> Make:
    return lambda chance: value


def _one_of(makers: Sequence[Make]) -> Make:
    return lambda chance: chance.choice(makers)(chance)


def _struct(kind: inspect.StructType) -> Make:
    needed: dict[str, Make] = {}
    optional: dict[str, Make] = {}
    for field in kind.fields:
        make = _of(field.type)
        # A text that has to be given, or is something without being given, is never empty.
        if isinstance(field.type, inspect.StrType) and (field.required or field.default):
            make = Chance.named
        (needed if field.required else optional)[field.name] = make

    def make_struct(chance: Chance) -> Any:
        given = {name: make(chance) for name, make in needed.items()}
        density = chance.choice((0.2, 0.5, 0.9))
        for name, make in optional.items():
            if chance.random() < density:
                given[name] = make(chance)
        return kind.cls(**given)

    return make_struct
