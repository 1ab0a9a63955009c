"""``[context]``: who acted, and from where."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Seconds, Section


class ContextConfig(Section, frozen=True):
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
    queues: Annotated[
        list[str],
        Meta(
            description="Queues and topics whose messages carry who publishes them, as a signed context, and "
            "from which one is accepted: names, or patterns such as `orders.*`. Needs a key."
        ),
    ] = []
    queue_lifetime: Annotated[
        Seconds,
        Meta(
            description="Seconds for which the signed context of a message is valid, counted from when it "
            "was published or, for a task with an eta, from that."
        ),
    ] = 86_400
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
    actor_from: Annotated[
        str,
        Meta(
            description="Function of the application that returns who makes a request, as "
            "`package.module:function`: an id, a user object, claims with `sub`, an `otel_audit.Actor`, or "
            "None. It is called with the request until it has named somebody, and must not query a database. "
            "Or a dependency of FastAPI's, which FastAPI calls: what it returns. "
            "For Starlette, FastAPI and the ASGI and WSGI middleware; Django has `request.user`."
        ),
    ] = ""
    session_cookie: Annotated[
        str,
        Meta(
            description="Name of the cookie that holds the key of a session; records carry its hash. For "
            "Starlette, FastAPI and the ASGI and WSGI middleware; Django knows its own."
        ),
    ] = ""
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
