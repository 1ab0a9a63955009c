"""``[store]``: where the trail is queried."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Age, Seconds, Section


class StoreConfig(Section, frozen=True):
    url: Annotated[
        str,
        Meta(
            description="Address for queries: `otel-audit serve`, or the HTTP interface of any "
            "ClickHouse server."
        ),
    ] = "http://127.0.0.1:8123"
    database: Annotated[str, Meta(description="Database of the audit tables.", pattern=r"^[A-Za-z_]\w*$")] = (
        "otel"
    )
    user: Annotated[str, Meta(description="ClickHouse user.")] = ""
    password: Annotated[
        str, Meta(description="Password. Prefer OTEL_AUDIT_STORE_PASSWORD.", extra=SECRET)
    ] = ""
    token: Annotated[
        str,
        Meta(
            description="Bearer token of `otel-audit serve`. Prefer OTEL_AUDIT_STORE_TOKEN.",
            extra=SECRET,
        ),
    ] = ""
    timeout: Annotated[Seconds, Meta(description="Timeout of one query.")] = 30.0
    cluster: Annotated[
        str,
        Meta(
            description="Cluster on which `otel-audit store` creates the tables. If empty, a single server."
        ),
    ] = ""
    retention: Annotated[
        dict[str, Age],
        Meta(
            description="Age at which a log is deleted, by log: `activity`, `pageview`, …; also "
            "`traces`, `metrics`, and `logs` for ordinary logs. Logs that are not named are kept "
            "indefinitely, except `metrics` (30d). Applied by `otel-audit store migrate`, and by "
            "`otel-audit serve` when it starts."
        ),
    ] = {}
    cold_after: Annotated[
        dict[str, Age],
        Meta(description="Age at which a log moves to the volume `cold` of the storage policy, by log."),
    ] = {}
    storage_policy: Annotated[
        str, Meta(description="Name of the ClickHouse server's storage policy for the tables.")
    ] = ""
    indexes: Annotated[
        Literal["unchanged", "all", "small"],
        Meta(
            description="Indexes of the records. `small` has none for free text and small ones for trace and "
            "request ids: a quarter less on the disk, the same answers, but slower ones to these queries. "
            "A new store has `all`. Applied like `retention`."
        ),
    ] = "unchanged"
