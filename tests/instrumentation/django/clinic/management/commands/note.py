"""A command that makes a record, and may call another that does."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from tests.instrumentation.django.clinic.urls import record


class Command(BaseCommand):
    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--nested", action="store_true")
        parser.add_argument("--fail", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["nested"]:
            call_command("nested")
        record("clinic.command")
        if options["fail"]:
            raise CommandError("failed")
