"""Records of requests for the store of :mod:`benchmarks.store_load`: page views, and other requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION
from otel_audit.store.columns import attribute_names
from otel_audit.store.query import AuditStore
from otel_audit.store.schema import landing

_RELATED: Final = """'[{{"type":"app1.Model1","id":"'"""
_SLUGS: Final = ("", "", "", "", "pay-invoice", "sign-contract", "export", "login")


def _attributes(log: str) -> str:
    """Return the SQL of the map of a record's attributes."""
    values = {
        "log": f"'{log}'",
        "action": "'REQUEST'",
        "outcome": "if(status >= 400, 'failure', 'success')",
        "actor.id": "if(u2 < 0.3, 'anonymous', toString(actor))",
        "actor.type": "if(u2 < 0.3, 'unknown', 'user')",
        "target.type": "'http.route'",
        "target.id": "route",
        "source.id": "concat('10.', toString(actor % 200), '.', toString(intDiv(actor, 200) % 250), '.7')",
        "source.type": "'ipv4'",
        "request.id": "request_id",
        "request.method": "method",
        "request.route": "route",
        "request.path": "concat('/api/v1/model', toString(model), '/', toString(object), '/')",
        "request.view": "concat('app.views.View', toString(model))",
        "slug": f"{list(_SLUGS)}[1 + g % {len(_SLUGS)}]",
        "related": f"if(g % 10 = 0, concat({_RELATED}, toString(object), '\"}}}}]'), '')",
        "attributes": "concat('{{\"http.response.status_code\":', toString(status), ',\"duration\":', "
        'toString(0.01 + g % 1000 / 1e4), \',"url.scheme":"https","server.address":"shop.example.org"}}\')',
        "completeness": "'full'",
        "sequence.stream": f"concat('019ab1c2-7d3e-7c10-9a52-0000000000', toString(10 + h % 64), '/{log}')",
        "sequence.number": "toString(intDiv(i, 64) + 1)",
        "event_name": "'http.server.request'",
        "observed_timestamp": "toString(toUnixTimestamp64Nano(time) + 30000)",
    }
    pairs = [f"'{SCHEMA_VERSION}', '1', '{RECORD_ID}', record"]
    pairs += [f"'{attribute_names(path)[0]}', {value}" for path, value in values.items()]
    return f"mapFilter((k, v) -> v != '', map({', '.join(pairs)}))"


def statement(log: str, first: int, count: int, records: int, *, days: int, end: str) -> str:
    """Return the INSERT of ``count`` of ``records`` records of a log, from number ``first`` on."""
    methods = "['GET', 'GET', 'GET', 'HEAD']" if log == "pageview" else "['POST', 'PUT', 'PATCH', 'GET']"
    statuses = "[200, 200, 304]" if log == "pageview" else "[200, 201, 302, 400, 403, 404, 500]"
    return f"""INSERT INTO {{db}}.{landing(log)}
      (Timestamp, TraceId, SpanId, ServiceName, Body, ResourceAttributes, ScopeName, LogAttributes, EventName)
WITH
    number AS i, sipHash64(i, '{log}') AS h, sipHash64(h, 2) AS g,
    h % 1000003 / 1000003 AS u1, intHash64(h) % 1000003 / 1000003 AS u2, g % 1000003 / 1000003 AS u3,
    toUInt32(20000 * pow(u1, 3)) AS actor, toUInt8(40 * pow(u3, 2)) AS model,
    toUInt32(pow(u2, 2) * (1000000 / (1 + model))) AS object,
    {methods}[1 + h % 4] AS method, {statuses}[1 + intDiv(h, 8) % length({statuses})] AS status,
    concat('api/v1/model', toString(model), '/<int:pk>/') AS route,
    toDateTime64('{end}', 9, 'UTC') - toIntervalDay({days})
      + toIntervalNanosecond(toInt64(i * ({days * 86_400 * 10**9} / {records})) + g % 1000000) AS time,
    lower(leftPad(hex(toUnixTimestamp64Milli(time)), 12, '0')) AS moment,
    lower(hex(sipHash128(h, 9))) AS random, lower(hex(sipHash128(h, 11))) AS request_id,
    concat(substring(moment, 1, 8), '-', substring(moment, 9, 4), '-7', substring(random, 1, 3), '-8',
      substring(random, 4, 3), '-', substring(random, 7, 12)) AS record
SELECT time, lower(hex(sipHash128(h, 5))), lower(hex(g)), 'shop', '',
    map('service.name', 'shop', 'host.name', concat('web-', toString(h % 4)), 'service.version', '2.4.1',
      'process.pid', toString(1000 + h % 64)),
    'otel_audit', {_attributes(log)}, 'http.server.request'
FROM numbers({first}, {count})"""


_HOUR: Final = "2026-11-27T23:17:00+00:00"
_DAY: Final = "2026-11-27T00:17:00+00:00"
_WEEK: Final = "2026-11-20T10:17:00+00:00"
_MIDDLE: Final = "2026-10-14T10:17:00+00:00"

COUNTS: Final[dict[str, Callable[[AuditStore, int], object]]] = {
    "an address, the last hour": lambda s, n: s.count_requests(ip=f"10.{n}.0.7", since=_HOUR),
    "an address and a view, a day": lambda s, n: s.count_requests(
        ip=f"10.{n}.0.7", view=_view(n), since=_DAY
    ),
    "an address, a week": lambda s, n: s.count_requests(ip=f"10.{n}.0.7", since=_WEEK),
    "an address, any time": lambda s, n: s.count_requests(ip=f"10.{n}.0.7"),
    "a path, any time": lambda s, n: s.count_requests(path=f"/api/v1/model{n}/{700 + n}/"),
    "a view, any time": lambda s, n: s.count_requests(view=_view(n)),
    "a view and a method, any time": lambda s, n: s.count_requests(view=_view(n), method="POST"),
    "failed by the client, any time": lambda s, n: s.count_requests(status="4xx", view=_view(n)),
    "a view, 45 days": lambda s, n: s.count_requests(view=_view(n), since=_MIDDLE),
    "a slug by a user, 45 days": lambda s, n: s.count_requests(
        slug="export", user=str(100 + n), since=_MIDDLE
    ),
    "views by a pattern, a week": lambda s, n: s.count_requests(view=f"*View{n}*", since=_WEEK),
    "related to an object": lambda s, n: s.related_to(f"app1.Model1/{1000 + n}"),
}
"""Questions about requests, and the call that asks each the n-th time."""


def _view(number: int) -> str:
    return f"app.views.View{number % 40}"
