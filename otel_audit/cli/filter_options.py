"""The options that say what to look for, and the :class:`Filters` they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from otel_audit.store.filters import Filters

_PANEL: Final = "What to look for"


_FIELD: Final = "A field that changed (status), or its new value (status=paid)."


def _option(*names: str, help: str) -> Any:  # noqa: A002 - typer's word
    return Annotated[str | None, typer.Option(*names, help=help, rich_help_panel=_PANEL)]


FILTERS: Final[dict[str, Any]] = {
    "actor": _option("--actor", "-a", help="Who acted, by name or id."),
    "target": _option("--target", "-t", help="Object shop.Order/7, type shop.Order, or pattern 'shop.*'."),
    "action": _option("--action", help="CREATE, UPDATE, DELETE, READ, LOGIN …; several separated by commas."),
    "outcome": _option("--outcome", help="success, failure or unknown."),
    "field": _option("--field", "-f", help=_FIELD),
    "since": _option(
        "--since", "-s", help="Start: 15m, '2 hours ago', yesterday, october, 2026-11-23T14:00."
    ),
    "until": _option("--until", "-u", help="End, in the same forms; a day or month is included in full."),
    "text": _option("--text", help="Words in the message or in old and new values."),
    "trace_id": _option("--trace-id", help="Trace id or traceparent."),
    "request_id": _option("--request-id", help="Request id."),
    "log": _option(
        "--log",
        help="Kind of record: activity, pageview, …; several separated by commas; '*' for all; "
        "'!pageview' for all except that one. Default: audit.",
    ),
    "tenant": _option("--tenant", help="Tenant."),
    "service": _option("--service", help="Service that recorded it: shop, or 'shop-*'."),
    "address": _option("--address", help="Address of the client: 203.0.113.7, or a network 203.0.113.0/24."),
    "session": _option("--session", help="Session, as the hash that `otel-audit show` prints."),
    "route": _option("--route", help="Route of the request: 'orders/<int:pk>/', or a pattern '*refund*'."),
    "view": _option("--view", help="View of the request, command or task: shop.views.pay, or 'shop.*'."),
    "slug": _option("--slug", help="Slug: the application's short name for what was done."),
    "related": _option("--related", help="Object that records name as related: shop.Order/7."),
    "kind": _option(
        "--kind",
        help="Records of work itself: request, outgoing, command, job or task; several separated by commas. "
        "Searches all logs.",
    ),
    "parent": _option(
        "--parent",
        help="What happened in a request, command, task or job, by its request id. Searches all logs.",
    ),
    "reason": _option("--reason", help="Part of the reason: 'ticket 4711'."),
    "on_behalf_of": _option(
        "--on-behalf-of", help="User on whose behalf the actor acted (impersonation), by name or id."
    ),
}
"""Every filter as a command line option, by its name in :class:`Filters`."""

FOLLOWED: Final = {
    name: option
    for name, option in FILTERS.items()
    if name not in ("since", "until", "trace_id", "request_id")
} | {"field": _option("--field", help=_FIELD)}  # -f: --follow
"""The filters that make sense for what is still to come."""


def filters_of(options: dict[str, Any]) -> Filters:
    """Take the filters out of the options of a command."""
    from otel_audit.store.filters import Filters

    return Filters(**{name: options.pop(name) for name in FILTERS if name in options})
