"""Removes sensitive values from values, mappings, texts and statements: by names, shapes and strategies.

What holds nothing sensitive comes back as the same object, and quickly: the decision about a name is cached,
and so are texts found clean. Texts with a secret are never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.config.model import Place, RedactionConfig
from otel_audit.errors import ConfigurationError
from otel_audit.long_texts import JSON_LENGTH
from otel_audit.redaction import named_values
from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.names import SENSITIVE, NameRules, Sensitivity, compile_patterns, removes, words
from otel_audit.redaction.strategies import OMIT, Strategies
from otel_audit.redaction.text import budget, patterns, sql
from otel_audit.redaction.text.forms import scrub_options
from otel_audit.redaction.text.pairs import PairScanner, balanced_end, reads_otherwise
from otel_audit.redaction.text.suspicions import may_hold_secret
from otel_audit.values import Portable

MAX_DEPTH: Final = 32
"""Levels of a structure that are looked into."""
_CACHED_TEXTS: Final = 4096
_CACHED_LENGTH: Final = 512
_CACHED_STATEMENTS: Final = 512
_CACHED_STATEMENT_LENGTH: Final = 8192
_LARGEST_CARD: Final = 10**19

_NUMBERED = pattern(
    r"(?:^|_)(?:ids?|pk|uuid|timestamp|time|at|ns|us|ms|nanos|millis|micros|count|size|bytes)$"
)
_SQL_START = pattern(
    r"\A\s*(?:--|/\*|\(|(?:with|select|insert|update|delete|merge|replace|alter|create|set|call|do|explain|declare"
    r"|fetch|copy|begin|grant|truncate|savepoint)\b)",
    re.IGNORECASE,
)
# Up to the end if it does not end: else each of many beginnings would be followed to the end of the text.
_PARAMETERS = pattern(r"(\[parameters: )([\s\S]*?)(\](?=[ \t]*+(?:[\r\n]|\Z|\(Background))|\Z)")
# What a statement is logged with: `; args=('x', 1)` by Django, `PARAMS = (…)`, `('UPDATE …', ['x'])`.
_ARGUMENTS = pattern(
    r"""(?:\b(?:args|params|parameters)[ ]?[=:][ ]?|["'][ ]?,[ ]?)(?=[\[({])""", re.VERBOSE | re.IGNORECASE
)
_ODD_JSON = pattern(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]|\b(?:NaN|Infinity)\b")
# A line break, a colour: what a terminal, `repr` and JSON write, with a name or a token right behind it.
_ESCAPE = pattern(
    r"(?:\\(?:[abefnrtv]|0(?:33)?|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})|\x1b)(?P<colour>\[[0-9;]{0,16}[A-Za-z])?"
    r"(?=[\w\-\"'{<])"
)
_ROUNDS: Final = 2
_LINE_BREAKS: Final = "\x1d\x1c\x1e\x1f\x85\u2028\u2029"
"""That texts do not have; one that has them all loses the first."""
_REDIS_AUTH = pattern(r"\A\s*(AUTH|HELLO)\b\s+\S[\s\S]*\Z", re.IGNORECASE)


class ValueRedactor:
    """Applies the rules of one configuration. Thread safe."""

    def __init__(self, config: RedactionConfig, place: Place | None = None) -> None:
        """Compile the rules that hold everywhere, or those of one place.

        Raises:
            ConfigurationError: a pattern is not a regular expression, or the hmac key is too short.
        """
        self.mask = config.replacement
        self.names = NameRules.of(config, place)
        self.strategies = Strategies(mask=config.replacement, hmac_key=config.hmac_key)
        self.builtin = config.enabled
        self._ibans = config.personal_numbers
        self._own: tuple[re.Pattern[str], ...] = ()
        tables: list[tuple[str, Any]] = [("redaction", config)]
        if place is not None:
            tables.append((f"redaction.{place}", getattr(config, place)))
        for table, rules in tables:
            self._own += compile_patterns(f"{table}.values", rules.values)
            for setting in ("values", "names", "allow"):
                _refuse_exponential(f"{table}.{setting}", getattr(rules, setting))
        self._pairs = PairScanner(self.names, config.replacement)
        # Read by the span redactor without a call: it looks at every attribute of every span.
        self.clean_names: set[str] = set()
        self.clean_texts: set[str] = set()
        self.clean_queries: set[str] = set()
        self._clean_sql: set[str] = set()

    # --- one value ---------------------------------------------------------------------------------

    def field(self, name: str, value: Portable, strategy: str | None = None) -> Any:
        """Return what may be kept of a value under ``name``; ``UNSET`` if nothing, not even that it is there.

        ``strategy`` is what the configuration says about this field; without one the rules decide.
        ``None`` and ``UNSET`` pass, unless the strategy is ``OMIT``.
        """
        if strategy == OMIT:
            return UNSET
        if value is None or value is UNSET:  # type: ignore[comparison-overlap]
            return value
        if strategy is not None:
            return self.strategies.apply(strategy, value)
        decision = self.names.decide(name)
        if decision == "clean":
            return self._value(name, value, 0, 0)
        if decision == "allowed":
            return value
        return self._masked(decision, value)

    def attribute(self, name: str, value: Any) -> Any:
        """Return what a span attribute may carry: the type stays, a sequence stays a sequence."""
        if type(value) is bytes:
            if self.names.decide(name) == "clean":
                return self.data(value)
            return str(self.field(name, value.decode("latin-1"))).encode("latin-1", "replace")
        redacted = self.field(name, value)
        if (
            redacted is not value
            and isinstance(value, (tuple, list))
            and not isinstance(redacted, (tuple, list))
        ):
            return (redacted,)
        return redacted

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets in it; the same object if there are none.

        What lies beyond the bounds of :mod:`otel_audit.redaction.text.budget` is left out; the text says so.
        """
        return text if text in self.clean_texts else self._text(text, 0)

    def _text(self, text: str, layer: int) -> str:
        """Return a text without secrets; it stood inside ``layer`` others."""
        if text in self.clean_texts:
            return text
        scrubbed = self._bounded(text, self._scrub, layer) if self._own or self.suspects(text) else text
        if scrubbed == text:
            self._remember(text)
            return text
        return scrubbed

    def data(self, data: bytes) -> bytes:
        """Return binary data without the secrets that stand in it as text; the same object if there are none.

        Of more than a record can keep only the beginning is returned.
        """
        if len(data) > budget.CHARACTERS:
            data = data[: budget.CHARACTERS]
        try:
            text, encoding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = data.decode("latin-1"), "latin-1"
        scrubbed = self.text(text)
        return data if scrubbed == text else scrubbed.encode(encoding, "replace")

    def statement(self, text: str) -> str:
        """Return a database statement without the literals of sensitive columns and other secrets."""
        if text in self._clean_sql or text in self.clean_texts:
            return text
        if not self._own and not self.suspects(text):
            self._remember(text)
            return text
        scrubbed = self._bounded(text, self._scrub_statement, 0)
        if scrubbed != text:
            return scrubbed
        if len(text) <= _CACHED_STATEMENT_LENGTH:
            if len(self._clean_sql) >= _CACHED_STATEMENTS:
                self._clean_sql.clear()
            self._clean_sql.add(text)
        return text

    def _bounded(self, text: str, scrub: Callable[[str, int], str], layer: int) -> str:
        head = text if len(text) <= budget.CHARACTERS else text[: budget.CHARACTERS]
        scrubbed = self._behind_escapes(head, scrub, layer) if "\\" in head or "\x1b" in head else head
        scrubbed = scrub(scrubbed, layer)
        return scrubbed if head is text else budget.searched(scrubbed, len(text), self.mask)

    def _behind_escapes(self, text: str, scrub: Callable[[str, int], str], layer: int) -> str:
        r"""Search with escapes set apart from what follows: ``\ntoken=x``, ``\nghp_…`` in a ``repr``.

        As well as without, not instead: ``C:\token=x`` has a name of its own.
        """
        apart = next((sign for sign in _LINE_BREAKS if sign not in text), _LINE_BREAKS[0])

        def set_apart(match: re.Match[str]) -> str:
            colour = match.start("colour")
            if colour >= 0 and text.startswith(self.mask, colour):  # `\n[redacted]` has none
                return text[match.start() : colour] + apart + match["colour"]
            return match.group() + apart

        for _ in range(_ROUNDS):  # what was removed may have ended at such a sign, and goes on without it
            parted = _ESCAPE.sub(set_apart, text)
            if parted == text:
                break
            scrubbed = scrub(parted, layer)
            if scrubbed == parted:
                break
            text = scrubbed.replace(apart, "")
        return text

    def names_secret(self, statement: str) -> bool:
        """Say whether a database statement names a sensitive column."""
        return self.suspects(statement) and sql.names_sensitive(statement, self.is_secret)

    def mapping(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy with every value redacted under its key, the same ``dict`` if nothing matches."""
        redacted = self._mapping(mapping, 0, 0)
        return redacted if isinstance(redacted, dict) else dict(redacted)

    def options(self, line: str) -> str:
        """Return a command line without what stands in short options of known programs: ``mysql -px``."""
        return scrub_options(line, self.mask)

    def suspects(self, text: str) -> bool:
        """Tell quickly that no rule can match ``text``; own patterns are not asked."""
        if self.builtin:
            return may_hold_secret(text)
        return self.names.has_own

    def remember_clean(self, names: Collection[str], texts: Collection[str]) -> None:
        """Keep names decided to be clean, and texts that :meth:`suspects` cleared together."""
        if names:
            _add(self.clean_names, names)
        if texts:
            _add(self.clean_texts, texts)

    def remember_clean_query(self, raw: str) -> None:
        """Keep a query of which nothing was removed: it is more than a text, its names count."""
        _add(self.clean_queries, (raw,))

    @property
    def has_key(self) -> bool:
        """Whether ``redaction.hmac_key`` is set."""
        return self.strategies.has_key

    def digest(self, digest: bytes) -> str:
        """Return the keyed hash of the hash of a value that a record cannot carry; empty without a key."""
        return self.strategies.digest(digest)

    @property
    def has_own_values(self) -> bool:
        """Whether ``redaction.values`` names patterns of its own."""
        return bool(self._own)

    def _remember(self, text: str) -> None:
        _add(self.clean_texts, (text,))

    def is_secret(self, name: str) -> bool:
        """Say whether what stands under ``name`` is removed, whatever it is."""
        return self.names.decide(name) in SENSITIVE

    def _masked(self, decision: Sensitivity, value: Any) -> Any:
        return self.mask if removes(decision, value) else value

    def _value(self, name: str, value: Any, depth: int, layer: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value, layer)
        if kind is int:
            return self._integer(name, value)
        if kind is bool or kind is float or value is None:
            return value
        if depth >= MAX_DEPTH:
            return self.mask  # too deep to look into is too deep to trust
        if isinstance(value, str):
            return self._text(value, layer)
        if isinstance(value, Mapping):
            return self._mapping(value, depth, layer)
        if isinstance(value, (list, tuple)):
            return self._items(name, value, depth, layer)
        return value

    def _integer(self, name: str, value: int) -> Any:
        if (
            self.builtin
            and patterns.SMALLEST_CARD <= value < _LARGEST_CARD
            and patterns.is_card_number(str(value))
        ):
            return value if _NUMBERED.search(words(name)) else self.mask
        return value

    def _mapping(self, mapping: Mapping[str, Any], depth: int, layer: int) -> Any:
        changed: dict[str, Any] | None = None
        renamed: dict[str, str] = {}
        held = named_values.held_by(mapping, self.is_secret)
        for key, value in mapping.items():
            decision = "secret" if key in held else self.names.decide(key)
            if (shown := self._text(key, layer)) != key:
                renamed[key] = shown
            if decision == "clean":
                redacted = self._value(key, value, depth + 1, layer)
            elif decision == "allowed":
                continue
            else:
                redacted = self._masked(decision, value)
            if redacted is not value:
                if changed is None:
                    changed = dict(mapping)
                changed[key] = redacted
        if renamed:
            return _renamed(mapping if changed is None else changed, renamed)
        return mapping if changed is None else changed

    def _items(self, name: str, items: Sequence[Any], depth: int, layer: int) -> Any:
        if named_values.are_pairs(items):
            return self._named(items, depth, layer)
        changed: list[Any] | None = None
        before: Any = None
        for index, item in enumerate(items):
            if type(before) is str and type(item) is str and self._is_option(before):
                redacted = item if item.startswith("-") else self.mask
            else:
                redacted = self._value(name, item, depth + 1, layer)
            before = item
            if redacted is not item:
                if changed is None:
                    changed = list(items)
                changed[index] = redacted
        if changed is None:
            return items
        return tuple(changed) if isinstance(items, tuple) else changed

    def _named(self, pairs: Sequence[Sequence[Any]], depth: int, layer: int) -> Any:
        """Redact a list of (name, value)."""
        redacted: list[Any] = []
        for pair in pairs:
            name, value = pair
            shown = self._mapping({name: value}, depth + 1, layer)
            made = next(iter(shown.items()))
            same = made[0] is name and made[1] is value
            redacted.append(pair if same else tuple(made) if isinstance(pair, tuple) else list(made))
        if all(new is old for new, old in zip(redacted, pairs, strict=True)):
            return pairs
        return tuple(redacted) if isinstance(pairs, tuple) else redacted

    def _is_option(self, argument: str) -> bool:
        """Say whether a command line argument takes a secret in the next one: ``["--password", "x"]``."""
        return argument.startswith("-") and "=" not in argument and self.is_secret(argument.lstrip("-"))

    # --- text --------------------------------------------------------------------------------------

    def _scrub(self, text: str, layer: int) -> str:
        scrubbed = self._scrub_once(text, layer)
        if reads_otherwise(text, scrubbed) and sql.LOOKS_LIKE_SQL.search(text):
            scrubbed = self._scrub_once(scrubbed, layer)
        return scrubbed

    def _scrub_once(self, text: str, layer: int) -> str:
        text = self._own_values(text)
        if not self.builtin and not self.names.has_own:
            return text
        if self.builtin:
            text = patterns.scrub(text, self.mask, ibans=self._ibans)
        if text[:1] in "{[" and len(text) <= JSON_LENGTH and layer < budget.LAYERS:
            text = self._scrub_json(text, layer)
        text = self._pairs.scrub_quoted(text)  # to SQL, `token%3Dx` is a division
        found = sql.LOOKS_LIKE_SQL.search(text)
        if found is not None:
            if _ARGUMENTS.search(text) and sql.names_sensitive(text[found.start() :], self.is_secret):
                text = self._without_arguments(text)
            text = sql.scrub(text, self.is_secret, self.mask, found.start())
            before = text.partition("[parameters: ")[0]
            if before != text and sql.names_sensitive(before, self.is_secret):
                text = _PARAMETERS.sub(lambda match: match[1] + self.mask + match[3], text)
        return self._pairs.scrub(text)

    def _without_arguments(self, text: str) -> str:
        parts: list[str] = []
        copied = 0
        while (match := _ARGUMENTS.search(text, copied)) is not None:
            parts += (text[copied : match.end()], self.mask)
            copied = balanced_end(text, match.end())
        return "".join((*parts, text[copied:]))

    def _scrub_json(self, text: str, layer: int) -> str:
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return self._scrub_odd_json(text, layer)
        redacted = self._value("", value, 0, layer + 1)
        return text if redacted is value else msgspec.json.encode(redacted).decode()

    def _scrub_odd_json(self, text: str, layer: int) -> str:
        """Do the same for what only Python's own reader takes: half a surrogate pair, NaN."""
        if not _ODD_JSON.search(text):
            return text
        import json

        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        redacted = self._value("", value, 0, layer + 1)
        return text if redacted is value else json.dumps(redacted, separators=(",", ":"))

    def _scrub_statement(self, text: str, layer: int) -> str:
        if not _SQL_START.match(text):
            redis = _REDIS_AUTH.match(text)
            return f"{redis[1]} {self.mask}" if redis and self.builtin else self._scrub(text, layer)
        text = self._own_values(text)
        if self.builtin:
            text = patterns.scrub(text, self.mask, ibans=self._ibans)
        if self.builtin or self.names.has_own:
            text = sql.scrub(text, self.is_secret, self.mask)
            text = self._scrub_literals(text, layer)
        return text

    def _scrub_literals(self, text: str, layer: int) -> str:
        """Look inside the literals of a statement: a JSON document, a message, an address."""
        if layer >= budget.LAYERS:
            return self._pairs.scrub(text)
        parts: list[str] = []
        copied = 0
        for start, end in sql.literals(text):
            inner = text[start:end]
            if (scrubbed := self._text(inner, layer + 1)) is not inner and scrubbed != inner:
                parts += (text[copied:start], scrubbed)
                copied = end
        return "".join((*parts, text[copied:])) if parts else text

    def _own_values(self, text: str) -> str:
        for own in self._own:
            text = own.sub(self._own_value, text)
        return text

    def _own_value(self, match: re.Match[str]) -> str:
        if not match.re.groups:
            return self.mask
        whole, offset = match.group(), match.start()
        parts: list[str] = []
        copied = 0
        for start, end in sorted(span for span in match.regs[1:] if span[0] >= 0):
            if start - offset < copied or start == end:
                continue  # a group inside a group
            parts += (whole[copied : start - offset], self.mask)
            copied = end - offset
        return "".join((*parts, whole[copied:]))


def _renamed(mapping: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with other keys; two that became the same are numbered, so that none is lost."""
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        shown = renamed.get(key, key)
        number = 1
        while shown in result:
            number += 1
            shown = f"{renamed.get(key, key)} ({number})"
        result[shown] = value
    return result


def _refuse_exponential(setting: str, patterns: Sequence[str]) -> None:
    """Refuse patterns by which a short text of a client could stop a worker.

    Raises:
        ConfigurationError: one repeats a repeat of the same characters; the message names it.
    """
    for index, source in enumerate(patterns):
        from otel_audit.redaction.repeats import problems

        for kind, reason in problems(source):
            if kind == "exponential":
                raise ConfigurationError(
                    f"{setting}[{index}] can take exponential time: {source!r}: {reason}. Make the inner "
                    "repeat possessive (`++` for `+`, `*+` for `*`) or write it as one repeat"
                )


def _add(known: set[str], texts: Collection[str]) -> None:
    """Add short texts to those that are known; forget the others when there are too many."""
    short = [text for text in texts if len(text) <= _CACHED_LENGTH]
    if len(known) + len(short) > _CACHED_TEXTS:
        known.clear()
    known.update(short[:_CACHED_TEXTS])
