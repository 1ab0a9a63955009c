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

ALTER TABLE otel.audit_events ADD COLUMN IF NOT EXISTS attributes_form UInt16 CODEC(ZSTD(1)), ADD COLUMN IF NOT EXISTS observed_after Int64 CODEC(T64, ZSTD(1));

ALTER TABLE otel.activity_events ADD COLUMN IF NOT EXISTS attributes_form UInt16 CODEC(ZSTD(1)), ADD COLUMN IF NOT EXISTS observed_after Int64 CODEC(T64, ZSTD(1));

ALTER TABLE otel.pageview_events ADD COLUMN IF NOT EXISTS attributes_form UInt16 CODEC(ZSTD(1)), ADD COLUMN IF NOT EXISTS observed_after Int64 CODEC(T64, ZSTD(1));

ALTER TABLE otel.other_events ADD COLUMN IF NOT EXISTS attributes_form UInt16 CODEC(ZSTD(1)), ADD COLUMN IF NOT EXISTS observed_after Int64 CODEC(T64, ZSTD(1));

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'audit', 4, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'activity', 4, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'pageview', 4, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('log', 'other', 4, '', 'otel-audit 0.1.0.dev0');

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('tables', 'attributes', 4, '', 'otel-audit 0.1.0.dev0');

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
  own_attributes AS attributes, own_resource AS resource,
  if(ordinal = 0, form, toUInt16(1)) AS attributes_form, observed_after
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
    range(n * width) AS cell_numbers,
    LogAttributes['otel_audit.changes'] AS changes_,
    LogAttributes['otel_audit.fields'] AS fields_,
    fields_ != '' AND fields_ = concat('["', arrayStringConcat(fields, '","'), '"]') AS has_fields,
    match(changes_, '"(old|new)":[-0-9tf]') AS is_bare,
    changes_ != '' AND isValidUTF8(changes_) AND if(is_bare, match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$'), match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$')) AS has_changes,
    length(arrayDistinct(mapKeys(LogAttributes))) = length(LogAttributes) AND LogAttributes['otel_audit.log'] = log AND LogAttributes['audit.record.id'] = toString(record_id) AND LogAttributes['audit.sequence.number'] = if(sequence = 0, '', toString(sequence)) AND LogAttributes['otel_audit.observed_timestamp'] = toString(toUnixTimestamp64Nano(timestamp) + observed_after) AS is_split,
    mapFilter((k, v) -> v = '' OR NOT (k IN ('otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp') OR k = 'otel_audit.fields' AND has_fields OR k = 'otel_audit.changes' AND has_changes), LogAttributes) AS rest_
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
    toInt64OrZero(LogAttributes['otel_audit.observed_timestamp']) - toUnixTimestamp64Nano(Timestamp) AS observed_after,
    if(is_split, rest_, LogAttributes) AS rest,
    if(is_split, toUInt16(3 + 4 * has_fields + 8 * has_changes + 16 * is_bare), toUInt16(1)) AS form,
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
    arrayResize([rest], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.audit_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'audit'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'audit_events_mv', 0, 'fe3f8976b3435425c23e61a2f587b903c9991c25bfb65378545c88f88b34098f', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.activity_events_mv TO otel.activity_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource,
  if(ordinal = 0, form, toUInt16(1)) AS attributes_form, observed_after
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
    range(n * width) AS cell_numbers,
    LogAttributes['otel_audit.changes'] AS changes_,
    LogAttributes['otel_audit.fields'] AS fields_,
    fields_ != '' AND fields_ = concat('["', arrayStringConcat(fields, '","'), '"]') AS has_fields,
    match(changes_, '"(old|new)":[-0-9tf]') AS is_bare,
    changes_ != '' AND isValidUTF8(changes_) AND if(is_bare, match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$'), match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$')) AS has_changes,
    length(arrayDistinct(mapKeys(LogAttributes))) = length(LogAttributes) AND LogAttributes['otel_audit.log'] = log AND LogAttributes['audit.record.id'] = toString(record_id) AND LogAttributes['audit.sequence.number'] = if(sequence = 0, '', toString(sequence)) AND LogAttributes['otel_audit.observed_timestamp'] = toString(toUnixTimestamp64Nano(timestamp) + observed_after) AS is_split,
    mapFilter((k, v) -> v = '' OR NOT (k IN ('otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp') OR k = 'otel_audit.fields' AND has_fields OR k = 'otel_audit.changes' AND has_changes), LogAttributes) AS rest_
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
    toInt64OrZero(LogAttributes['otel_audit.observed_timestamp']) - toUnixTimestamp64Nano(Timestamp) AS observed_after,
    if(is_split, rest_, LogAttributes) AS rest,
    if(is_split, toUInt16(3 + 4 * has_fields + 8 * has_changes + 16 * is_bare), toUInt16(1)) AS form,
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
    arrayResize([rest], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.activity_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'activity'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'activity_events_mv', 0, 'b32f3764dbc34d257264e99cf65df6f4581c2345ba3de085346009cbab121d9c', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.pageview_events_mv TO otel.pageview_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource,
  if(ordinal = 0, form, toUInt16(1)) AS attributes_form, observed_after
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
    range(n * width) AS cell_numbers,
    LogAttributes['otel_audit.changes'] AS changes_,
    LogAttributes['otel_audit.fields'] AS fields_,
    fields_ != '' AND fields_ = concat('["', arrayStringConcat(fields, '","'), '"]') AS has_fields,
    match(changes_, '"(old|new)":[-0-9tf]') AS is_bare,
    changes_ != '' AND isValidUTF8(changes_) AND if(is_bare, match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$'), match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$')) AS has_changes,
    length(arrayDistinct(mapKeys(LogAttributes))) = length(LogAttributes) AND LogAttributes['otel_audit.log'] = log AND LogAttributes['audit.record.id'] = toString(record_id) AND LogAttributes['audit.sequence.number'] = if(sequence = 0, '', toString(sequence)) AND LogAttributes['otel_audit.observed_timestamp'] = toString(toUnixTimestamp64Nano(timestamp) + observed_after) AS is_split,
    mapFilter((k, v) -> v = '' OR NOT (k IN ('otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp') OR k = 'otel_audit.fields' AND has_fields OR k = 'otel_audit.changes' AND has_changes), LogAttributes) AS rest_
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
    toInt64OrZero(LogAttributes['otel_audit.observed_timestamp']) - toUnixTimestamp64Nano(Timestamp) AS observed_after,
    if(is_split, rest_, LogAttributes) AS rest,
    if(is_split, toUInt16(3 + 4 * has_fields + 8 * has_changes + 16 * is_bare), toUInt16(1)) AS form,
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
    arrayResize([rest], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.pageview_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL AND if(LogAttributes['otel_audit.log'] = '', 'audit', LogAttributes['otel_audit.log']) = 'pageview'
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'pageview_events_mv', 0, 'db903cb3d65e0dcba3fc9041a48399a993e37a2565b1f3c8b529053b1d6d7e7e', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.other_events_mv TO otel.other_events AS SELECT timestamp, record_id, ordinal, log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream,
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), arrayResize(pairs, length(fields), ('-', '-'))) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource,
  if(ordinal = 0, form, toUInt16(1)) AS attributes_form, observed_after
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
    range(n * width) AS cell_numbers,
    LogAttributes['otel_audit.changes'] AS changes_,
    LogAttributes['otel_audit.fields'] AS fields_,
    fields_ != '' AND fields_ = concat('["', arrayStringConcat(fields, '","'), '"]') AS has_fields,
    match(changes_, '"(old|new)":[-0-9tf]') AS is_bare,
    changes_ != '' AND isValidUTF8(changes_) AND if(is_bare, match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|0|-?[1-9][0-9]{0,17}|true|false|""|"(-?[0-9]+[^"\\\\\\x00-\\x1f0-9]|[^"\\\\\\x00-\\x1f0-9tf-])[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$'), match(changes_, '^\\[\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\}(,\\{"field":"[^"\\\\\\x00-\\x1f]*"(,"old":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"new":(null|"[^"\\\\\\x00-\\x1f]*"))?(,"type":"[^"\\\\\\x00-\\x1f]+")?\\})*\\]$')) AS has_changes,
    length(arrayDistinct(mapKeys(LogAttributes))) = length(LogAttributes) AND LogAttributes['otel_audit.log'] = log AND LogAttributes['audit.record.id'] = toString(record_id) AND LogAttributes['audit.sequence.number'] = if(sequence = 0, '', toString(sequence)) AND LogAttributes['otel_audit.observed_timestamp'] = toString(toUnixTimestamp64Nano(timestamp) + observed_after) AS is_split,
    mapFilter((k, v) -> v = '' OR NOT (k IN ('otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp') OR k = 'otel_audit.fields' AND has_fields OR k = 'otel_audit.changes' AND has_changes), LogAttributes) AS rest_
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
    toInt64OrZero(LogAttributes['otel_audit.observed_timestamp']) - toUnixTimestamp64Nano(Timestamp) AS observed_after,
    if(is_split, rest_, LogAttributes) AS rest,
    if(is_split, toUInt16(3 + 4 * has_fields + 8 * has_changes + 16 * is_bare), toUInt16(1)) AS form,
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
    arrayResize([rest], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_
  FROM otel.other_log
  WHERE toUUIDOrNull(LogAttributes['audit.record.id']) IS NOT NULL
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'other_events_mv', 0, 'fe006d56dcbfcaa31e78fda1a2c6c5e74ec68374c94f65d1b47f80965ac273e1', 'otel-audit 0.1.0.dev0');

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.otel_traces_trace_id_ts_mv TO otel.otel_traces_trace_id_ts AS SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM otel.otel_traces WHERE TraceId != '' GROUP BY TraceId;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'otel_traces_trace_id_ts_mv', 0, '7e8789926ee9b13bf3142d42fe4dc3ad13786ef2e6fad4b64ceb5349e2ed0b14', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.audit_trail AS SELECT * EXCEPT (attributes_form, observed_after) REPLACE (CAST(if(bitTest(attributes_form, 1), mapConcat(mapFilter((k, v) -> v != '', mapFromArrays(['otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp', 'otel_audit.fields', 'otel_audit.changes'], [log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream, target_id, schema_version, toString(record_id), if(sequence = 0, '', toString(sequence)), toString(toUnixTimestamp64Nano(timestamp) + observed_after), if(bitTest(attributes_form, 2), concat('["', arrayStringConcat(changes.field, '","'), '"]'), ''), if(bitTest(attributes_form, 3), concat('[', arrayStringConcat(arrayMap((f, o, n, t, k) -> concat('{"field":"', f, '"', if(substring(k, 1, 1) = '-', '', concat(',"old":', multiIf(substring(k, 1, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(o, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), o, concat('"', o, '"')))), if(substring(k, 2, 1) = '-', '', concat(',"new":', multiIf(substring(k, 2, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(n, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), n, concat('"', n, '"')))), if(t = '', '', concat(',"type":"', t, '"')), '}'), changes.field, changes.old, changes.new, changes.type, changes.known), ','), ']'), '')])), attributes), attributes), 'Map(LowCardinality(String), String)') AS attributes), target
FROM otel.audit_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'audit_trail', 0, '78341105689a662eab9bbe36ec8268c90b2c305f4f4e9ac4b8a8b6d4e226f4b3', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.activity_trail AS SELECT * EXCEPT (attributes_form, observed_after) REPLACE (CAST(if(bitTest(attributes_form, 1), mapConcat(mapFilter((k, v) -> v != '', mapFromArrays(['otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp', 'otel_audit.fields', 'otel_audit.changes'], [log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream, target_id, schema_version, toString(record_id), if(sequence = 0, '', toString(sequence)), toString(toUnixTimestamp64Nano(timestamp) + observed_after), if(bitTest(attributes_form, 2), concat('["', arrayStringConcat(changes.field, '","'), '"]'), ''), if(bitTest(attributes_form, 3), concat('[', arrayStringConcat(arrayMap((f, o, n, t, k) -> concat('{"field":"', f, '"', if(substring(k, 1, 1) = '-', '', concat(',"old":', multiIf(substring(k, 1, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(o, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), o, concat('"', o, '"')))), if(substring(k, 2, 1) = '-', '', concat(',"new":', multiIf(substring(k, 2, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(n, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), n, concat('"', n, '"')))), if(t = '', '', concat(',"type":"', t, '"')), '}'), changes.field, changes.old, changes.new, changes.type, changes.known), ','), ']'), '')])), attributes), attributes), 'Map(LowCardinality(String), String)') AS attributes), target
FROM otel.activity_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'activity_trail', 0, '599bca073bb03d6d64bd3eed7a5a63e42a3a46ba92b46afbb617cfbf9f1fd4f3', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.pageview_trail AS SELECT * EXCEPT (attributes_form, observed_after) REPLACE (CAST(if(bitTest(attributes_form, 1), mapConcat(mapFilter((k, v) -> v != '', mapFromArrays(['otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp', 'otel_audit.fields', 'otel_audit.changes'], [log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream, target_id, schema_version, toString(record_id), if(sequence = 0, '', toString(sequence)), toString(toUnixTimestamp64Nano(timestamp) + observed_after), if(bitTest(attributes_form, 2), concat('["', arrayStringConcat(changes.field, '","'), '"]'), ''), if(bitTest(attributes_form, 3), concat('[', arrayStringConcat(arrayMap((f, o, n, t, k) -> concat('{"field":"', f, '"', if(substring(k, 1, 1) = '-', '', concat(',"old":', multiIf(substring(k, 1, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(o, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), o, concat('"', o, '"')))), if(substring(k, 2, 1) = '-', '', concat(',"new":', multiIf(substring(k, 2, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(n, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), n, concat('"', n, '"')))), if(t = '', '', concat(',"type":"', t, '"')), '}'), changes.field, changes.old, changes.new, changes.type, changes.known), ','), ']'), '')])), attributes), attributes), 'Map(LowCardinality(String), String)') AS attributes), target
FROM otel.pageview_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'pageview_trail', 0, '77a77bc4d170f3f1dee1231a2914cacdb0110f4513dd9bcb70692102aef4187e', 'otel-audit 0.1.0.dev0');

CREATE OR REPLACE VIEW otel.other_trail AS SELECT * EXCEPT (attributes_form, observed_after) REPLACE (CAST(if(bitTest(attributes_form, 1), mapConcat(mapFilter((k, v) -> v != '', mapFromArrays(['otel_audit.log', 'otel_audit.event.name', 'audit.actor.id', 'audit.actor.type', 'user.name', 'otel_audit.on_behalf_of', 'audit.action', 'audit.outcome', 'audit.target.type', 'audit.source.id', 'session.id', 'otel_audit.request.id', 'http.request.method', 'http.route', 'otel_audit.tenant', 'otel_audit.system', 'otel_audit.event.type', 'otel_audit.reason', 'error.type', 'otel_audit.transaction.id', 'otel_audit.completeness', 'otel_audit.old_values', 'audit.sequence.stream_id', 'audit.target.id', 'audit.schema.version', 'audit.record.id', 'audit.sequence.number', 'otel_audit.observed_timestamp', 'otel_audit.fields', 'otel_audit.changes'], [log, event_name, actor_id, actor_type, actor_name, on_behalf_of, action, outcome, target_type, source_ip, session, request_id, method, route, tenant, system, event_type, reason, error, transaction, completeness, old_values, stream, target_id, schema_version, toString(record_id), if(sequence = 0, '', toString(sequence)), toString(toUnixTimestamp64Nano(timestamp) + observed_after), if(bitTest(attributes_form, 2), concat('["', arrayStringConcat(changes.field, '","'), '"]'), ''), if(bitTest(attributes_form, 3), concat('[', arrayStringConcat(arrayMap((f, o, n, t, k) -> concat('{"field":"', f, '"', if(substring(k, 1, 1) = '-', '', concat(',"old":', multiIf(substring(k, 1, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(o, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), o, concat('"', o, '"')))), if(substring(k, 2, 1) = '-', '', concat(',"new":', multiIf(substring(k, 2, 1) = 'n', 'null', bitTest(attributes_form, 4) AND match(n, '^(0|-?[1-9][0-9]{0,17}|true|false)$'), n, concat('"', n, '"')))), if(t = '', '', concat(',"type":"', t, '"')), '}'), changes.field, changes.old, changes.new, changes.type, changes.known), ','), ']'), '')])), attributes), attributes), 'Map(LowCardinality(String), String)') AS attributes), target
FROM otel.other_events FINAL;

INSERT INTO otel.otel_audit_migrations (kind, name, version, checksum, applied_by) VALUES ('view', 'other_trail', 0, 'b705795ee71dbebece4aba9b75049fa3f6952fc4425ce29751724f15ba6dfe78', 'otel-audit 0.1.0.dev0');
