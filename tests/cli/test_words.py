"""How a record is put into words where somebody acts for another, or goes on with another's work."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from otel_audit.audit_record import Actor, AuditRecord, Origin
from otel_audit.cli.output import sentences
from otel_audit.cli.output.details import record_view
from otel_audit.cli.output.screen import Screen
from otel_audit.store.lookup import StoredRecord
from tests.trail import record

AT = 1_795_000_000 * 10**9
ANA_FOR_ZOE = Actor("2", "user", "ana", "7", "zoe", "staff,group:ops")


@pytest.mark.parametrize(
    ("actor", "known", "words"),
    [
        (ANA_FOR_ZOE, ("", ""), "ana for zoe"),
        (ANA_FOR_ZOE, ("anna", "zoey"), "ana for zoe"),
        (Actor("2", "user", on_behalf_of="7"), ("ana", "zoe"), "2 [ana] for 7 [zoe]"),
        (Actor("2", "user", on_behalf_of="7"), ("", ""), "2 for 7"),
        (Actor("2", "user", on_behalf_of="7"), ("", "\x1b[31m"), "2 for 7 [\\x1b[31m]"),
        (Actor("shop", "service"), ("", ""), "shop (service)"),
    ],
)
def test_a_list_says_who_acts_and_for_whom(actor: Actor, known: tuple[str, str], words: str) -> None:
    assert sentences.who(actor, *known) == words


def shown(one: AuditRecord) -> str:
    out = io.StringIO()
    console = Console(file=out, width=120)
    console.print(record_view(StoredRecord(one, {}), Screen(utc=True)))
    return " ".join(out.getvalue().split())


def test_show_says_roles_and_whom_for_and_who_began_the_work() -> None:
    words = shown(record("shop.order.update", "UPDATE", at=AT, actor=ANA_FOR_ZOE))
    assert "who ana (user 2), on behalf of zoe (user 7)" in words
    assert "roles staff, group:ops" in words
    assert "begun by" not in words
    later = record("a.b", "UPDATE", at=AT, actor=Actor("shop", "service"), origin=Origin("2", "ana", "r-1"))
    assert "begun by ana (user 2), request r-1" in shown(later)
    later = record("a.b", "UPDATE", at=AT, actor=Actor("shop", "service"), origin=Origin("2"))
    assert "begun by 2 " in shown(later)
