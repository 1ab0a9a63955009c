"""Every setting: name, type, default, bounds and what it is for, in this one place.

`otel-audit init`, `otel-audit config show` and ``docs/configuration.md`` are generated from here. Sizes are
bytes, times are seconds unless a name says otherwise.
"""

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


class CaptureSection(_Section, frozen=True):
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
            description="Number of reverse proxies in front of the application that append to "
            "X-Forwarded-For. With 0 the header is ignored and the peer's address is recorded.",
        ),
    ] = 0
    request_id_header: Annotated[
        str,
        Meta(
            description="Header in which a trusted proxy sends the request id. If empty, otel-audit "
            "always generates one. Read only if trusted_proxies is above 0."
        ),
    ] = "X-Request-ID"
    propagate: Annotated[
        bool,
        Meta(
            description="Has no effect any more: ids were sent unsigned, to every host. Use `propagate_to`."
        ),
    ] = False
    propagate_to: Annotated[
        list[str],
        Meta(
            description="Hosts to which outgoing calls carry who acts, tenant and request id, as a signed "
            "context in the header `baggage`: `host`, `host:port`, or `*.domain` for all hosts below a "
            "domain. Needs a key."
        ),
    ] = []
    audience: Annotated[
        list[str],
        Meta(
            description="Names under which other services call this one, written as in their "
            "`propagate_to`. A signed context is accepted only if it was made for one of them."
        ),
    ] = []
    keys: Annotated[
        dict[str, str],
        Meta(
            description="Keys of signed contexts: secrets of at least 32 characters by key id. All of them "
            "are accepted, one signs. Prefer OTEL_AUDIT_CONTEXT_KEYS or `keys_file`.",
            extra=SECRET,
        ),
    ] = {}
    keys_file: Annotated[
        str,
        Meta(
            description="File with more keys, one `id=secret` per line. Relative to the configuration file. "
            "Read when the process starts."
        ),
    ] = ""
    signing_key: Annotated[
        str, Meta(description="Id of the key that signs. If empty and there is one key only, that one.")
    ] = ""
    baggage: Annotated[
        Literal["off", "process"],
        Meta(
            description="With `process`, the ids of the actor and of the request are visible in the baggage "
            "of the current OpenTelemetry context, for other span processors and for logging. No "
            "propagator sends them to other processes."
        ),
    ] = "off"
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
            description="Record whether the actor is staff or superuser, and the actor's groups if "
            "they were prefetched. Makes no query."
        ),
    ] = False
    code_location: Annotated[
        bool,
        Meta(
            description="Record the application function that made the change (`code.function.name`): "
            "the innermost stack frame outside installed libraries."
        ),
    ] = False


class RedactionConfig(_Section, frozen=True):
    enabled: Annotated[bool, Meta(description="Apply the built-in rules. Your own rules always apply.")] = (
        True
    )
    personal_numbers: Annotated[
        bool,
        Meta(
            description="Apply the built-in rules for numbers of persons and accounts: IBANs, and "
            "fields named iban, card, pan, bank_account, account_number, tax_id, passport_number, "
            "national_id or drivers_license. Values they remove do not appear in a history and cannot "
            "be searched for."
        ),
    ] = True
    names: Annotated[
        list[str],
        Meta(
            description="Additional sensitive names, as regular expressions. Each is matched against "
            "the whole name of a field, key, header or parameter, ignoring case."
        ),
    ] = []
    values: Annotated[
        list[str],
        Meta(
            description="Additional sensitive values, as regular expressions, ignoring case. If an "
            "expression has groups, only the groups are replaced."
        ),
    ] = []
    allow: Annotated[
        list[str], Meta(description="Names that the rules must not redact, as regular expressions.")
    ] = []
    unknown_user_names: Annotated[
        Literal["keep", "mask", "hmac"],
        Meta(
            description="User name of a failed login that belongs to no account: record it, mask it, "
            "or hash it with `hmac_key`, so that equal names can be counted. Such a name is sometimes "
            "a password typed into the wrong field. `mask` and `hmac` cost one query per failed login."
        ),
    ] = "keep"
    replacement: Annotated[str, Meta(description="Text that replaces a removed value.")] = "[redacted]"
    hmac_key: Annotated[
        str,
        Meta(
            description="Key of the hmac strategy, at least 16 characters. Prefer "
            "OTEL_AUDIT_REDACTION_HMAC_KEY.",
            extra=SECRET,
        ),
    ] = ""
    spans: Annotated[bool, Meta(description="Redact exported spans as well.")] = True


class SpanEventConfig(_Section, frozen=True):
    content: Annotated[
        Literal["summary", "full", "none"],
        Meta(
            description="Content of the event on the current span. `summary`: id, action, outcome, "
            "target and the names of changed fields. `full`: the whole record. `none`: no event."
        ),
    ] = "summary"


class SpoolConfig(_Section, frozen=True):
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


class SinkConfig(_Section, frozen=True):
    endpoint: Annotated[
        str,
        Meta(
            description="OTLP/HTTP address to which records are sent. HTTP_PROXY, HTTPS_PROXY and "
            "NO_PROXY are respected as by OpenTelemetry's exporters."
        ),
    ] = "http://127.0.0.1:4318/v1/audit"
    token: Annotated[str, Meta(description="Bearer token. Prefer OTEL_AUDIT_SINK_TOKEN.", extra=SECRET)] = ""
    headers: Annotated[
        dict[str, str],
        Meta(
            description="Additional request headers. Percent-encoded in OTEL_AUDIT_SINK_HEADERS, as in "
            "OTEL_EXPORTER_OTLP_HEADERS.",
            extra=SECRET,
        ),
    ] = {}
    compression: Annotated[Literal["gzip", "none"], Meta(description="Compression of request bodies.")] = (
        "gzip"
    )
    ca_file: Annotated[
        str, Meta(description="PEM file with CA certificates for https. If empty, the system's are used.")
    ] = ""
    timeout: Annotated[Seconds, Meta(description="Timeout of one request, including its response.")] = 10.0
    batch_records: Annotated[int, Meta(ge=1, description="Maximum number of records per request.")] = 2000
    batch_bytes: Annotated[
        int, Meta(ge=1024, description="Maximum size of a request before compression.")
    ] = 4 * 1024 * 1024
    max_delay: Annotated[
        Seconds, Meta(description="How long a record may wait so that others can be sent with it.")
    ] = 0.1
    max_backoff: Annotated[Seconds, Meta(description="Longest pause between two attempts to send.")] = 30.0
    shutdown_timeout: Annotated[
        Seconds,
        Meta(
            description="How long a process that exits waits for the sink. Records that were not sent "
            "by then stay in the spool."
        ),
    ] = 5.0


class StoreConfig(_Section, frozen=True):
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


class ServerConfig(_Section, frozen=True):
    data: Annotated[
        str, Meta(description="Data directory of the embedded store. Relative to the configuration file.")
    ] = ".otel-audit/store"
    host: Annotated[
        str, Meta(description="Address to listen on. Any address except loopback requires a write token.")
    ] = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535, description="Port for OTLP over HTTP.")] = 4318
    grpc_port: Annotated[int, Meta(ge=0, le=65535, description="Port for OTLP over gRPC.")] = 4317
    clickhouse_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port for queries, over ClickHouse-compatible HTTP.")
    ] = 8123
    token: Annotated[
        str,
        Meta(
            description="Bearer token to write, read and administer. Prefer OTEL_AUDIT_SERVER_TOKEN.",
            extra=SECRET,
        ),
    ] = ""
    read_token: Annotated[
        str,
        Meta(
            description="Token to read, instead of `token`. If neither is set, the server generates "
            "one and keeps it in the file `read-token` of its data directory, where the commands of "
            "the same user find it.",
            extra=SECRET,
        ),
    ] = ""
    write_token: Annotated[
        str,
        Meta(
            description="Token to write, by OTLP or as the Collector's ClickHouse exporter does, "
            "instead of `token`. If neither is set, every program on this machine may write.",
            extra=SECRET,
        ),
    ] = ""
    admin_token: Annotated[
        str,
        Meta(
            description="Token to write and to read, in addition to `write_token` and `read_token`, "
            "instead of `token`.",
            extra=SECRET,
        ),
    ] = ""
    no_token: Annotated[bool, Meta(description="Let every program on this machine read without a token.")] = (
        False
    )
    hosts: Annotated[
        list[str],
        Meta(
            description="Additional host names (header `Host`) by which requests without a token may "
            "reach this server. `localhost` and the machine's addresses are always allowed. Other "
            "names are refused, because a web page could make its own name resolve to this server."
        ),
    ] = []
    fsync: Annotated[bool, Meta(description="Flush to disk before a request is acknowledged.")] = True
    max_request_bytes: Annotated[
        Bytes, Meta(description="Maximum size of a request body after decompression.")
    ] = 64 * 1024 * 1024
    record_queries: Annotated[
        bool,
        Meta(
            description="Record who asks what at the query port, in the log `access` "
            "(`otel-audit query --log access`)."
        ),
    ] = True
    memory_bytes: Annotated[Bytes, Meta(description="Memory that the database engine may use.")] = (
        2 * 1024 * 1024 * 1024
    )


class AuditConfig(_Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Whether anything is audited. OTEL_SDK_DISABLED does not switch audit off; this does."
        ),
    ] = True
    on_error: Annotated[
        Literal["fail_open", "fail_closed"],
        Meta(
            description="What happens when a record cannot be kept. `fail_open`: log it, count it, and "
            "let the application go on. `fail_closed`: raise an exception in the application, and "
            "refuse to start if audit cannot start."
        ),
    ] = "fail_open"
    tenant: Annotated[str, Meta(description="Tenant of every record that does not name one.")] = ""
    tenant_from: Annotated[
        str,
        Meta(
            description="Function of the application that returns the tenant of a record, as "
            "`package.module:function`. It is called with the current request (None outside a request) when "
            "the record is made, and returns a name, a number, an object with a primary key, or None. It "
            "must not query a database."
        ),
    ] = ""
    system: Annotated[
        str, Meta(description="Name of this part of the system (app, scheduler, …), on every record.")
    ] = ""
    record_tests: Annotated[
        bool,
        Meta(
            description="Also record what tests do, in Django's test environment and in test "
            "databases. By default only `otel_audit.testing` records it."
        ),
    ] = False
    django: Annotated[DjangoConfig, Meta(description="What is recorded in Django.")] = DjangoConfig()
    context: Annotated[ContextConfig, Meta(description="Who acted, and from where.")] = ContextConfig()
    redaction: Annotated[RedactionConfig, Meta(description="What is sensitive.")] = RedactionConfig()
    span_event: Annotated[SpanEventConfig, Meta(description="The event on the current span.")] = (
        SpanEventConfig()
    )
    spool: Annotated[
        SpoolConfig, Meta(description="Records on disk until the sink has acknowledged them.")
    ] = SpoolConfig()
    sink: Annotated[SinkConfig, Meta(description="Where records are sent.")] = SinkConfig()
    store: Annotated[StoreConfig, Meta(description="Where the trail is queried.")] = StoreConfig()
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
