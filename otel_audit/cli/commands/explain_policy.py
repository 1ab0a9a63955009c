"""``explain request``, ``outgoing``, ``command``, ``task``: which rule of the policy decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import msgspec
import typer

from otel_audit.cli.commands.explain import find_settings, print_explanation
from otel_audit.cli.installed_models import Explanation, Line, NotLoaded, ask_for_view
from otel_audit.cli.options import ConfigFile, Json, load_declared
from otel_audit.cli.output.screen import Screen
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

_SECTIONS: Final = {"request": "requests", "outgoing": "outgoing", "command": "commands", "task": "celery"}
"""The sections of the configuration that switch each kind on."""


def request(
    method: Annotated[str, typer.Argument(help="As POST.")],
    path: Annotated[str, typer.Argument(help="As /api/cards/7, or a whole address.")],
    status: Status = None,
    user: User = None,
    tenant: Tenant = None,
    host: Annotated[str | None, typer.Option(help="Host that is asked for. Default: not known.")] = None,
    view: Annotated[
        str | None, typer.Option(help="View. Default: found in Django's URLconf, if there is one.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="Route. Default: found likewise.")] = None,
    config: ConfigFile = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the application.")] = 60.0,
    json: Json = False,
) -> None:
    r"""Say what is recorded of a request, which rule says so, and where it stands.

    Loads the application's URLconf in a process of its own to find view and route; nothing is recorded.

    \b
    otel-audit explain request POST /api/cards/7
    otel-audit explain request GET /api/cards/7 --status 404 --user 7
    otel-audit explain request POST /token --view app.main.issue --route /token
    """
    from otel_audit.policy import Facts

    loaded = load_declared(config)
    address = urlsplit(path)
    if not address.path.startswith("/"):
        raise ConfigurationError(f"{path!r} is not a path: it begins with '/', as in /api/cards/7")
    notes: list[str] = []
    if view is None and route is None and any("request" in rule.kinds for rule in loaded.config.policy):
        view, route = _found(address.path, config, timeout, notes)
    facts = Facts(
        path=address.path,
        method=method.upper(),
        status=status,
        user=user,
        tenant=tenant,
        host=host or address.netloc.rpartition("@")[2] or None,
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
    if not address.hostname:
        raise ConfigurationError(f"{url!r} is not a URL with a host, such as https://host/path")
    facts = Facts(
        path=address.path or "/",
        method=method.upper(),
        host=address.netloc.rpartition("@")[2],
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


def _found(path: str, config: Path | None, timeout: float, notes: list[str]) -> tuple[str | None, str | None]:
    """Return view and route of a path; None where they cannot be found, and why among the notes."""
    try:
        find_settings()
        found = ask_for_view(path, config, timeout)
    except ConfigurationError:
        notes.append(
            "view and route are not known: there is no Django project here; name them by --view, --route"
        )
    except NotLoaded as error:
        notes.append(f"view and route are not known: the application cannot be loaded: {error}")
    else:
        if found.view:
            return found.view, found.route
        notes.append(f"no route of the application matches {path}: it answers 404")
    return None, None


def _tell(
    screen: Screen,
    loaded: LoadedConfig,
    kind: Kind,
    facts: Facts,
    name: str,
    about: str = "",
    notes: list[str] | None = None,
) -> None:
    from otel_audit.policy.explanation import explain

    asked = explain(loaded.config.policy, kind, facts)
    found = Explanation(name, about or kind, list(_lines(loaded, kind, asked)), notes or [], "")
    if screen.json:
        for line in found.lines:
            screen.object({"name": found.name, **msgspec.structs.asdict(line)})
    else:
        print_explanation(screen, found, without_rule="")
    for note in (*found.notes, *_switched_off(loaded, kind)):
        screen.remark(f"note: {note}")


def _lines(loaded: LoadedConfig, kind: Kind, asked: list[Asked]) -> Iterator[Line]:
    from otel_audit.policy.explanation import recorded

    deciding = [each for each in asked if each.verdict != "does not match"]
    for each in deciding:
        if each.verdict == "may decide":
            condition = f" if {each.condition}"
        else:
            condition = " otherwise" if len(deciding) > 1 else ""
        rule = "no rule matches" if each.number is None else f"policy {each.number}"
        place = "" if each.number is None else loaded.where("policy", str(each.number - 1))
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
    for each in asked:
        if each.verdict == "does not match":
            place = loaded.where("policy", str((each.number or 1) - 1))
            yield Line(f"policy {each.number}", f"does not match: {each.condition}", "", place)


def _options(decision: Decision) -> Iterator[tuple[str, str]]:
    for option in ("slug", "event_code", "event_type", "system"):
        if getattr(decision, option):
            yield option, getattr(decision, option)
    for option in ("max_request_body", "max_response_body"):
        value = getattr(decision, option)
        if value is not None:
            yield option, f"{value} bytes"
    for option in ("content_types", "stages"):
        if getattr(decision, option):
            yield option, ", ".join(getattr(decision, option))


def _switched_off(loaded: LoadedConfig, kind: Kind) -> Iterator[str]:
    """Say by which switches nothing of this kind is recorded."""
    if not loaded.config.enabled:
        yield "nothing is recorded now: enabled is false"
    section = _SECTIONS.get(kind, "")
    if not getattr(getattr(loaded.config, section, None), "enabled", True):
        yield f"nothing is recorded now: {section}.enabled is false"
