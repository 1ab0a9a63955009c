"""Asks a page of the same process, as a warm-up of a cache does."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.test import Client


class Command(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        Client().get("/commanding/")
