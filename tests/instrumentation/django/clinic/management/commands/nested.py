"""A command called by another."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from tests.instrumentation.django.clinic.urls import record


class Command(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        record("clinic.nested")
