"""Every setting: name, type, default, bounds and what it is for, in this one place.

`otel-audit init`, `otel-audit config show` and ``docs/configuration.md`` are generated from here. Sizes are
bytes, times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_type_hints

import msgspec
from msgspec import Meta

SECRET = {"secret": True}
"""Metadata of a setting whose value is never shown."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Bytes: TypeAlias = Annotated[int, Meta(ge=0)]
Strategy: TypeAlias = Annotated[str, Meta(pattern=r"^(drop|mask|hmac|keep_last(:\d+)?|keep)$")]
"""``drop``, ``mask``, ``keep_last`` or ``keep_last:N``, ``hmac``; ``keep`` exempts a name from the rules."""
Age: TypeAlias = Annotated[str, Meta(pattern=r"^([1-9]\d{0,5}(h|d|w|mo|y)|forever)$")]
"""``90d``, ``18mo``, ``7y`` …, or ``forever``."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    def __repr__(self) -> str:
        """Return the settings without secrets: a representation ends in logs and tracebacks."""
        hints = get_type_hints(type(self), include_extras=True)
        shown = (
            f"{name}={'[hidden]' if value and _is_secret(hints[name]) else repr(value)}"
            for name, value in ((name, getattr(self, name)) for name in self.__struct_fields__)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _is_secret(hint: Any) -> bool:
    return any(getattr(meta, "extra", None) == SECRET for meta in getattr(hint, "__metadata__", ()))


class ModelConfig(_Section, frozen=True):
    reads: Annotated[bool | None, Meta(description="Record reads of this model: one record per query.")] = (
        None
    )
    old_values: Annotated[
        Literal["as_loaded", "exact", "off"] | None,
        Meta(
            description="Where old values of an instance save come from: what the instance loaded, or the "
            "row itself, locked. `off` asks nothing of the database, ever."
        ),
    ] = None
    fields: Annotated[
        dict[str, Strategy],
        Meta(description="Field name to strategy: drop, mask, keep_last:N, hmac, keep."),
    ] = {}
    ignore: Annotated[
        list[str],
        Meta(
            description="Fields of this model that do not count, in addition to those of the section; a "
            "leading `!` makes one count again."
        ),
    ] = []
    snapshot: Annotated[
        bool | None,
        Meta(
            description="Record the whole row with every update, not only what the statement wrote; deletes "
            "and creates have it anyway. Where the row is not known it is read, locked."
        ),
    ] = None


class CaptureSection(_Section, frozen=True):
    """What every database instrumentor is told: its own section adds what only it knows."""

    enabled: Annotated[
        bool, Meta(description="Audit this library where it is installed and models are named.")
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
        Meta(description="Models whose reads are recorded, in the same patterns."),
    ] = []
    old_values: Annotated[
        Literal["as_loaded", "exact", "off"],
        Meta(description="Default of `model.<pattern>.old_values`."),
    ] = "as_loaded"
    ignore: Annotated[
        list[str],
        Meta(
            description="Names of fields that do not count, with `*` and `?`: an update that changes nothing "
            "else makes no record; beside a change that counts they are listed."
        ),
    ] = []
    failures: Annotated[bool, Meta(description="Record changes that were rolled back, as `failure`.")] = True
    max_bulk_rows: Annotated[
        int,
        Meta(
            ge=0,
            description="Above this number of rows a bulk statement is recorded by ids only.",
        ),
    ] = 10_000
    max_bulk_ids: Annotated[
        int,
        Meta(ge=0, description="Above this number of rows it is recorded by count only."),
    ] = 100_000
    max_bulk_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Above this size of the old and new values a bulk statement is recorded by ids only; "
            "measured in the database, before rows are fetched.",
        ),
    ] = 8 * 1024 * 1024
    max_read_ids: Annotated[
        int, Meta(ge=0, le=1_000, description="Object ids a read record lists; it always has the count.")
    ] = 1_000
    model: Annotated[
        dict[str, ModelConfig],
        Meta(description="Settings of single models, by the same patterns."),
    ] = {}


class DjangoConfig(CaptureSection, frozen=True):
    auth_events: Annotated[
        bool,
        Meta(
            description="Record logins, logouts, failed logins and refused requests (401, 403, redirects to "
            "the login)."
        ),
    ] = True


class ContextConfig(_Section, frozen=True):
    trusted_proxies: Annotated[
        int,
        Meta(
            ge=0,
            description="Number of reverse proxies in front that append to X-Forwarded-For. 0: the header is "
            "ignored and the peer's address is recorded.",
        ),
    ] = 0
    request_id_header: Annotated[
        str,
        Meta(
            description="Header a trusted proxy sets with the request id; empty: always make our own. Read "
            "only if trusted_proxies is above 0."
        ),
    ] = "X-Request-ID"
    propagate: Annotated[
        bool,
        Meta(
            description="Put actor id and request id into outgoing OpenTelemetry baggage. Inbound baggage "
            "under our names is removed either way."
        ),
    ] = True
    impersonator_session_key: Annotated[
        str,
        Meta(
            description="Session key under which the application keeps the id of the user who really acts "
            "while another user is logged in. django-hijack and django-impersonate need no setting."
        ),
    ] = ""
    actor_roles: Annotated[
        bool,
        Meta(
            description="Record with the actor whether it is staff or superuser, and its groups where they "
            "were prefetched; nothing is queried."
        ),
    ] = False
    code_location: Annotated[
        bool,
        Meta(
            description="Record the application function a record was made in (`code.function.name`): the "
            "nearest on the stack that is no library's."
        ),
    ] = False


class RedactionConfig(_Section, frozen=True):
    enabled: Annotated[bool, Meta(description="Apply the built-in rules. Own rules always apply.")] = True
    personal_numbers: Annotated[
        bool,
        Meta(
            description="Of the built-in rules, those about numbers of persons and accounts: IBANs, and "
            "fields named iban, card, pan, bank_account, account_number, tax_id, passport_number, "
            "national_id or drivers_license. What they remove can be neither shown in a history nor found by "
            "its value."
        ),
    ] = True
    names: Annotated[
        list[str],
        Meta(
            description="More sensitive names, as regular expressions matched against the whole name of a "
            "field, key, header or parameter, without case."
        ),
    ] = []
    values: Annotated[
        list[str],
        Meta(
            description="More sensitive values, as regular expressions without case; with groups only the "
            "groups are replaced."
        ),
    ] = []
    allow: Annotated[
        list[str], Meta(description="Names the rules must leave alone, as regular expressions.")
    ] = []
    unknown_user_names: Annotated[
        Literal["keep", "mask", "hmac"],
        Meta(
            description="The name of a failed login that belongs to no account: recorded, masked, or hashed "
            "with `hmac_key`, so that equal ones can be counted. Sometimes it is a password, typed into the "
            "wrong field. Other than `keep` costs one query per failed login."
        ),
    ] = "keep"
    replacement: Annotated[str, Meta(description="What stands in place of a removed value.")] = "[redacted]"
    hmac_key: Annotated[
        str,
        Meta(
            description="Key of the hmac strategy, at least 16 characters; better given as "
            "OTEL_AUDIT_REDACTION_HMAC_KEY.",
            extra=SECRET,
        ),
    ] = ""
    spans: Annotated[bool, Meta(description="Redact every exported span as well.")] = True


class SpanEventConfig(_Section, frozen=True):
    content: Annotated[
        Literal["summary", "full", "none"],
        Meta(
            description="What the event on the current span carries: id, action, outcome, target and names "
            "of changed fields; the whole record; or no event."
        ),
    ] = "summary"


class SpoolConfig(_Section, frozen=True):
    directory: Annotated[
        str,
        Meta(description="Where records wait for the sink. Relative to the configuration file."),
    ] = ".otel-audit/spool"
    fsync: Annotated[
        Literal["never", "always"],
        Meta(
            description="`never` survives the death of the process, `always` the death of the machine as "
            "well (a disk flush for each transaction)."
        ),
    ] = "never"
    segment_bytes: Annotated[int, Meta(ge=4096, description="Size at which a new segment file is begun.")] = (
        8 * 1024 * 1024
    )
    max_bytes: Annotated[
        int,
        Meta(ge=65536, description="All segments in the directory together; above it the policy applies."),
    ] = 2 * 1024 * 1024 * 1024
    block_timeout: Annotated[
        Seconds,
        Meta(description="How long a write waits for room before `on_error` applies."),
    ] = 0.25


class SinkConfig(_Section, frozen=True):
    endpoint: Annotated[
        str,
        Meta(
            description="OTLP/HTTP address records are sent to. HTTP_PROXY, HTTPS_PROXY and NO_PROXY are "
            "obeyed as OpenTelemetry's exporters obey them."
        ),
    ] = "http://127.0.0.1:4318/v1/audit"
    token: Annotated[
        str, Meta(description="Bearer token; better given as OTEL_AUDIT_SINK_TOKEN.", extra=SECRET)
    ] = ""
    headers: Annotated[
        dict[str, str],
        Meta(
            description="More request headers; percent-encoded in OTEL_AUDIT_SINK_HEADERS, as in "
            "OTEL_EXPORTER_OTLP_HEADERS.",
            extra=SECRET,
        ),
    ] = {}
    compression: Annotated[Literal["gzip", "none"], Meta(description="Of request bodies.")] = "gzip"
    ca_file: Annotated[
        str, Meta(description="CA certificates for https, as a PEM file; empty: the system's.")
    ] = ""
    timeout: Annotated[Seconds, Meta(description="Of one request, its answer included.")] = 10.0
    batch_records: Annotated[int, Meta(ge=1, description="Most records in one request.")] = 2000
    batch_bytes: Annotated[
        int, Meta(ge=1024, description="Most bytes in one request before compression.")
    ] = 4 * 1024 * 1024
    max_delay: Annotated[
        Seconds, Meta(description="How long a record may wait for others to be sent with.")
    ] = 0.1
    max_backoff: Annotated[Seconds, Meta(description="Longest pause between two attempts.")] = 30.0
    shutdown_timeout: Annotated[
        Seconds,
        Meta(description="How long the process waits at exit for the sink; the rest stays in the spool."),
    ] = 5.0


class StoreConfig(_Section, frozen=True):
    url: Annotated[
        str,
        Meta(description="Where queries go: `otel-audit serve`, or any ClickHouse HTTP address."),
    ] = "http://127.0.0.1:8123"
    database: Annotated[str, Meta(description="Database of the audit tables.", pattern=r"^[A-Za-z_]\w*$")] = (
        "otel"
    )
    user: Annotated[str, Meta(description="ClickHouse user.")] = ""
    password: Annotated[
        str, Meta(description="Password; better given as OTEL_AUDIT_STORE_PASSWORD.", extra=SECRET)
    ] = ""
    token: Annotated[
        str,
        Meta(
            description="Bearer token of `otel-audit serve`; better given as OTEL_AUDIT_STORE_TOKEN.",
            extra=SECRET,
        ),
    ] = ""
    timeout: Annotated[Seconds, Meta(description="Of one query.")] = 30.0
    cluster: Annotated[
        str, Meta(description="Cluster the tables are made on (`otel-audit store`); empty: one server.")
    ] = ""
    retention: Annotated[
        dict[str, Age],
        Meta(
            description="Log (`activity`, `pageview`, …, also `traces`, `metrics`, and `logs` for ordinary "
            "ones) to the age at which it is deleted; what is not named is kept (`metrics`: 30d). Applied "
            "by `otel-audit store migrate`, and by `otel-audit serve` at its start."
        ),
    ] = {}
    cold_after: Annotated[
        dict[str, Age],
        Meta(description="Log to the age at which it moves to the volume `cold` of the storage policy."),
    ] = {}
    storage_policy: Annotated[
        str, Meta(description="Storage policy of the tables, as the ClickHouse server names it.")
    ] = ""


class ServerConfig(_Section, frozen=True):
    data: Annotated[
        str, Meta(description="Data directory of the embedded store. Relative to the configuration file.")
    ] = ".otel-audit/store"
    host: Annotated[
        str, Meta(description="Address to listen on. Any but loopback needs a token to write.")
    ] = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535, description="OTLP over HTTP.")] = 4318
    grpc_port: Annotated[int, Meta(ge=0, le=65535, description="OTLP over gRPC.")] = 4317
    clickhouse_port: Annotated[
        int, Meta(ge=0, le=65535, description="ClickHouse-compatible HTTP, for queries.")
    ] = 8123
    token: Annotated[
        str,
        Meta(
            description="Bearer token for everything: to write, to ask and to administer; better given as "
            "OTEL_AUDIT_SERVER_TOKEN.",
            extra=SECRET,
        ),
    ] = ""
    read_token: Annotated[
        str,
        Meta(
            description="Token to ask, instead of `token`. With neither, the server makes one and keeps it "
            "in its data directory, in the file `read-token`; the commands of the same user find it.",
            extra=SECRET,
        ),
    ] = ""
    write_token: Annotated[
        str,
        Meta(
            description="Token to write, by OTLP or as the Collector does, instead of `token`. With neither, "
            "every program on this machine may write.",
            extra=SECRET,
        ),
    ] = ""
    admin_token: Annotated[
        str,
        Meta(
            description="Token that opens what the other two open, whatever they are, instead of `token`.",
            extra=SECRET,
        ),
    ] = ""
    no_token: Annotated[
        bool, Meta(description="Answer every program on this machine, without a token to ask.")
    ] = False
    hosts: Annotated[
        list[str],
        Meta(
            description="More names by which requests without a token may reach this server (the header "
            "`Host`). `localhost` and its addresses always do; any other name may be that of a web page "
            "which points it here."
        ),
    ] = []
    fsync: Annotated[bool, Meta(description="Flush to the disk before a request is acknowledged.")] = True
    max_request_bytes: Annotated[Bytes, Meta(description="Largest request body, after decompression.")] = (
        64 * 1024 * 1024
    )
    record_queries: Annotated[
        bool,
        Meta(
            description="Record who asks what at the query port, in the log `access` "
            "(`otel-audit query --log access`)."
        ),
    ] = True
    memory_bytes: Annotated[Bytes, Meta(description="Memory the engine may use.")] = 2 * 1024 * 1024 * 1024


class AuditConfig(_Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(description="The switch. OTEL_SDK_DISABLED does not turn audit off; this does."),
    ] = True
    on_error: Annotated[
        Literal["fail_open", "fail_closed"],
        Meta(
            description="When a record cannot be kept: log, count and let the application go on, or raise "
            "into it (and refuse to start)."
        ),
    ] = "fail_open"
    tenant: Annotated[str, Meta(description="Tenant of every record that names no other.")] = ""
    system: Annotated[
        str, Meta(description="Name of the part of the system, on every record (app, scheduler, …).")
    ] = ""
    record_tests: Annotated[
        bool,
        Meta(
            description="Record also what tests do: in Django's test environment, and in test databases. By "
            "default nothing of it is recorded, but by `otel_audit.testing`."
        ),
    ] = False
    django: Annotated[DjangoConfig, Meta(description="Django: what is recorded.")] = DjangoConfig()
    context: Annotated[ContextConfig, Meta(description="Who and where from.")] = ContextConfig()
    redaction: Annotated[RedactionConfig, Meta(description="What is sensitive.")] = RedactionConfig()
    span_event: Annotated[SpanEventConfig, Meta(description="The event on the current span.")] = (
        SpanEventConfig()
    )
    spool: Annotated[SpoolConfig, Meta(description="Records on disk, until the sink has them.")] = (
        SpoolConfig()
    )
    sink: Annotated[SinkConfig, Meta(description="Where records are sent.")] = SinkConfig()
    store: Annotated[StoreConfig, Meta(description="Where queries go.")] = StoreConfig()
    server: Annotated[ServerConfig, Meta(description="`otel-audit serve`.")] = ServerConfig()

    @property
    def fail_closed(self) -> bool:
        """Say whether what cannot be recorded is refused to the application."""
        return self.on_error == "fail_closed"


def capture_sections(config: AuditConfig) -> dict[str, CaptureSection]:
    """Return the sections that say what a database instrumentor records, by name."""
    return {
        name: section
        for name, section in msgspec.structs.asdict(config).items()
        if isinstance(section, CaptureSection)
    }
