CREATE DATABASE IF NOT EXISTS otel;

CREATE TABLE IF NOT EXISTS otel.otel_audit_migrations (
  kind LowCardinality(String),
  name String,
  version UInt32,
  checksum String,
  applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
  applied_by String
) ENGINE = MergeTree
ORDER BY (kind, name, applied_at);

CREATE TABLE IF NOT EXISTS otel.audit_log (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1))
) ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel.otel_logs (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS otel.otel_traces (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  ParentSpanId String CODEC(ZSTD(1)),
  TraceState String CODEC(ZSTD(1)),
  SpanName LowCardinality(String) CODEC(ZSTD(1)),
  SpanKind LowCardinality(String) CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  Duration UInt64 CODEC(ZSTD(1)),
  StatusCode LowCardinality(String) CODEC(ZSTD(1)),
  StatusMessage String CODEC(ZSTD(1)),
  Events Nested(
    Timestamp DateTime64(9),
    Name LowCardinality(String),
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  Links Nested(
    TraceId String,
    SpanId String,
    TraceState String,
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_duration Duration TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS otel.otel_traces_trace_id_ts (
  TraceId String CODEC(ZSTD(1)),
  Start DateTime CODEC(Delta, ZSTD(1)),
  End DateTime CODEC(Delta, ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TraceId, Start)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS otel.audit_events (
  timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  record_id UUID CODEC(ZSTD(1)),
  ordinal UInt32 CODEC(T64, ZSTD(1)),
  log LowCardinality(String),
  event_name LowCardinality(String),
  actor_id String CODEC(ZSTD(1)),
  actor_type LowCardinality(String),
  actor_name String CODEC(ZSTD(1)),
  on_behalf_of String CODEC(ZSTD(1)),
  action LowCardinality(String),
  outcome LowCardinality(String),
  target_type LowCardinality(String),
  target_id String CODEC(ZSTD(1)),
  source_ip String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  method LowCardinality(String),
  route LowCardinality(String),
  service LowCardinality(String),
  tenant LowCardinality(String),
  system LowCardinality(String),
  event_type LowCardinality(String),
  reason String CODEC(ZSTD(1)),
  error String CODEC(ZSTD(1)),
  transaction String CODEC(ZSTD(1)),
  completeness LowCardinality(String),
  old_values LowCardinality(String),
  truncated Bool,
  row_count UInt64 CODEC(T64, ZSTD(1)),
  stream LowCardinality(String),
  sequence UInt64 CODEC(DoubleDelta, ZSTD(1)),
  schema_version LowCardinality(String),
  trace_id String CODEC(ZSTD(1)),
  span_id String CODEC(ZSTD(1)),
  message String CODEC(ZSTD(1)),
  related Array(String) CODEC(ZSTD(1)),
  changes Nested(
    field LowCardinality(String),
    old String,
    new String,
    type LowCardinality(String),
    known LowCardinality(String)
  ) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  target String ALIAS if(target_id = '', target_type, concat(target_type, '/', target_id)),
  change_items Array(String) ALIAS arrayMap((f, v) -> concat(f, '=', v), changes.field, changes.new),
  search_text String ALIAS lower(concat(message, ' ', arrayStringConcat(changes.new, ' '), ' ',
    arrayStringConcat(changes.old, ' '))),
  INDEX ix_target target TYPE text(tokenizer = 'array'),
  INDEX ix_actor actor_id TYPE text(tokenizer = 'array'),
  INDEX ix_actor_name actor_name TYPE text(tokenizer = 'array'),
  INDEX ix_trace trace_id TYPE text(tokenizer = 'array'),
  INDEX ix_request request_id TYPE text(tokenizer = 'array'),
  INDEX ix_related related TYPE text(tokenizer = 'array'),
  INDEX ix_field changes.field TYPE text(tokenizer = 'array'),
  INDEX ix_items change_items TYPE text(tokenizer = 'array'),
  INDEX ix_text search_text TYPE text(tokenizer = 'splitByNonAlpha'),
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, record_id, ordinal)
SETTINGS index_granularity = 2048, non_replicated_deduplication_window = 1000;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('tables', 'tables', 1, '', 'otel-audit 0.1.0.dev0');

CREATE TABLE IF NOT EXISTS otel.activity_log (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1))
) ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel.pageview_log (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1))
) ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel.other_log (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1))
) ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel.activity_events (
  timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  record_id UUID CODEC(ZSTD(1)),
  ordinal UInt32 CODEC(T64, ZSTD(1)),
  log LowCardinality(String),
  event_name LowCardinality(String),
  actor_id String CODEC(ZSTD(1)),
  actor_type LowCardinality(String),
  actor_name String CODEC(ZSTD(1)),
  on_behalf_of String CODEC(ZSTD(1)),
  action LowCardinality(String),
  outcome LowCardinality(String),
  target_type LowCardinality(String),
  target_id String CODEC(ZSTD(1)),
  source_ip String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  method LowCardinality(String),
  route LowCardinality(String),
  service LowCardinality(String),
  tenant LowCardinality(String),
  system LowCardinality(String),
  event_type LowCardinality(String),
  reason String CODEC(ZSTD(1)),
  error String CODEC(ZSTD(1)),
  transaction String CODEC(ZSTD(1)),
  completeness LowCardinality(String),
  old_values LowCardinality(String),
  truncated Bool,
  row_count UInt64 CODEC(T64, ZSTD(1)),
  stream LowCardinality(String),
  sequence UInt64 CODEC(DoubleDelta, ZSTD(1)),
  schema_version LowCardinality(String),
  trace_id String CODEC(ZSTD(1)),
  span_id String CODEC(ZSTD(1)),
  message String CODEC(ZSTD(1)),
  related Array(String) CODEC(ZSTD(1)),
  changes Nested(
    field LowCardinality(String),
    old String,
    new String,
    type LowCardinality(String),
    known LowCardinality(String)
  ) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  target String ALIAS if(target_id = '', target_type, concat(target_type, '/', target_id)),
  change_items Array(String) ALIAS arrayMap((f, v) -> concat(f, '=', v), changes.field, changes.new),
  search_text String ALIAS lower(concat(message, ' ', arrayStringConcat(changes.new, ' '), ' ',
    arrayStringConcat(changes.old, ' '))),
  INDEX ix_target target TYPE text(tokenizer = 'array'),
  INDEX ix_actor actor_id TYPE text(tokenizer = 'array'),
  INDEX ix_actor_name actor_name TYPE text(tokenizer = 'array'),
  INDEX ix_trace trace_id TYPE text(tokenizer = 'array'),
  INDEX ix_request request_id TYPE text(tokenizer = 'array'),
  INDEX ix_related related TYPE text(tokenizer = 'array'),
  INDEX ix_field changes.field TYPE text(tokenizer = 'array'),
  INDEX ix_items change_items TYPE text(tokenizer = 'array'),
  INDEX ix_text search_text TYPE text(tokenizer = 'splitByNonAlpha'),
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, record_id, ordinal)
SETTINGS index_granularity = 2048, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS otel.pageview_events (
  timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  record_id UUID CODEC(ZSTD(1)),
  ordinal UInt32 CODEC(T64, ZSTD(1)),
  log LowCardinality(String),
  event_name LowCardinality(String),
  actor_id String CODEC(ZSTD(1)),
  actor_type LowCardinality(String),
  actor_name String CODEC(ZSTD(1)),
  on_behalf_of String CODEC(ZSTD(1)),
  action LowCardinality(String),
  outcome LowCardinality(String),
  target_type LowCardinality(String),
  target_id String CODEC(ZSTD(1)),
  source_ip String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  method LowCardinality(String),
  route LowCardinality(String),
  service LowCardinality(String),
  tenant LowCardinality(String),
  system LowCardinality(String),
  event_type LowCardinality(String),
  reason String CODEC(ZSTD(1)),
  error String CODEC(ZSTD(1)),
  transaction String CODEC(ZSTD(1)),
  completeness LowCardinality(String),
  old_values LowCardinality(String),
  truncated Bool,
  row_count UInt64 CODEC(T64, ZSTD(1)),
  stream LowCardinality(String),
  sequence UInt64 CODEC(DoubleDelta, ZSTD(1)),
  schema_version LowCardinality(String),
  trace_id String CODEC(ZSTD(1)),
  span_id String CODEC(ZSTD(1)),
  message String CODEC(ZSTD(1)),
  related Array(String) CODEC(ZSTD(1)),
  changes Nested(
    field LowCardinality(String),
    old String,
    new String,
    type LowCardinality(String),
    known LowCardinality(String)
  ) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  target String ALIAS if(target_id = '', target_type, concat(target_type, '/', target_id)),
  change_items Array(String) ALIAS arrayMap((f, v) -> concat(f, '=', v), changes.field, changes.new),
  search_text String ALIAS lower(concat(message, ' ', arrayStringConcat(changes.new, ' '), ' ',
    arrayStringConcat(changes.old, ' '))),
  INDEX ix_target target TYPE text(tokenizer = 'array'),
  INDEX ix_actor actor_id TYPE text(tokenizer = 'array'),
  INDEX ix_actor_name actor_name TYPE text(tokenizer = 'array'),
  INDEX ix_trace trace_id TYPE text(tokenizer = 'array'),
  INDEX ix_request request_id TYPE text(tokenizer = 'array'),
  INDEX ix_related related TYPE text(tokenizer = 'array'),
  INDEX ix_field changes.field TYPE text(tokenizer = 'array'),
  INDEX ix_items change_items TYPE text(tokenizer = 'array'),
  INDEX ix_text search_text TYPE text(tokenizer = 'splitByNonAlpha'),
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, record_id, ordinal)
SETTINGS index_granularity = 2048, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS otel.other_events (
  timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  record_id UUID CODEC(ZSTD(1)),
  ordinal UInt32 CODEC(T64, ZSTD(1)),
  log LowCardinality(String),
  event_name LowCardinality(String),
  actor_id String CODEC(ZSTD(1)),
  actor_type LowCardinality(String),
  actor_name String CODEC(ZSTD(1)),
  on_behalf_of String CODEC(ZSTD(1)),
  action LowCardinality(String),
  outcome LowCardinality(String),
  target_type LowCardinality(String),
  target_id String CODEC(ZSTD(1)),
  source_ip String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  method LowCardinality(String),
  route LowCardinality(String),
  service LowCardinality(String),
  tenant LowCardinality(String),
  system LowCardinality(String),
  event_type LowCardinality(String),
  reason String CODEC(ZSTD(1)),
  error String CODEC(ZSTD(1)),
  transaction String CODEC(ZSTD(1)),
  completeness LowCardinality(String),
  old_values LowCardinality(String),
  truncated Bool,
  row_count UInt64 CODEC(T64, ZSTD(1)),
  stream LowCardinality(String),
  sequence UInt64 CODEC(DoubleDelta, ZSTD(1)),
  schema_version LowCardinality(String),
  trace_id String CODEC(ZSTD(1)),
  span_id String CODEC(ZSTD(1)),
  message String CODEC(ZSTD(1)),
  related Array(String) CODEC(ZSTD(1)),
  changes Nested(
    field LowCardinality(String),
    old String,
    new String,
    type LowCardinality(String),
    known LowCardinality(String)
  ) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  target String ALIAS if(target_id = '', target_type, concat(target_type, '/', target_id)),
  change_items Array(String) ALIAS arrayMap((f, v) -> concat(f, '=', v), changes.field, changes.new),
  search_text String ALIAS lower(concat(message, ' ', arrayStringConcat(changes.new, ' '), ' ',
    arrayStringConcat(changes.old, ' '))),
  INDEX ix_target target TYPE text(tokenizer = 'array'),
  INDEX ix_actor actor_id TYPE text(tokenizer = 'array'),
  INDEX ix_actor_name actor_name TYPE text(tokenizer = 'array'),
  INDEX ix_trace trace_id TYPE text(tokenizer = 'array'),
  INDEX ix_request request_id TYPE text(tokenizer = 'array'),
  INDEX ix_related related TYPE text(tokenizer = 'array'),
  INDEX ix_field changes.field TYPE text(tokenizer = 'array'),
  INDEX ix_items change_items TYPE text(tokenizer = 'array'),
  INDEX ix_text search_text TYPE text(tokenizer = 'splitByNonAlpha'),
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, record_id, ordinal)
SETTINGS index_granularity = 2048, non_replicated_deduplication_window = 1000;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'audit', 2, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'activity', 2, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'pageview', 2, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'other', 2, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('tables', 'logs', 2, '', 'otel-audit 0.1.0.dev0');

CREATE TABLE IF NOT EXISTS otel.otel_audit_metrics (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  StartTimestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName LowCardinality(String) CODEC(ZSTD(1)),
  MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
  Value Float64 CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (MetricName, ServiceName, Timestamp)
TTL Timestamp + INTERVAL 30 DAY DELETE
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('tables', 'metrics', 3, '', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.other_log_strays_mv TO otel.otel_logs AS SELECT Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName FROM otel.other_log WHERE NOT (toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL);

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'other_log_strays_mv', 0, '03eabc78dc897bb73731e257120e627f1e6f40a5126f8efdeebc71b91a2ce5a1', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.pageview_log_strays_mv TO otel.other_log AS SELECT Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName FROM otel.pageview_log WHERE NOT (toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'pageview');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'pageview_log_strays_mv', 0, '95926cca04bd851dca38530fd6c35d6617b107593902819b8373474567bef527', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.activity_log_strays_mv TO otel.other_log AS SELECT Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName FROM otel.activity_log WHERE NOT (toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'activity');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'activity_log_strays_mv', 0, 'f436360ec5eaf1196e500858e57e102828218b752bbd00f94d30e21b2fb40d61', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.audit_log_strays_mv TO otel.other_log AS SELECT Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName FROM otel.audit_log WHERE NOT (toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'audit');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'audit_log_strays_mv', 0, '5da2c4d8e4b28635bed98ce6c433f7afbbeb250df62e7d5d4922901626f4db08', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.audit_events_mv TO otel.audit_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource
FROM (
  WITH
    JSONExtract(LogAttributes['otel_audit.changes'], 'Array(Map(String, Nullable(String)))') AS listed,
    arrayMap(c -> (if(mapContains(c, 'old'), ifNull(concat('v', c['old']), 'n'), '-'), if(mapContains(c, 'new'), ifNull(concat('v', c['new']), 'n'), '-')), listed) AS own_pairs,
    LogAttributes['audit.target.id'] AS own_key,
    JSONExtract(LogAttributes['otel_audit.bulk'], 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(
      field String, old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    length(bulk.keys) * length(bulk.columns) <= 4000000
      AND length(bulk.keys) * (byteSize(LogAttributes) - length(LogAttributes['otel_audit.bulk']) + length(Body))
        <= 1073741824 AS fits,
    if(fits, bulk.keys, []) AS keys, if(fits, bulk.columns, []) AS columns,
    length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['audit.record.id']) AS record_id,
    if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) AS log,
    LogAttributes['otel_audit.event.name'] AS event_name,
    LogAttributes['audit.actor.id'] AS actor_id,
    LogAttributes['audit.actor.type'] AS actor_type,
    LogAttributes['user.name'] AS actor_name,
    LogAttributes['otel_audit.on_behalf_of'] AS on_behalf_of,
    LogAttributes['audit.action'] AS action,
    LogAttributes['audit.outcome'] AS outcome,
    LogAttributes['audit.target.type'] AS target_type,
    LogAttributes['audit.source.id'] AS source_ip,
    LogAttributes['session.id'] AS session,
    LogAttributes['otel_audit.request.id'] AS request_id,
    LogAttributes['http.request.method'] AS method,
    LogAttributes['http.route'] AS route,
    LogAttributes['otel_audit.tenant'] AS tenant,
    LogAttributes['otel_audit.system'] AS system,
    LogAttributes['otel_audit.event.type'] AS event_type,
    LogAttributes['otel_audit.reason'] AS reason,
    LogAttributes['error.type'] AS error,
    LogAttributes['otel_audit.transaction.id'] AS transaction,
    LogAttributes['otel_audit.completeness'] AS completeness,
    LogAttributes['otel_audit.old_values'] AS old_values,
    LogAttributes['audit.sequence.stream_id'] AS stream,
    ServiceName AS service,
    LogAttributes['otel_audit.truncated'] = 'true' AS truncated,
    bulk.count AS row_count,
    toUInt64OrZero(LogAttributes['audit.sequence.number']) AS sequence,
    LogAttributes['audit.schema.version'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract(LogAttributes['otel_audit.related'], 'Array(Tuple(type String, id String))')) AS own_related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),
      width > 0, tupleElement(columns, 'field'),
      JSONExtract(LogAttributes['otel_audit.fields'], 'Array(String)')) AS fields,
    if(notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed), tupleElement(columns, 'type')) AS types,
    arrayPushFront(keys, own_key) AS keys_,
    arrayPushFront(
      arrayResize(
        arraySplit((v, i) -> i % width = 0,
          arraySort((v, i) -> i % n * width + intDiv(i, n),
            arrayFlatten(arrayMap(c -> arrayZip(arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.old), n, '-'), arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.new), n, '-')), columns)),
            cell_numbers),
          cell_numbers),
        n),
      own_pairs) AS pairs_,
    arrayResize([own_related], n + 1) AS related_,
    arrayResize([LogAttributes], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.audit_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'audit'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'audit_events_mv', 0, 'f287848c4e8b8c8c4df999aa38b0d837c00327a9a64472261f780a1039e298c2', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.activity_events_mv TO otel.activity_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource
FROM (
  WITH
    JSONExtract(LogAttributes['otel_audit.changes'], 'Array(Map(String, Nullable(String)))') AS listed,
    arrayMap(c -> (if(mapContains(c, 'old'), ifNull(concat('v', c['old']), 'n'), '-'), if(mapContains(c, 'new'), ifNull(concat('v', c['new']), 'n'), '-')), listed) AS own_pairs,
    LogAttributes['audit.target.id'] AS own_key,
    JSONExtract(LogAttributes['otel_audit.bulk'], 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(
      field String, old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    length(bulk.keys) * length(bulk.columns) <= 4000000
      AND length(bulk.keys) * (byteSize(LogAttributes) - length(LogAttributes['otel_audit.bulk']) + length(Body))
        <= 1073741824 AS fits,
    if(fits, bulk.keys, []) AS keys, if(fits, bulk.columns, []) AS columns,
    length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['audit.record.id']) AS record_id,
    if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) AS log,
    LogAttributes['otel_audit.event.name'] AS event_name,
    LogAttributes['audit.actor.id'] AS actor_id,
    LogAttributes['audit.actor.type'] AS actor_type,
    LogAttributes['user.name'] AS actor_name,
    LogAttributes['otel_audit.on_behalf_of'] AS on_behalf_of,
    LogAttributes['audit.action'] AS action,
    LogAttributes['audit.outcome'] AS outcome,
    LogAttributes['audit.target.type'] AS target_type,
    LogAttributes['audit.source.id'] AS source_ip,
    LogAttributes['session.id'] AS session,
    LogAttributes['otel_audit.request.id'] AS request_id,
    LogAttributes['http.request.method'] AS method,
    LogAttributes['http.route'] AS route,
    LogAttributes['otel_audit.tenant'] AS tenant,
    LogAttributes['otel_audit.system'] AS system,
    LogAttributes['otel_audit.event.type'] AS event_type,
    LogAttributes['otel_audit.reason'] AS reason,
    LogAttributes['error.type'] AS error,
    LogAttributes['otel_audit.transaction.id'] AS transaction,
    LogAttributes['otel_audit.completeness'] AS completeness,
    LogAttributes['otel_audit.old_values'] AS old_values,
    LogAttributes['audit.sequence.stream_id'] AS stream,
    ServiceName AS service,
    LogAttributes['otel_audit.truncated'] = 'true' AS truncated,
    bulk.count AS row_count,
    toUInt64OrZero(LogAttributes['audit.sequence.number']) AS sequence,
    LogAttributes['audit.schema.version'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract(LogAttributes['otel_audit.related'], 'Array(Tuple(type String, id String))')) AS own_related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),
      width > 0, tupleElement(columns, 'field'),
      JSONExtract(LogAttributes['otel_audit.fields'], 'Array(String)')) AS fields,
    if(notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed), tupleElement(columns, 'type')) AS types,
    arrayPushFront(keys, own_key) AS keys_,
    arrayPushFront(
      arrayResize(
        arraySplit((v, i) -> i % width = 0,
          arraySort((v, i) -> i % n * width + intDiv(i, n),
            arrayFlatten(arrayMap(c -> arrayZip(arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.old), n, '-'), arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.new), n, '-')), columns)),
            cell_numbers),
          cell_numbers),
        n),
      own_pairs) AS pairs_,
    arrayResize([own_related], n + 1) AS related_,
    arrayResize([LogAttributes], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.activity_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'activity'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'activity_events_mv', 0, 'a37fb526bca74456e893668b2e7d70ff1b98bc8cc384c5c767ed5b7921005145', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.pageview_events_mv TO otel.pageview_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource
FROM (
  WITH
    JSONExtract(LogAttributes['otel_audit.changes'], 'Array(Map(String, Nullable(String)))') AS listed,
    arrayMap(c -> (if(mapContains(c, 'old'), ifNull(concat('v', c['old']), 'n'), '-'), if(mapContains(c, 'new'), ifNull(concat('v', c['new']), 'n'), '-')), listed) AS own_pairs,
    LogAttributes['audit.target.id'] AS own_key,
    JSONExtract(LogAttributes['otel_audit.bulk'], 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(
      field String, old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    length(bulk.keys) * length(bulk.columns) <= 4000000
      AND length(bulk.keys) * (byteSize(LogAttributes) - length(LogAttributes['otel_audit.bulk']) + length(Body))
        <= 1073741824 AS fits,
    if(fits, bulk.keys, []) AS keys, if(fits, bulk.columns, []) AS columns,
    length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['audit.record.id']) AS record_id,
    if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) AS log,
    LogAttributes['otel_audit.event.name'] AS event_name,
    LogAttributes['audit.actor.id'] AS actor_id,
    LogAttributes['audit.actor.type'] AS actor_type,
    LogAttributes['user.name'] AS actor_name,
    LogAttributes['otel_audit.on_behalf_of'] AS on_behalf_of,
    LogAttributes['audit.action'] AS action,
    LogAttributes['audit.outcome'] AS outcome,
    LogAttributes['audit.target.type'] AS target_type,
    LogAttributes['audit.source.id'] AS source_ip,
    LogAttributes['session.id'] AS session,
    LogAttributes['otel_audit.request.id'] AS request_id,
    LogAttributes['http.request.method'] AS method,
    LogAttributes['http.route'] AS route,
    LogAttributes['otel_audit.tenant'] AS tenant,
    LogAttributes['otel_audit.system'] AS system,
    LogAttributes['otel_audit.event.type'] AS event_type,
    LogAttributes['otel_audit.reason'] AS reason,
    LogAttributes['error.type'] AS error,
    LogAttributes['otel_audit.transaction.id'] AS transaction,
    LogAttributes['otel_audit.completeness'] AS completeness,
    LogAttributes['otel_audit.old_values'] AS old_values,
    LogAttributes['audit.sequence.stream_id'] AS stream,
    ServiceName AS service,
    LogAttributes['otel_audit.truncated'] = 'true' AS truncated,
    bulk.count AS row_count,
    toUInt64OrZero(LogAttributes['audit.sequence.number']) AS sequence,
    LogAttributes['audit.schema.version'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract(LogAttributes['otel_audit.related'], 'Array(Tuple(type String, id String))')) AS own_related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),
      width > 0, tupleElement(columns, 'field'),
      JSONExtract(LogAttributes['otel_audit.fields'], 'Array(String)')) AS fields,
    if(notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed), tupleElement(columns, 'type')) AS types,
    arrayPushFront(keys, own_key) AS keys_,
    arrayPushFront(
      arrayResize(
        arraySplit((v, i) -> i % width = 0,
          arraySort((v, i) -> i % n * width + intDiv(i, n),
            arrayFlatten(arrayMap(c -> arrayZip(arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.old), n, '-'), arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.new), n, '-')), columns)),
            cell_numbers),
          cell_numbers),
        n),
      own_pairs) AS pairs_,
    arrayResize([own_related], n + 1) AS related_,
    arrayResize([LogAttributes], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.pageview_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'pageview'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'pageview_events_mv', 0, 'b9199ce69c2ab9cbf62120429edc4e198948a10fc562de0ed0544e20934f82b2', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.other_events_mv TO otel.other_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource
FROM (
  WITH
    JSONExtract(LogAttributes['otel_audit.changes'], 'Array(Map(String, Nullable(String)))') AS listed,
    arrayMap(c -> (if(mapContains(c, 'old'), ifNull(concat('v', c['old']), 'n'), '-'), if(mapContains(c, 'new'), ifNull(concat('v', c['new']), 'n'), '-')), listed) AS own_pairs,
    LogAttributes['audit.target.id'] AS own_key,
    JSONExtract(LogAttributes['otel_audit.bulk'], 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(
      field String, old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    length(bulk.keys) * length(bulk.columns) <= 4000000
      AND length(bulk.keys) * (byteSize(LogAttributes) - length(LogAttributes['otel_audit.bulk']) + length(Body))
        <= 1073741824 AS fits,
    if(fits, bulk.keys, []) AS keys, if(fits, bulk.columns, []) AS columns,
    length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['audit.record.id']) AS record_id,
    if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) AS log,
    LogAttributes['otel_audit.event.name'] AS event_name,
    LogAttributes['audit.actor.id'] AS actor_id,
    LogAttributes['audit.actor.type'] AS actor_type,
    LogAttributes['user.name'] AS actor_name,
    LogAttributes['otel_audit.on_behalf_of'] AS on_behalf_of,
    LogAttributes['audit.action'] AS action,
    LogAttributes['audit.outcome'] AS outcome,
    LogAttributes['audit.target.type'] AS target_type,
    LogAttributes['audit.source.id'] AS source_ip,
    LogAttributes['session.id'] AS session,
    LogAttributes['otel_audit.request.id'] AS request_id,
    LogAttributes['http.request.method'] AS method,
    LogAttributes['http.route'] AS route,
    LogAttributes['otel_audit.tenant'] AS tenant,
    LogAttributes['otel_audit.system'] AS system,
    LogAttributes['otel_audit.event.type'] AS event_type,
    LogAttributes['otel_audit.reason'] AS reason,
    LogAttributes['error.type'] AS error,
    LogAttributes['otel_audit.transaction.id'] AS transaction,
    LogAttributes['otel_audit.completeness'] AS completeness,
    LogAttributes['otel_audit.old_values'] AS old_values,
    LogAttributes['audit.sequence.stream_id'] AS stream,
    ServiceName AS service,
    LogAttributes['otel_audit.truncated'] = 'true' AS truncated,
    bulk.count AS row_count,
    toUInt64OrZero(LogAttributes['audit.sequence.number']) AS sequence,
    LogAttributes['audit.schema.version'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract(LogAttributes['otel_audit.related'], 'Array(Tuple(type String, id String))')) AS own_related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),
      width > 0, tupleElement(columns, 'field'),
      JSONExtract(LogAttributes['otel_audit.fields'], 'Array(String)')) AS fields,
    if(notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed), tupleElement(columns, 'type')) AS types,
    arrayPushFront(keys, own_key) AS keys_,
    arrayPushFront(
      arrayResize(
        arraySplit((v, i) -> i % width = 0,
          arraySort((v, i) -> i % n * width + intDiv(i, n),
            arrayFlatten(arrayMap(c -> arrayZip(arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.old), n, '-'), arrayResize(arrayMap(v -> ifNull(concat('v', v), 'n'), c.new), n, '-')), columns)),
            cell_numbers),
          cell_numbers),
        n),
      own_pairs) AS pairs_,
    arrayResize([own_related], n + 1) AS related_,
    arrayResize([LogAttributes], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.other_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'other_events_mv', 0, '0930518dfef21579e0b70f4b74b96b84f6543e27d2f6da74051c1be78b3d41ab', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.otel_traces_trace_id_ts_mv TO otel.otel_traces_trace_id_ts AS SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM otel.otel_traces WHERE TraceId != '' GROUP BY TraceId;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'otel_traces_trace_id_ts_mv', 0, '7e8789926ee9b13bf3142d42fe4dc3ad13786ef2e6fad4b64ceb5349e2ed0b14', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.audit_trail AS SELECT *, target FROM otel.audit_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'audit_trail', 0, '07e26af8bbf3637e97c5aaa39e9ae4ecdb6899dbed44628af3f84b6ae8aa682a', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.activity_trail AS SELECT *, target FROM otel.activity_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'activity_trail', 0, '52871f24c3a9c4296afc050a27600e195e9c627d4797c613e07e3b9266fe87e3', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.pageview_trail AS SELECT *, target FROM otel.pageview_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'pageview_trail', 0, '8a5fffc766b2750ec4ada91166fb90a8b70685177c2238f0c534382aad734e9b', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.other_trail AS SELECT *, target FROM otel.other_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'other_trail', 0, '8270a4b5c2e74a95eead683046347847a3676bb97415743a111de628bf833472', 'otel-audit 0.1.0.dev0');
