"""Values by chance, the same for the same seed: ordinary ones, long ones, and some that hold secrets."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.utils.safestring import SafeString

_NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
_WORDS = [
    "assam",
    "darjeeling",
    "green",
    "oolong",
    "puerh",
    "sencha",
    "white",
    "yellow",
    "first",
    "second",
    "flush",
    "late",
    "early",
]
_SECRETS = (
    "Bearer abcdefghijklmnopqrstuvwxyz0123456789",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "4111 1111 1111 1111",
    "AKIAIOSFODNN7EXAMPLE",
    "https://ana:hunter2@shop.example/?token=abcdef0123456789",
    "DE89 3704 0044 0532 0130 00",
    '{"password": "hunter2", "name": "ana"}',
    "password=hunter2&name=ana",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----",
)
_UNUSUAL = (
    "",
    " ",
    "煎茶 – ほうじ茶",
    "Ünïcödé \N{PILE OF POO}",
    'quote " and \\ back',
    "line\nline\ttab",
    "<b>&amp;</b>",
)
_ZONES = (datetime.UTC, datetime.timezone(datetime.timedelta(hours=9)))


class Chance(random.Random):
    """A generator of random numbers that knows what fields may hold."""

    def text(self) -> str:
        """Return a text of some words; one in eight is unusual, one in ten holds a secret."""
        kind = self.random()
        if kind < 0.1:
            return f"{self.choice(_WORDS)} {self.choice(_SECRETS)} {self.choice(_WORDS)}"[:280]
        if kind < 0.2:
            return self.choice(_UNUSUAL)
        words = " ".join(self.choices(_WORDS, k=self.randint(1, 6)))
        return SafeString(words) if kind < 0.225 else words

    def long_text(self) -> str:
        """Return a text of up to some thousand characters, rarely of many more than a record may hold."""
        size = self.choice((1, 10, 50, 200, 1000)) if self.random() < 0.97 else 20_000
        return f"{self.text()} {' '.join(self.choices(_WORDS, k=size))}"

    def moment(self) -> datetime.datetime:
        """Return a time, with microseconds or without."""
        moment = _NOON + datetime.timedelta(seconds=self.randint(0, 10**7))
        if self.random() < 0.5:
            moment += datetime.timedelta(microseconds=self.randint(0, 999_999))
        return moment.astimezone(self.choice(_ZONES))

    def json(self, depth: int = 3) -> Any:
        """Return what a JSONField may hold."""
        kind = self.randint(0, 8) if depth else self.randint(2, 8)
        if kind == 0:
            names = [*_WORDS, "password", "api_key", "card"]
            return {name: self.json(depth - 1) for name in self.sample(names, self.randint(0, 4))}
        if kind == 1:
            return [self.json(depth - 1) for _ in range(self.randint(0, 4))]
        simple: tuple[Callable[[], Any], ...] = (
            self.text,
            lambda: self.randint(-(10**6), 10**6),
            lambda: self.randint(-(10**5), 10**5) / 8,
            lambda: None,
            lambda: self.random() < 0.5,
        )
        return self.choice(simple)()

    def or_none(self, value: Any) -> Any:
        """Return ``value``, or None one time in six."""
        return None if self.random() < 1 / 6 else value

    def article(self) -> dict[str, Any]:
        """Return the fields of an article."""
        now = self.moment()
        return {
            "name": self.text(),
            "description": self.long_text() if self.random() < 0.2 else self.text(),
            "stock": self.randint(-5, 10**6),
            "price": Decimal(self.randint(0, 10**7)) / 100,
            "weight": self.or_none(self.randint(0, 10**6) / 16),
            "active": self.random() < 0.5,
            "released": self.or_none(now.date()),
            "updated": self.or_none(now),
            "opens": self.or_none(now.time()),
            "lasts": self.or_none(datetime.timedelta(seconds=self.randint(0, 10**6))),
            "serial": self.or_none(self.uuid()),
            "picture": self.or_none(self.randbytes(self.choice((0, 5, 300)))),
            "address": self.or_none(f"203.0.113.{self.randint(0, 255)}"),
            "facts": self.or_none(self.json()),
        }

    def plain(self) -> dict[str, Any]:
        """Return the fields of a plain row."""
        return {
            "name": self.text(),
            "note": self.text(),
            "count": self.randint(0, 10**9),
            "updated": self.or_none(self.moment()),
        }

    def card(self) -> dict[str, Any]:
        """Return the fields of a card."""
        return {
            "holder": self.text(),
            "number": f"{self.randint(10**15, 10**16 - 1)}",
            "pin": f"{self.randint(0, 9999):04}",
            "email": f"{self.choice(_WORDS)}@tea.example",
            "phone": f"+49 {self.randint(10**6, 10**7)}",
            "password": self.text()[:90],
            "details": {"cvv": "123", "about": self.json()},
        }

    def uuid(self) -> uuid.UUID:
        """Return a UUID."""
        return uuid.UUID(int=self.getrandbits(128), version=4)
