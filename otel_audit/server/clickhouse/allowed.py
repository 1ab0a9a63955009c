"""What clients of the query port may name: functions, tables, formats and settings, each looked at before."""

from __future__ import annotations

from typing import Final

HARMLESS_FUNCTIONS: Final = frozenset(
    {
        "format",
        "generate_series",
        "generaterandom",
        "generateseries",
        "merge",
        "mergetreeindex",
        "mergetreeprojection",
        "mergetreetextindex",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "viewexplain",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that read nothing but tables of this store, or nothing at all."""

SYSTEM_TABLES: Final = frozenset(
    {
        # what the store has, and how it is
        "columns",
        "data_skipping_indices",
        "databases",
        "events",
        "merge_tree_settings",
        "merges",
        "metrics",
        "mutations",
        "parts",
        "parts_columns",
        "projections",
        "replicas",
        "server_settings",
        "settings",
        "tables",
        # what the engine can do
        "aggregate_function_combinators",
        "build_options",
        "clusters",
        "codecs",
        "collations",
        "data_skipping_index_types",
        "data_type_families",
        "database_engines",
        "dictionaries",
        "formats",
        "functions",
        "keywords",
        "macros",
        "table_engines",
        "table_functions",
        "time_zones",
        # numbers
        "numbers",
        "numbers_mt",
        "one",
        "primes",
        "zeros",
        "zeros_mt",
    }
)
"""Tables of ``system`` a question may name: none tells of other questions, of the process or of its disks."""

SHOWN: Final = frozenset(
    {
        "changed",
        "columns",
        "create",
        "databases",
        "dictionaries",
        "engines",
        "extended",
        "fields",
        "full",
        "functions",
        "index",
        "indexes",
        "indices",
        "keys",
        "setting",
        "settings",
        "tables",
    }
)
"""What may follow SHOW."""

DATABASES: Final = ("default", "information_schema")
"""Databases a request may be in beside the store's; nothing in the first can be named."""

AI_FUNCTIONS: Final = frozenset(
    {
        "aiclassify",
        "aiembed",
        "aiextract",
        "aifilter",
        "aigenerate",
        "airedact",
        "aisimilarity",
        "aitranslate",
    }
)
"""Functions that send what they are given to a service."""
INPUT_FORMATS: Final = {
    name.lower(): name
    for name in (
        "Arrow",
        "ArrowStream",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "JSON",
        "JSONCompact",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONEachRow",
        "JSONLines",
        "Native",
        "NDJSON",
        "Parquet",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "TSV",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "Values",
    )
}
"""Input formats that are data and nothing else."""

SETTINGS: Final = frozenset(
    {
        # what a question may cost
        "max_block_size",
        "max_bytes_to_read",
        "max_execution_time",
        "max_result_rows",
        "max_rows_to_read",
        "max_threads",
        "read_overflow_mode",
        "timeout_overflow_mode",
        # what it means
        "any_join_distinct_right_table_keys",
        "extremes",
        "final",
        "group_by_use_nulls",
        "join_default_strictness",
        "join_use_nulls",
        "limit",
        "offset",
        "prefer_column_name_to_alias",
        "session_timezone",
        "transform_null_in",
        "union_default_mode",
        # how it is answered
        "force_optimize_projection",
        "optimize_move_to_prewhere",
        "optimize_read_in_order",
        "optimize_use_projections",
        "read_in_order_use_buffering",
        "use_skip_indexes",
        "use_skip_indexes_if_final",
        # how the answer is written
        "date_time_output_format",
        "format_csv_delimiter",
        "format_csv_null_representation",
        "format_tsv_null_representation",
        "output_format_arrow_string_as_string",
        "output_format_binary_write_json_as_string",
        "output_format_csv_crlf_end_of_line",
        "output_format_decimal_trailing_zeros",
        "output_format_json_array_of_rows",
        "output_format_json_escape_forward_slashes",
        "output_format_json_map_as_array_of_tuples",
        "output_format_json_named_tuples_as_objects",
        "output_format_json_quote_64bit_floats",
        "output_format_json_quote_64bit_integers",
        "output_format_json_quote_decimals",
        "output_format_json_quote_denormals",
        "output_format_json_validate_utf8",
        "output_format_native_write_json_as_string",
        "output_format_parquet_string_as_string",
        "output_format_pretty_color",
        "output_format_pretty_max_rows",
        "output_format_pretty_max_value_width",
        "output_format_tsv_crlf_end_of_line",
        "output_format_write_statistics",
        # how rows are read
        "date_time_input_format",
        "input_format_csv_empty_as_default",
        "input_format_defaults_for_omitted_fields",
        "input_format_import_nested_json",
        "input_format_json_read_bools_as_strings",
        "input_format_json_read_numbers_as_strings",
        "input_format_null_as_default",
        "input_format_skip_unknown_fields",
        "input_format_tsv_empty_as_default",
        "input_format_with_names_use_header",
        "input_format_with_types_use_header",
        "insert_deduplicate",
        "insert_deduplication_token",
    }
)
"""Settings a client may choose, by name; all others are ignored.

Never by pattern: among those that begin with ``output_format_`` is one that writes a file of the client's
choice. A setting joins when its description has been read; the tests keep the descriptions that were.
"""

OUTPUT_FORMATS: Final = frozenset(
    {
        "Arrow",
        "ArrowStream",
        "Avro",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "JSON",
        "JSONColumns",
        "JSONColumnsWithMetadata",
        "JSONCompact",
        "JSONCompactColumns",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONCompactStrings",
        "JSONCompactStringsEachRow",
        "JSONCompactStringsEachRowWithNames",
        "JSONCompactStringsEachRowWithNamesAndTypes",
        "JSONEachRow",
        "JSONLines",
        "JSONObjectEachRow",
        "JSONStrings",
        "JSONStringsEachRow",
        "LineAsString",
        "Markdown",
        "MsgPack",
        "NDJSON",
        "Native",
        "Null",
        "ORC",
        "Parquet",
        "Pretty",
        "PrettyCompact",
        "PrettyCompactMonoBlock",
        "PrettyCompactNoEscapes",
        "PrettyCompactNoEscapesMonoBlock",
        "PrettyJSONEachRow",
        "PrettyJSONLines",
        "PrettyMonoBlock",
        "PrettyNDJSON",
        "PrettyNoEscapes",
        "PrettyNoEscapesMonoBlock",
        "PrettySpace",
        "PrettySpaceMonoBlock",
        "PrettySpaceNoEscapes",
        "PrettySpaceNoEscapesMonoBlock",
        "RawBLOB",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "TSV",
        "TSVRaw",
        "TSVRawWithNames",
        "TSVRawWithNamesAndTypes",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedRaw",
        "TabSeparatedRawWithNames",
        "TabSeparatedRawWithNamesAndTypes",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "Values",
        "Vertical",
        "XML",
    }
)
"""Formats of answers. Those that need a schema (Protobuf, CapnProto) write one beside the running process."""
