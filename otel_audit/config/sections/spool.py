"""``[spool]``: records on disk until the sink has acknowledged them."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import Seconds, Section


class SpoolConfig(Section, frozen=True):
    directory: Annotated[
        str,
        Meta(description="Directory in which records wait for the sink. Relative to the configuration file."),
    ] = ".otel-audit/spool"
    fsync: Annotated[
        Literal["never", "always"],
        Meta(
            description="With `never`, records survive a crash of the process; with `always`, a crash "
            "of the machine as well, at the cost of one disk flush per transaction."
        ),
    ] = "never"
    segment_bytes: Annotated[
        int, Meta(ge=4096, description="Size at which a new segment file is started.")
    ] = 8 * 1024 * 1024
    max_bytes: Annotated[
        int,
        Meta(
            ge=65536,
            description="Maximum size of all segments in the directory. A write that finds "
            "no room waits for `block_timeout`, then `on_error` applies.",
        ),
    ] = 2 * 1024 * 1024 * 1024
    block_timeout: Annotated[
        Seconds,
        Meta(description="How long a write waits for room in the spool before `on_error` applies."),
    ] = 0.25
