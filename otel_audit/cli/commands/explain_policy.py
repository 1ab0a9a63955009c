"""``explain request``, ``outgoing``, ``command``, ``task``: which rule of the policy decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import unquote, urlsplit

import typer

from otel_audit.cli.commands.explain import near, print_explanation, rule_place
from otel_audit.cli.found_view import RequestTarget, Where, find_view
from otel_audit.cli.installed_models import Explanation, Line
from otel_audit.cli.options import ConfigFile, Json, load_declared
from otel_audit.cli.output.screen import Screen
from otel_audit.config.globs import Globs
from otel_audit.config.host_patterns import Hosts
from otel_audit.errors import ConfigurationError

if TYPE_CHECKING:
    from otel_audit.config.loader import LoadedConfig
    from otel_audit.policy import Decision, Facts, Kind
    from otel_audit.policy.explanation import Asked

Status = Annotated[
    int | None, typer.Option(min=100, max=599, help="Status of the response. Default: not known.")
]
User = Annotated[str | None, typer.Option("--user", help="Id of the actor. Default: not known.")]
Tenant = Annotated[str | None, typer.Option(help="Tenant. Default: not known.")]

_PORTS: Final = {"http": 80, "https": 443}
_SECTIONS: Final = {"request": "requests", "outgoing": "outgoing", "command": "commands", "task": "celery"}
"""The section of the configuration that is about each kind."""


def request(
    method: Annotated[str, typer.Argument(help="As POST.")],
    path: Annotated[str, typer.Argument(help="As /api/cards/7, or a whole address.")],
    status: Status = None,
    user: User = None,
    tenant: Tenant = None,
    host: Annotated[str | None, typer.Option(help="Host that is asked for. Default: not known.")] = None,
    view: Annotated[
        str | None, typer.Option(help="View. Default: found in the URLconf or routes of the application.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="Route. Default: found likewise.")] = None,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE",
            help="Application of FastAPI, Starlette or Flask, as uvicorn takes it. Default: Django's project "
            "here, else UVICORN_APP, else what is found by reading the files here.",
        ),
    ] = None,
    app_dir: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="Where to look for its module first, as uvicorn does.")
    ] = "",
    config: ConfigFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the application.")] = 60.0,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a request, which rule says so, and where it stands.

    Loads the application in a process of its own to find view and route; nothing is called or recorded.

    \b
    otel-audit explain request POST /api/cards/7
    otel-audit explain request GET /api/cards/7 --status 404 --user 7
    otel-audit explain request POST /cards/7 --app shop.main:app
    otel-audit explain request POST /token --view app.main.issue --route /token
    """
    from otel_audit.policy import Facts

    loaded = load_declared(config)
    address = urlsplit(path)
    asked = RequestTarget(method.upper(), unquote(address.path), host or address.netloc.rpartition("@")[2])
    if not asked.path.startswith("/"):
        raise ConfigurationError(f"{path!r} is not a path: it begins with '/', as in /api/cards/7")
    notes: list[str] = []
    if view is None and route is None and any("request" in rule.kinds for rule in loaded.config.policy):
        view, route = find_view(asked, Where(app, app_dir, config, timeout), notes)
    facts = Facts(
        path=asked.path,
        method=asked.method,
        status=status,
        user=user,
        tenant=tenant,
        host=asked.host or None,
        view=view,
        route=route,
    )
    about = ", ".join(f"{name} {value}" for name, value in (("view", view), ("route", route)) if value)
    _tell(Screen(json=json), loaded, "request", facts, f"{facts.method} {facts.path}", about, notes)


def outgoing(
    method: Annotated[str, typer.Argument(help="As POST.")],
    url: Annotated[str, typer.Argument(help="As https://fulfilment.internal/orders/7.")],
    status: Status = None,
    user: User = None,
    tenant: Tenant = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a request that the application makes, and which rule says so.

    \b
    otel-audit explain outgoing POST https://fulfilment.internal/orders/7
    """
    from otel_audit.policy import Facts

    address = urlsplit(url)
    if not address.hostname or address.scheme not in _PORTS:
        raise ConfigurationError(f"{url!r} is not a URL with a host, such as https://host/path")
    facts = Facts(
        path=address.path or "/",
        method=method.upper(),
        host=f"{address.hostname}:{address.port or _PORTS[address.scheme]}",
        status=status,
        user=user,
        tenant=tenant,
    )
    name = f"{facts.method} {facts.host}{facts.path}"
    _tell(Screen(json=json), load_declared(config), "outgoing", facts, name)


def command(
    name: Annotated[str, typer.Argument(help="As migrate; a job by its own name.")],
    user: User = None,
    tenant: Tenant = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a management command or job, and which rule says so.

    \b
    otel-audit explain command migrate
    otel-audit explain command billing.nightly
    """
    from otel_audit.policy import Facts

    facts = Facts(command=name, user=user, tenant=tenant)
    _tell(Screen(json=json), load_declared(config), "command", facts, name)


def task(
    name: Annotated[str, typer.Argument(help="As shop.tasks.ship.")],
    user: User = None,
    tenant: Tenant = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a task, and which rule says so.

    \b
    otel-audit explain task shop.tasks.ship
    """
    from otel_audit.policy import Facts

    facts = Facts(task=name, user=user, tenant=tenant)
    _tell(Screen(json=json), load_declared(config), "task", facts, name)


def _tell(
    screen: Screen,
    loaded: LoadedConfig,
    kind: Kind,
    facts: Facts,
    name: str,
    about: str = "",
    notes: Sequence[str] = (),
) -> None:
    from otel_audit.policy.explanation import explain

    asked = explain(loaded.config.policy, kind, facts)
    said = [*notes, *_left_out(loaded, kind, facts)]
    found = Explanation(name, about or kind, list(_lines(loaded, kind, asked)), said, unknown="")
    print_explanation(screen, found, without_rule="")


def _lines(loaded: LoadedConfig, kind: Kind, asked: list[Asked]) -> Iterator[Line]:
    from otel_audit.policy.explanation import recorded

    deciding = [each for each in asked if each.verdict != "does not match"]
    for each in deciding:
        if each.verdict == "may decide":
            condition = f" if {each.condition}"
        else:
            condition = " otherwise" if len(deciding) > 1 else ""
        rule = "no rule matches" if each.number is None else f"policy {each.number}"
        place = rule_place(loaded, each.number)
        yield Line(f"level{condition}", each.decision.level.text, rule, place)
        if each.decision.capped:
            yield Line(
                "",
                f"not more, because of {each.decision.capped!r}: logins, passwords and tokens are recorded "
                "without headers and bodies, unless a rule names the path, view or route without a wildcard",
                "built-in rule",
                "",
            )
        yes, no = recorded(kind, each.decision)
        yield Line("recorded", "; ".join(yes) or "nothing", "", "")
        if no and yes:
            yield Line("not recorded", "; ".join(no), "", "")
        yield from (Line(option, value, rule, place) for option, value in _options(each.decision))
        yield from _limits(loaded, kind, each.decision, rule, place)
    for each in asked:
        if each.verdict == "does not match":
            place = rule_place(loaded, each.number)
            yield Line(f"policy {each.number}", f"does not match: {each.condition}", "", place)


def _options(decision: Decision) -> Iterator[tuple[str, str]]:
    for option in ("slug", "event_code", "event_type", "system"):
        if getattr(decision, option):
            yield option, getattr(decision, option)
    for option in ("content_types", "stages"):
        if getattr(decision, option):
            yield option, ", ".join(getattr(decision, option))


def _limits(loaded: LoadedConfig, kind: Kind, decision: Decision, rule: str, place: str) -> Iterator[Line]:
    """Say how much of each body is recorded: by the rule, or by the section of its kind."""
    from otel_audit.policy import Level

    levels = {"max_request_body": Level.REQUEST, "max_response_body": Level.REQUEST_RESPONSE}
    for option, level in levels.items():
        if kind not in ("request", "outgoing") or not decision.bodies or decision.level < level:
            continue
        limit = getattr(decision, option)
        if limit is not None:
            yield Line(option, f"{limit} bytes", rule, place)
        else:
            section = _SECTIONS[kind]
            limit = getattr(getattr(loaded.config, section), option)
            yield Line(option, f"{limit} bytes", f"{section}.{option}", loaded.where(section, option))


def _left_out(loaded: LoadedConfig, kind: Kind, facts: Facts) -> Iterator[str]:
    """Say by which switches and lists nothing is recorded of this."""
    config = loaded.config
    if not config.enabled:
        yield "nothing is recorded now: enabled is false"
    if kind == "task":
        if not (config.celery.enabled or config.rq.enabled):
            yield "nothing is recorded now: celery.enabled is false, and so is rq.enabled"
        return
    section = _SECTIONS[kind]
    if not getattr(config, section).enabled:
        yield f"nothing is recorded now: {section}.enabled is false"
    if kind == "request":
        from otel_audit.http.requests.ignored import Ignored

        setting, names_it = "ignore_paths", Ignored(config.requests).path(facts.path or "")
    elif kind == "outgoing":
        hosts = Hosts(config.outgoing.ignore_hosts)
        setting, names_it = "ignore_hosts", hosts.includes_address(facts.host or "")
    else:
        names = config.commands.exclude
        setting, names_it = "exclude", bool(names) and Globs.of(names).matches(facts.command or "")
    if names_it:
        place = near(loaded.where(section, setting)) or "by default"
        yield f"nothing is recorded of it: {section}.{setting} names it ({place})"
