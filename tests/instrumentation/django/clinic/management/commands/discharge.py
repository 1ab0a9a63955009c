"""A command that prints, writes, and ends in many ways."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from tests.instrumentation.django.clinic.models import Ward
from tests.instrumentation.django.clinic.urls import record


class Command(BaseCommand):
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("wards", nargs="*")
        parser.add_argument("--password")
        parser.add_argument("--fail", type=int)
        parser.add_argument("--exit", type=int)
        parser.add_argument("--write", action="store_true")
        parser.add_argument("--calls", action="store_true")

    def handle(self, *args: Any, **options: Any) -> str:
        self.stdout.write("one")
        print("two")
        self.stderr.write(self.style.ERROR("three"))
        sys.stderr.write("four\n")
        record("clinic.discharge")
        if options["write"]:
            Ward.objects.create(name="new")
        if options["calls"]:
            call_command("note")
        if options["fail"] is not None:
            raise CommandError("password=hunter2hunter2", returncode=options["fail"])
        if options["exit"] is not None:
            sys.exit(options["exit"])
        return "returned"
