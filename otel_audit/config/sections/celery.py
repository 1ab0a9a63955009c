"""``[celery]`` and ``[rq]``: what is recorded of tasks."""

from typing import Annotated

from msgspec import Meta

from otel_audit.config.sections.section import Section


class CeleryConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Record which tasks of Celery are published, by whom, and how they run. Without it, "
            "what a task does is still recorded as done by the task."
        ),
    ] = False
    commands: Annotated[
        list[str],
        Meta(
            description="Management commands of Django that become tasks of that name, for `beat` and "
            "`send_task`: their arguments are those of `call_command`."
        ),
    ] = []
    once: Annotated[
        bool,
        Meta(
            description="Refuse the signed context of a task that was seen before on this machine and that "
            "the broker does not say to deliver again. The task runs all the same."
        ),
    ] = False


class RQConfig(Section, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Record which jobs of RQ are enqueued, by whom, and how they run.")
    ] = False
