"""Each step of redaction, given anything: it ends, keeps the type, and no secret it was told of comes out.

A secret stands beside its name in one of the forms texts and statements have, among sentences and other
secrets. What is only noise, quotes and brackets that never close, may hide a secret's name from any reader:
there nothing is promised but an answer.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from opentelemetry.sdk.trace import TracerProvider

from otel_audit.audit_record import AuditRecord, Bulk, Change, Column
from otel_audit.config.model import RedactionConfig
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.redaction import Redactor, routes
from tests.attack.chance import Chance
from tests.attack.effort import effort, inputs
from tests.redaction.test_linear import PIECES
from tests.redaction.test_names import SECRET

HIDDEN: Final = "Hx7kQ2zv9T"
NAMES: Final = [name for name in SECRET if name.isascii() and name.replace("_", "").isalnum()]
FORMS: Final = (
    *("{n}={s}", "{n}='{s}'", '{n}="{s}"', "{n}: {s}", '"{n}": "{s}"', "'{n}': '{s}'", '{{"{n}": "{s}"}}'),
    *("--{n} {s}", "--{n}={s}", "?a=1&{n}={s}&b=2", "/login?{n}={s}", "{n}%3D{s}", "<{n}>{s}</{n}>"),
    *(
        "Authorization: Bearer {s}",
        "postgres://bob:{s}@db/x",
        "curl -u bob:{s} https://h",
        "redis-cli -a {s}",
    ),
    *(
        "Key ({n})=({s}) already exists.",
        "User(name='bob', {n}='{s}')",
        "ALTER USER bob WITH PASSWORD '{s}';",
    ),
)
WITHOUT: Final = ("{n}=", "{n}: ", "{n}=''", '"{n}": ""', "--{n}", "no {n} given", "{n}")
"""A name with nothing beside it must not take what comes next for its value, and stop there."""
WORDS: Final = (
    *("order", "7", "was", "shipped", "to", "Ann", "from", "203.0.113.7", "at", "10:21", "GET", "/orders/7/"),
    *(
        "Größe",
        "密码",
        "пароль",
        "naïve",
        "100%",
        "a-b",
        "user=bob",
        "n: 3",
        "ok.",
        "(late)",
        "[1, 2]",
        "'x'",
    ),
    *("https://h/x?y=1", "2026-11-23", "None", "→", "😀", "id=7,"),
)
STATEMENTS: Final = (
    "UPDATE u SET a = 1, {n} = '{s}' WHERE id = 7",
    "INSERT INTO u (id, {n}) VALUES (1, '{s}'), (2, '{s}')",
    "SELECT '{s}' AS {n}, b FROM u",
    "SELECT 1 FROM u WHERE u.{n} IN ('a', '{s}') AND b = 'x'",
    "SELECT 1 FROM u WHERE '{s}' = {n} OR c LIKE '%y%'",
    "MERGE INTO u USING (VALUES ('{s}')) AS v ({n}) ON u.id = 1 WHEN MATCHED THEN UPDATE SET b = 'x'",
)
ADDED: Final = (" -- a note", " /* a note */", "; SELECT 1", "", " RETURNING id", "\n")


def a_name(chance: Chance) -> str:
    return chance.choice(NAMES)


def prose(chance: Chance) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randrange(6)))


def told(chance: Chance) -> list[str]:
    """Return the parts of a text with at least one secret beside its name."""
    parts = [chance.choice(FORMS).format(n=a_name(chance), s=HIDDEN)]
    for _ in range(chance.randrange(4)):
        way = chance.random()
        form = chance.choice(FORMS if way < 0.4 else WITHOUT) if way < 0.6 else prose(chance)
        parts.insert(chance.randrange(len(parts) + 1), form.format(n=a_name(chance), s=HIDDEN))
    between = chance.choice((" ", "\n", " ", ", ", "; ", "\\n", "\x1b[0m "))
    return [between + part for part in parts]


def noise(chance: Chance) -> str:
    """Return what begins much and ends nothing."""
    return "".join(
        chance.choice(PIECES) if chance.random() < 0.6 else chance.text(12)
        for _ in range(chance.randrange(6))
    )


def statement(chance: Chance) -> str:
    return chance.choice(STATEMENTS).format(n=a_name(chance), s=HIDDEN) + chance.choice(ADDED)


class Step(NamedTuple):
    """What is done, and with what."""

    name: str
    given: Any


def a_secret(chance: Chance, depth: int = 2) -> Any:
    """Return a value with the secret in it that means nothing without the name beside it."""
    way = chance.randrange(4 if depth else 1)
    if way == 0:
        return HIDDEN
    if way == 1:
        return [chance.text(), a_secret(chance, depth - 1)]
    return {chance.text(): a_secret(chance, depth - 1)} if way == 2 else f"{chance.text()}{HIDDEN}"


def a_mapping(chance: Chance) -> dict[str, Any]:
    given: dict[str, Any] = {chance.text(): chance.value(2) for _ in range(chance.randrange(3))}
    given[a_name(chance)] = a_secret(chance)
    if chance.random() < 0.5:
        given["note"] = "".join(told(chance))
    return given if chance.random() < 0.6 else {"inner": given, "list": [a_mapping(chance)]}


def a_span(chance: Chance) -> dict[str, Any]:
    """Return what a span and its event carry: texts and lists of texts."""
    text = "".join(told(chance))
    hidden = chance.choice((HIDDEN, [HIDDEN, chance.text()]))
    return {
        a_name(chance): hidden,
        "note": text,
        "notes": [chance.text(), text],
        chance.named(): chance.text(),
    }


def a_record(chance: Chance) -> AuditRecord:
    record: AuditRecord = chance.of(AuditRecord)
    name, text = a_name(chance), "".join(told(chance))
    hidden = a_secret(chance)
    replaced: dict[str, Any] = chance.choice(
        (
            {"message": text},
            {"reason": text, "error": text},
            {"attributes": a_mapping(chance)},
            {"image": a_mapping(chance)},
            {"changes": [Change(name, hidden, hidden), Change("note", text, text)]},
            {"bulk": Bulk(2, ["1", "2"], [Column(name, [hidden, None], [hidden, hidden])])},
            {"bulk": Bulk(1, ["1"], [Column("note", [text], [text])])},
            {"tenant": text, "system": text, "code": text},
        )
    )
    return msgspec.structs.replace(record, **replaced)


def a_step(chance: Chance) -> Step:
    way = chance.random()
    if way < 0.35:
        return Step("text", told(chance))
    if way < 0.45:
        return Step("data", told(chance))
    if way < 0.6:
        return Step("statement", statement(chance))
    if way < 0.75:
        return Step("mapping", a_mapping(chance))
    if way < 0.85:
        return Step("span", a_span(chance))
    return Step("record", a_record(chance))


REDACTOR: Final = Redactor(RedactionConfig(hmac_key="0123456789abcdef"))
_SPAN: Final = TracerProvider(shutdown_on_exit=False).get_tracer("tests")


def hides(step: Step) -> str:
    """Take a step, and look for the secret in what comes out."""
    name, given = step
    out: Any
    if name == "span":
        span = _SPAN.start_span("x")
        span.set_attributes(given)
        span.add_event("x", given)
        span.end()
        redacted = REDACTOR.span(span)  # type: ignore[arg-type] # the SDK's own, as it has ended
        out = [dict(redacted.attributes or {}), [dict(event.attributes or {}) for event in redacted.events]]
    elif name == "record":
        out = encode_record(REDACTOR.record(given)).decode("utf-8", "replace")
    elif name == "data":
        out = REDACTOR.data("".join(given).encode())
    else:
        out = getattr(REDACTOR, name)("".join(given) if name == "text" else given)
    assert HIDDEN not in str(out)
    return name


@effort(short=1500, long=100_000)
def test_a_secret_beside_its_name_leaves_no_step(rounds: int) -> None:
    inputs("steps of redaction with a secret", rounds, a_step, hides, whole=HIDDEN)


def some_noise(chance: Chance) -> Step:
    way = chance.randrange(9)
    text = noise(chance) + "".join(told(chance) if chance.random() < 0.5 else ()) + noise(chance)
    if way == 7:
        return Step("record", chance.of(AuditRecord))
    if way == 8:
        return Step("route", (noise(chance), text))
    names = ("text", "statement", "statement", "data", "attribute", "field", "mapping")
    name = names[way]
    if name == "data":
        return Step(name, chance.mangled(text.encode("utf-8", "surrogatepass")))
    if name == "mapping":
        return Step(name, {noise(chance): chance.value(), chance.text(): text})
    return Step(
        name,
        (noise(chance), chance.choice((text, chance.value()))) if name in ("attribute", "field") else text,
    )


def answers(step: Step) -> str:
    """Take a step, and a second time with what came out."""
    name, given = step
    if name == "route":
        route, path = given
        for hidden in routes.secrets(route, path, REDACTOR.is_secret):
            assert isinstance(hidden, str)
    elif name in ("attribute", "field"):
        key, value = given
        first = getattr(REDACTOR, name)(key, value)
        getattr(REDACTOR, name)(key, first)
    else:
        act = getattr(REDACTOR, name)
        first = act(given)
        assert type(first) is type(given)
        assert type(act(first)) is type(given)
    return name


@effort(short=1000, long=100_000)
def test_any_noise_is_answered_by_each_step(rounds: int) -> None:
    inputs("steps of redaction with noise", rounds, some_noise, answers)
