"""``explain policy``: the rules in order, and what they would have recorded of what is in the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otel_audit.cli.commands.explain import near, rule_place
from otel_audit.cli.options import (
    ConfigFile,
    Database,
    Json,
    Password,
    Token,
    Url,
    User,
    Utc,
    load_declared,
    store_config,
)
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.config.showing import given

if TYPE_CHECKING:
    from otel_audit.audit_record import AuditRecord
    from otel_audit.config.loader import LoadedConfig
    from otel_audit.policy import Level
    from otel_audit.policy.dry_run import Counted, DryRun


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="File with the policy, such as a changed copy. Default: that of the configuration."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would have recorded of what is in the store.")
    ] = False,
    last: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Number of records to look at, the newest first.")
    ] = 10_000,
    url: Url = None,
    user: User = None,
    password: Password = None,
    token: Token = None,
    database: Database = None,
    config: ConfigFile = None,
    json: Json = False,
    utc: Utc = False,
) -> None:
    r"""List the rules of the policy, or say what they would have recorded instead.

    \b
    otel-audit explain policy
    otel-audit explain policy --dry-run
    otel-audit explain policy changed.toml --dry-run --last 100000
    """
    screen = Screen(json=json, utc=utc)
    loaded = load_declared(config)
    asked = loaded if file is None else load_declared(file)
    if not dry_run:
        _list(screen, asked)
        return
    from otel_audit.cli.asking import on_record
    from otel_audit.policy import Policy
    from otel_audit.policy.dry_run import dry_run as run
    from otel_audit.store.query import AuditStore

    screen.config_file = config
    settings = store_config(config, url, user, password, token, database)
    with (
        AuditStore(settings, zone=screen.zone) as store,
        on_record(loaded, settings, lambda: store.received),
    ):
        _tell(screen, asked, run(Policy.of(asked.config), store.recent(last)))


def _list(screen: Screen, loaded: LoadedConfig) -> None:
    from otel_audit.config.template import toml

    rules = loaded.config.policy
    for number, rule in enumerate(rules, 1):
        place = rule_place(loaded, number)
        if screen.json:
            screen.object({"rule": number, "place": place, **given(rule)})
        else:
            said = ", ".join(f"{name} = {toml(value)}" for name, value in given(rule).items())
            screen.line(f"{number}  {safe(said)}  ({safe(near(place))})")
    for note in loaded.notes:
        screen.remark(f"note: {note}")
    if not rules:
        screen.remark("There is no rule: `metadata` is recorded of everything. [[policy]] makes one.")


def _tell(screen: Screen, loaded: LoadedConfig, found: DryRun) -> None:
    if screen.json:
        for each in found.counted:
            screen.object(_plain(loaded, each))
        return
    if not found.records:
        screen.remark("There are no records in the store.")
        return
    screen.line(
        f"Of {found.records:,} records: {found.dropped:,} would not be recorded, "
        f"{found.total(rising=False) - found.dropped:,} with less, {found.total(rising=True):,} with more, "
        f"{found.others:,} are not for the policy to decide (logins, reads and others)."
    )
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ASCII if screen.ascii_only else box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("rule", "records", "of", "recorded", "would be", "example"):
        table.add_column(name, overflow="fold", justify="right" if name == "records" else "left")
    for each in found.counted:
        plain = _plain(loaded, each)
        rule = f"policy {plain['rule']}, {near(plain['place'])}" if plain["rule"] else "none"
        style = "" if plain["recorded"] == plain["would_be"] else "bold"
        table.add_row(
            Text(safe(rule)),
            Text(f"{each.records:,}"),
            Text(plain["kind"]),
            Text(plain["recorded"]),
            Text(plain["would_be"], style=style),
            Text(safe(f"{plain['example']} {plain['record']}"), style="dim"),
        )
    screen.print(table)
    screen.remark(
        "note: what is not in the store, because nothing was recorded of it, is not counted; and what was "
        "recorded of an event is judged by what its record has"
    )


def _plain(loaded: LoadedConfig, counted: Counted) -> dict[str, Any]:
    difference = counted.difference
    return {
        "rule": difference.rule,
        "place": rule_place(loaded, difference.rule),
        "kind": difference.kind,
        "recorded": _level(difference.kind, difference.before),
        "would_be": _level(difference.kind, difference.after),
        "records": counted.records,
        "example": _example(counted.example),
        "record": counted.example.id,
    }


def _level(kind: str, level: Level) -> str:
    return "values" if kind == "change" and level.text == "request" else level.text


def _example(record: AuditRecord) -> str:
    from otel_audit.semconv import METHOD, URL

    if record.event_name == "http.server.request":
        return f"{record.request.method} {record.request.path}"
    if record.event_name == "http.client.request":
        attributes = record.attributes
        return f"{attributes.get(METHOD, '')} {attributes.get(URL, '')}"
    return f"{record.event_name} {record.target or ''}".strip()
