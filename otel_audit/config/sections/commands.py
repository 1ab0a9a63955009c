"""``[commands]``: management commands, and those of Click and Typer."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from otel_audit.config.sections.section import Seconds, Section

EXCLUDED: Final = (
    # Servers and workers: what is done in them is done by requests and tasks.
    *("celery", "daphne", "db_worker", "devserver", "django_tasks_worker", "process_tasks", "procrastinate"),
    *("qcluster", "rqscheduler", "rqworker", "rqworker-pool", "run_huey", "rundramatiq", "runserver"),
    *("runserver_plus", "runworker", "tailwind", "testserver"),
    # Shells: what is changed in one is recorded, with the shell as the actor.
    *("dbshell", "shell", "shell_plus"),
    # Tools of developers that touch no data.
    *("check", "compilemessages", "diffsettings", "help", "inspectdb", "makemessages", "makemigrations"),
    *("optimizemigration", "showmigrations", "sqlflush", "sqlmigrate", "sqlsequencereset"),
    *("squashmigrations", "startapp", "startproject", "test", "version"),
)
"""Commands that are not recorded by default."""


class CommandsConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Record each management command of Django and each command of Click and Typer: name, "
            "arguments, outcome, exit code, duration; what it printed, where a `[[policy]]` rule says "
            '`level = "request_response"`.'
        ),
    ] = False
    exclude: Annotated[
        list[str],
        Meta(
            description="Commands that are not recorded, by name; `*` stands for anything, and a leading `!` "
            "makes an exception. By default those that start a server, a worker or a shell, and tools of "
            "developers that touch no data."
        ),
    ] = msgspec.field(default_factory=lambda: list(EXCLUDED))
    max_output: Annotated[
        int,
        Meta(
            ge=0,
            le=65536,
            description="Bytes of what was printed that a record has at most, kept from the end. Also of "
            "jobs and tasks.",
        ),
    ] = 16384
    flush: Annotated[
        Seconds,
        Meta(
            description="How often, at most, a record is made of what a running command has printed since "
            "the last one, in seconds. With 0 there is only the record at its end."
        ),
    ] = 5.0
