"""``explain context``: what a signed context says, and whether this service accepts it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otel_audit.cli.exit_codes import Status
from otel_audit.cli.options import ConfigFile, Json, Utc, load_declared
from otel_audit.cli.output.safe import safe
from otel_audit.cli.output.screen import Screen
from otel_audit.errors import QueryError

if TYPE_CHECKING:
    from otel_audit.propagation.signed_context import SignedContext

_LONGEST_LINE: Final = 16 * 1024


def context(
    header: Annotated[
        str, typer.Argument(help="A baggage header, or one signed context. If omitted, a line of stdin.")
    ] = "-",
    config: ConfigFile = None,
    json: Json = False,
    utc: Utc = False,
) -> None:
    r"""Say what a signed context of another service says, and whether it is accepted here, or why not.

    Verifies it by the keys and the audience of the configuration, as the application does with a request, or
    by its queues, as a worker does with a message.
    Exits with 1 if it is not accepted. What it says is known to be true only if it is accepted, or has just
    expired.

    \b
    otel-audit explain context 'theirs=kept,otel_audit.context=eyJ...'
    """
    from otel_audit.propagation.incoming import WHY, entry
    from otel_audit.propagation.messages import QUEUE
    from otel_audit.propagation.signed_context import NAME, Refused, unverified
    from otel_audit.store.times import format_time

    screen = Screen(json=json, utc=utc)
    text = (sys.stdin.readline(_LONGEST_LINE) if header == "-" else header).strip()
    if NAME not in text:
        text = f"{NAME}={text}"
    try:
        key, said = unverified(entry(text))
    except Refused as refused:
        raise QueryError(f"this is not a signed context: {WHY[refused.reason]}") from refused
    refusal = (
        _refusal_of_message(text, said, config) if said.audience.startswith(QUEUE) else _refusal(text, config)
    )
    facts = {
        "key": key,
        "audience": said.audience,
        "expires": format_time(said.expiry * 1_000_000_000, zone=screen.zone),
        "kind": said.kind,
        "began by": said.initiator,
        "request": said.request,
        "tenant": said.tenant,
        **({"task": said.task} if said.task else {}),
        "accepted": f"no: {refusal}" if refusal else "yes",
    }
    if screen.json:
        screen.object({name.replace(" ", "_"): value for name, value in facts.items()})
    else:
        for name, value in facts.items():
            if value:
                screen.line(f"{name:10}{safe(value)}")
    if refusal:
        raise typer.Exit(Status.NOTHING)


def _refusal(header: str, config: Path | None) -> str:
    """Say why the configured service does not accept a header; empty if it does."""
    from otel_audit.propagation.incoming import WHY, Acceptance
    from otel_audit.propagation.signed_context import Refused

    acceptance = Acceptance.of(load_declared(config).config)
    if acceptance is None:
        return "context.audience is empty, or there is no key to verify one"
    try:
        acceptance.verified(header)
    except Refused as refused:
        return WHY[refused.reason]
    return ""


def _refusal_of_message(header: str, said: SignedContext, config: Path | None) -> str:
    """Say why the configured service does not accept a message with this header; empty if it does."""
    from otel_audit.propagation.incoming import WHY, entry
    from otel_audit.propagation.messages import MessageContexts
    from otel_audit.propagation.signed_context import Refused

    contexts = MessageContexts.of(load_declared(config).config)
    if contexts is None:
        return "context.queues is empty, or there is no key to verify one"
    try:
        contexts.verified(entry(header), task=said.task, retry=said.retry)
    except Refused as refused:
        return WHY[refused.reason]
    return ""
