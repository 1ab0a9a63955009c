"""The functions that tests name as ``tenant_from``."""

from __future__ import annotations

import enum
import uuid
from typing import Any

from django.utils.functional import lazystr

answers: list[Any] = []
asked: list[Any] = []


class Region(enum.StrEnum):
    NORTH = "north"


class Row:
    """As django-multitenant returns one: an object with a key."""

    pk = 7

    class _meta:  # noqa: N801 - as Django calls it
        pk = None


class Opaque:
    pass


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def current(request: Any) -> Any:
    """Return the next answer, the last of them again and again."""
    asked.append(request)
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer() if callable(answer) and not isinstance(answer, type) else answer


def by_host(request: Any) -> str:
    """Return the first part of the host that was asked for."""
    return "" if request is None else str(request.get_host()).partition(".")[0]


def by_query(request: Any) -> str:
    """Ask the database, which it must not: what that writes and reads is recorded, too."""
    from tests.instrumentation.django.clinic.models import Ward

    Ward.objects.create(name="asked")
    return f"wards-{Ward.objects.count()}"


async def never(request: Any) -> str:
    """Cannot be called: there is nobody to await it."""
    return "never"


class Tenants:
    @staticmethod
    def current(request: Any) -> uuid.UUID:
        """Return a tenant that is no text."""
        return uuid.UUID(int=5)


not_callable = "acme"
lazy = lazystr("acme")
