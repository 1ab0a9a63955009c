"""What every database instrumentor is told: its own section adds what only it knows."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import Section, Strategy


class ModelConfig(Section, frozen=True):
    reads: Annotated[bool | None, Meta(description="Record reads of this model: one record per query.")] = (
        None
    )
    old_values: Annotated[
        Literal["as_loaded", "exact", "off"] | None,
        Meta(
            description="Where the old values of a saved instance come from: what the instance had "
            "loaded, or the row itself, read under a lock. `off` never queries the database."
        ),
    ] = None
    fields: Annotated[
        dict[str, Strategy],
        Meta(description="Redaction strategy by field name: drop, mask, keep_last:N, hmac or keep."),
    ] = {}
    ignore: Annotated[
        list[str],
        Meta(
            description="Fields of this model whose changes alone make no record, in addition to those "
            "of the section; a leading `!` takes one off that list."
        ),
    ] = []
    encrypted: Annotated[
        list[str],
        Meta(
            description="Fields that store the same value differently each time (encrypted, salted) and are "
            "not recognized as such, with `*` and `?`: values are compared as the instance holds them, and "
            "masked."
        ),
    ] = []
    snapshot: Annotated[
        bool | None,
        Meta(
            description="Record the whole row with every update, not only what the statement wrote. "
            "Creates and deletes always have it. If the row is not known, it is read under a lock."
        ),
    ] = None


class CaptureSection(Section, frozen=True):
    """What every database instrumentor is told: its own section adds what only it knows."""

    enabled: Annotated[
        bool, Meta(description="Audit this library if it is installed and `models` is not empty.")
    ] = True
    models: Annotated[
        list[str],
        Meta(
            description="Models whose changes are recorded, as `app_label.Model` or the path of a class "
            "(`project.shop.models.Order`), with `*` and `?`; a leading `!` excludes. The last pattern that "
            "matches decides. Classes (`__audit__`) and code (`audit_models()`) may name more."
        ),
    ] = []
    reads: Annotated[
        list[str],
        Meta(description="Models whose reads are recorded, as patterns like those of `models`."),
    ] = []
    old_values: Annotated[
        Literal["as_loaded", "exact", "off"],
        Meta(description="Default of `model.<pattern>.old_values`."),
    ] = "as_loaded"
    ignore: Annotated[
        list[str],
        Meta(
            description="Names of fields to ignore, with `*` and `?`: an update that changes only "
            "these makes no record. Together with other changes, they are recorded."
        ),
    ] = []
    failures: Annotated[bool, Meta(description="Record changes that were rolled back, as `failure`.")] = True
    max_bulk_rows: Annotated[
        int,
        Meta(
            ge=0,
            description="Above this number of rows, a bulk statement is recorded with ids only.",
        ),
    ] = 10_000
    max_bulk_ids: Annotated[
        int,
        Meta(
            ge=0,
            description="Above this number of rows, a bulk statement is recorded with the row count only.",
        ),
    ] = 100_000
    max_bulk_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Above this size of old and new values, a bulk statement is recorded with ids "
            "only. The database measures the size before rows are fetched.",
        ),
    ] = 8 * 1024 * 1024
    max_read_ids: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="Maximum number of object ids in the record of a read. The count is always recorded.",
        ),
    ] = 1_000
    model: Annotated[
        dict[str, ModelConfig],
        Meta(description="Settings per model, by pattern as in `models`."),
    ] = {}
