"""``[throttling]``: how often somebody may ask, and try to log in."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Seconds, Section


class ThrottlingRuleConfig(Section, frozen=True):
    """One rule; ``[throttling.rules.<name>]``."""

    number: Annotated[int, Meta(ge=1, description="How many are let through in `timeframe`.")]
    timeframe: Annotated[int, Meta(ge=1, description="In seconds.")]
    on: Annotated[
        Literal["request", "login", "login_failed"],
        Meta(description="What is counted: requests, successful logins, or failed logins."),
    ] = "request"
    by: Annotated[
        list[str],
        Meta(
            description="Whose are counted together: `address`, `user`, or a function of the application, as "
            "`package.module:function`, which is called with the request and returns a text or None. Several "
            "are counted in combination. If empty, `address`; for failed logins `user` and `address`."
        ),
    ] = []
    message: Annotated[
        str, Meta(description="What the answer says; `description` in the template. Translated by Django.")
    ] = ""
    path: Annotated[
        list[str],
        Meta(
            description="Paths that the rule is for, with `*` and `?`; a leading `!` excludes. If empty, "
            "all. Rules for logins are looked at as soon as such a request begins."
        ),
    ] = []
    method: Annotated[list[str], Meta(description="Methods that the rule is for. If empty, all.")] = []


class ThrottlingConfig(Section, frozen=True):
    enabled: Annotated[
        bool,
        Meta(
            description="Refuse requests above the limits, with status 429. For Django this is all; an ASGI "
            "application needs the middleware `otel_audit.contrib.throttling.ThrottlingMiddleware`. Needs "
            "the extra `otel-audit[throttling]`."
        ),
    ] = False
    defaults: Annotated[
        bool,
        Meta(
            description="Let an address make 1000 requests an hour, and 20 a minute, of all views together."
        ),
    ] = True
    rules: Annotated[
        dict[str, ThrottlingRuleConfig],
        Meta(description="More rules, by name. One named `hour` or `minute` replaces that of the defaults."),
    ] = {}
    validators: Annotated[
        str,
        Meta(
            description="More rules and validators, in code: `package.module:name` of a list or tuple, such "
            "as `shop.throttling:validators`."
        ),
    ] = ""
    exempt: Annotated[
        list[str],
        Meta(
            description="Paths that the defaults and `rules` are not for, with `*` and `?`; a leading `!` "
            "makes an exception."
        ),
    ] = []
    ipv6_prefix: Annotated[
        int,
        Meta(
            ge=16,
            le=128,
            description="Addresses of IPv6 that agree in so many bits are counted together: a client has as "
            "many of them as it likes.",
        ),
    ] = 64
    cache: Annotated[
        str, Meta(description="Which of Django's CACHES counts. Counted in one round trip if it is Redis.")
    ] = "default"
    storage: Annotated[
        str,
        Meta(
            description="What counts instead of Django's cache: `redis://…`, `rediss://…`, `unix://…`, or "
            "`memory`, each process by itself. Without Django, empty means `memory`.",
            extra=SECRET,
        ),
    ] = ""
    timeout: Annotated[
        Seconds,
        Meta(
            description="How long counting may take. If it takes longer or fails, nothing is counted for "
            "five seconds, and `on_error` says what becomes of requests."
        ),
    ] = 0.25
    on_error: Annotated[
        Literal["", "fail_open", "fail_closed"],
        Meta(
            description="What happens when nothing can be counted. `fail_open`: let requests through, log "
            "and count it; `fail_closed`: refuse them, with status 503. If empty, the `on_error` of all."
        ),
    ] = ""
    failure_view: Annotated[
        str,
        Meta(
            description="Function that makes the answer, as `package.module:function`. It is called with the "
            "request and the ThrottlingException, and returns a response; for ASGI with the scope, and "
            "returns an ASGI application."
        ),
    ] = ""
    template: Annotated[
        str,
        Meta(
            description="Django's template of the answer, with `description` and `retry_after`; if there is "
            "none of this name, a plain page."
        ),
    ] = "429.html"
