"""OTLP attribute values as text, as the Collector's ClickHouse exporter writes them."""

from __future__ import annotations

import base64
import json
import math
from typing import Any


def value_text(value: Any) -> str:
    """Return an ``AnyValue`` as text: numbers bare, bytes in base64, lists and maps as JSON, none empty."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value  # type: ignore[no-any-return]
    if kind is None:
        return ""
    if kind == "int_value":
        return str(value.int_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "double_value":
        return _double(value.double_value)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode("ascii")
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _plain(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode("ascii")
    if kind == "double_value" and not math.isfinite(value.double_value):
        return _double(value.double_value)
    return getattr(value, kind) if kind else None
