"""The rules of redaction as processors of the OpenTelemetry Collector, for spans.

The Collector is the second line: for spans of services we do not run in, and for what the first line missed.
It reads Go's regular expressions (RE2), which know no lookaround and no check digit, so the patterns are ours
rewritten; where they cannot say the same they remove more. ``make docs`` writes them into
``collector/config.yaml``; a test drives the names and texts of our own tests through the real Collector.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_audit.redaction import names
from otel_audit.redaction.text import patterns

BEGIN: Final = "  # --- redaction: begin ---\n"
END: Final = "  # --- redaction: end ---\n"

_GAP: Final = "[^0-9A-Za-z]"
_AFTER: Final = "(?:[^a-z]|$)"
_MASK: Final = "[redacted]"
_APART: Final = "\ue000"  # of private use: no text that people write has it
_ISSUER: Final = (
    r"(?:4\d{3}|5[0-8]\d{2}|2(?:2[2-9]\d|[3-6]\d{2}|7[01]\d|720)|3[05-9]\d{2}|6\d{3}"
    r"|[\x{ff12}-\x{ff16}][\x{ff10}-\x{ff19}]{3})"
)

# Terms that a word behind or before them turns into something harmless: `password_changed_at`, `max_tokens`.
_EXCUSABLE: Final = (
    "(?i:pass[^0-9A-Za-z]?(?:word|wd|phrase|code|key)|pwd|token|key|credential|card|code|link|assertion)s?"
)
_EXCUSABLE_BUT_ID: Final = "(?i:secret|session)s?"
_COUNTS: Final = "(?i:tokens)$"


def _flat(verbose: str) -> str:
    """Return a pattern written over several lines as one; blanks in classes stay."""
    lines = (line.partition(" # ")[0] for line in verbose.splitlines())
    parts = re.split(r"(\[[^\]]*\])", "\n".join(lines))
    flat = (part if index % 2 else re.sub(r"\s+", "", part) for index, part in enumerate(parts))
    return "".join(flat).replace("[ ]", " ")


def _re2(source: str) -> str:
    """Rewrite a pattern for RE2: groups lose their names, quantifiers their possession."""
    source = re.sub(r"\(\?P<\w+>", "(?:", source)
    source = re.sub(r"([+*?}])\+", r"\1", source)
    source = re.sub(r"\\u([0-9a-f]{4})", r"\\x{\1}", source)
    return source.replace(r"\Z", "$")


def _split(alternatives: str) -> Iterator[str]:
    """Split ``a|b(c|d)`` at the bars that are in no group and no class."""
    depth, in_class, start = 0, False, 0
    for index, character in enumerate(alternatives):
        if in_class or character == "[":
            in_class = character != "]"
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            yield alternatives[start:index]
            start = index + 1
    yield alternatives[start:]


def _capitals(term: str) -> str:
    """Return a term as it stands inside ``camelCase``: each of its words begins with a capital."""
    return re.sub(r"(?<![A-Za-z\\])[a-z](?=[a-z0-9])", lambda match: match.group().upper(), term)


def key_patterns() -> list[str]:
    """Return what matches the keys of attributes whose values go."""
    found = []
    for term, _ in _terms():
        # Words end where the case changes, too: only an expression that minds case can see that. So the
        # boundaries mind it, and the terms do not.
        ends = term.endswith("(?![a-z])")
        starts = term.startswith("(?<![a-z])")
        bare = term.replace("(?<![a-z])", "").replace("(?![a-z])", "")
        spelled = bare.replace("_?", f"{_GAP}?").replace("_", _GAP)
        after = _AFTER if ends else ""
        before = "(?:^|[^A-Za-z])" if starts else ""
        found.append(f"{before}(?i:{spelled}){after}")
        if starts:
            found.append(f"[a-z](?:{_capitals(spelled)}){after}")
    whole = _re2(_flat(names._EXACT.pattern)).replace(r"(?:\w+_)?", "\0").replace("_", _GAP)
    found.append(f"^(?i:{whole.replace(chr(0), f'(?:.*{_GAP})?')})$")
    found.append(f"^(?i:{'|'.join(sorted(names._AMBIGUOUS))})$")
    number = _re2(_flat(names._PERSONAL.pattern)).replace("_?", f"{_GAP}?").replace("_", _GAP)
    found.append(rf"^(?:.*[.\[]|.*-\d+-)?(?i:{number})\]*$")
    return found


def _terms() -> Iterator[tuple[str, str]]:
    """Yield each term, and what behind it makes it another word: RE2 has no lookahead."""
    for term in _split(_re2(_flat(names._TERMS.pattern))):
        other = re.search(r"\(\?!([^()]+)\)$", term)
        if other is None or other[1] == "[a-z]":
            yield term, ""
        else:
            yield term[: other.start()], other[1]


def harmless_key_patterns() -> list[str]:
    """Return what matches keys that only tell about a secret, or count some."""
    about = sorted(names._ABOUT)
    capital = "|".join(word.capitalize() for word in about)
    but_id = [word for word in about if word not in ("id", "ids")]
    gap = f"{_GAP}(?:.*{_GAP})?"
    before = "|".join(sorted(names._FLAG_BEFORE))
    return [
        f"{_EXCUSABLE}{gap}(?i:{'|'.join(about)})$",
        f"{_EXCUSABLE_BUT_ID}{gap}(?i:{'|'.join(but_id)})$",
        f"(?i:token|password)(?:[A-Z][a-z]+)*(?:{capital})$",
        f"{_EXCUSABLE}.*(?i:{'|'.join(names._ABOUT_ENDINGS)})$",
        f"(?:^|[^A-Za-z])(?i:{before}){_GAP}.*{_EXCUSABLE}",
        f"{_EXCUSABLE}{gap}(?i:{'|'.join(sorted(names._RATE))}){_GAP}",
        r"(?:tokens?|Tokens?)(?:Per[A-Z]\w*)$",
        _COUNTS,
        *(f"(?i:(?:{term})(?:{other}))" for term, other in _terms() if other),
    ]


def text_patterns() -> list[tuple[str, str]]:
    """Return what is replaced in texts, each with what stands in its place; ``$1`` is a group that stays."""
    shapes = _re2(_flat(patterns._WHOLE.pattern).replace("|(?P<word>)", ""))
    # Without a check digit to look at, at least the issuer's: dates and most counters begin otherwise.
    digits = _flat(patterns._CARD.pattern).removeprefix(f"(?P<uuid>{patterns.UUID})|")
    card = _re2(re.sub(r"\(\?<?![^()]*\)", "", digits))
    card = card.replace(f"[2-6\\x{{ff12}}-\\x{{ff16}}]{patterns._DIGIT}{{3}}", _ISSUER)
    name = (
        r"(?:pass_?(?:word|wd|phrase|code)s?|pwd|secret(?:_?(?:access_?)?key)?|(?:[a-z]+_?)?token|"
        r"(?:api|access|private|account|auth|client|session|signing|encryption)[_ -]?key|credentials?|"
        r"sess(?:ion)?_?id|cvv2?|cvc|card[_ -]?(?:number|num|no)|jwt|ssn|otp|pin|"
        r"pin_?code|pass_?key|key_?phrase|"
        r"(?:ssh|gpg|pgp|rsa)[_ -]?key|security[_ -]?answer|t?otp[_ -]?seed|magic[_ -]?link|auth[_ -]?header|"
        r"ibans?|(?:bank[_ -]?)?account[_ -]?(?:number|num|no)|passport[_ -]?(?:number|num|no)|"
        r"drivers?[_ -]?licen[cs]e(?:[_ -]?(?:number|no))?|"
        r"passwo?rt|kennwort|geheim(?:nis|code|wort)?|contrase(?:n|ñ)a|mots?[_ -]?de[_ -]?passe|"
        r"mdp|jeton|senha|palavra[_ -]?passe|segredo|"
        r"пароль|секрет|токен|パスワード|暗証番号|トークン|シークレット|密码|密碼|口令|令牌|密钥)"
    )
    named = rf"(?i)((?:^|[^a-z]){name}[\])]?\\*[\"']?[ \t]*(?:=>|->|:=|==?|:|,|\bis\b)[ \t]*"
    plain = (
        r"""(?:\[[^\]]*\]|\{[^}]*\}|\([^)]*\)"""
        r"""|[^\s"'&<>,;)\]}%?$:#\[{(\\][^\s"'&<>,;)\]}#]*)"""
    )
    opening = r"\\*(?:[bBuU]|[A-Za-z_][\w.]{0,63}\()?"
    credential = r"(?:[A-Za-z0-9._~+/-]{20,}=*|[A-Za-z._~+/-]*[0-9][A-Za-z0-9._~+/-]*=*)"
    whole_line = r"(?:proxy-)?authori[sz]ation|(?:set-)?cookies?"
    iban = "|".join(
        f"(?:{'|'.join(countries.split())})" + r"\d{2}(?:[ \x{a0}\-]?[0-9A-Za-z]){" + f"{length - 4}}}"
        for length, countries in patterns._IBAN_LENGTHS.items()
    )
    # A UUID is taken apart for as long as numbers are looked for: one in 200 would pass for an IBAN.
    groups = "-".join(f"([0-9A-Fa-f]{{{length}}})" for length in (8, 4, 4, 4, 12))
    apart = f"{_APART}-".join(f"${{{number}}}" for number in range(1, 6))
    signature = r"[?&](?:x-amz-signature|x-goog-signature|x-amz-credential|sig|signature|awsaccesskeyid)="
    return [
        (shapes, _MASK),
        (r"(/)(?:[0-9a-z]{1,13}-)?[0-9a-z]{6}-[0-9a-f]{32}([^\w.\-]|$)", f"$1{_MASK}$2"),
        (r"[\w.\-=]+:[0-9A-Za-z]{6}:[\w\-]{43}([^\w\-]|$)", f"{_MASK}$1"),
        (r"(://)[^\s/?#\"'<>\\]*@", f"$1{_MASK}@"),
        (
            rf"(?i)(\b(?:{whole_line})\\*[\"']?(?:[ \t]*(?:=>|[=:])|[\"']?,)[ \t]*\\*[\"']?)[^\r\n]+",
            f"$1{_MASK}",
        ),
        (
            rf"(?i)(\b(?:bearer|basic|digest|negotiate)\s+){credential}",
            f"$1{_MASK}",
        ),
        (r"(Failing row contains \()[\s\S]*?(\)\.?\s*(?:\n|$)|$)", f"$1{_MASK}$2"),
        (rf"{named}{opening}\")(?:[^\"\\]|\\[^\"])*", f"$1{_MASK}"),
        (rf"{named}{opening}')(?:[^'\\]|\\.)*", f"$1{_MASK}"),
        (rf"{named}){plain}", f"$1{_MASK}"),
        (rf"(?i)(--?{name}[ \t]+|<{name}>)[^\s<>'\"\-][^\s<>'\"]*", f"$1{_MASK}"),
        (r"(?i)(\b(?:password|identified by)[ \t]+')[^']*", f"$1{_MASK}"),
        (
            r"(?i)((?:%22|%26|%3F|[?&])[a-z_%25]*" + name + r"(?:%22)?%(?:25)*3[AD](?:%22)?)[^%&\s]+",
            f"$1{_MASK}",
        ),
        (rf"(?i)({signature})[^&#\s\"'<>]+", f"$1{_MASK}"),
        (groups, apart),
        (rf"(^|[^0-9A-Za-z])(?i:{iban})\b", f"$1{_MASK}"),
        (rf"(^|[^0-9A-Za-z.\-]){card}(\b|[^0-9A-Za-z]|$)", f"$1{_MASK}$2"),
        (f"{_APART}-", "-"),
    ]


def _ottl(text: str) -> str:
    """Quote a text for OTTL, in a document where ``$`` begins a variable."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace(_APART, r"\ue000")
    return quoted.replace("$", "$$")


def _yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def processors() -> str:
    """Write both processors as they stand in the configuration."""
    lines = [
        "  redaction/names:",
        "    allow_all_keys: true",
        "    summary: silent # or it would tell on each span what was hidden there",
        "    blocked_key_patterns:",
        *(f"      - {_yaml(pattern.replace('$', '$$'))}" for pattern in key_patterns()),
        "    ignored_key_patterns: # what only tells about a secret",
        *(f"      - {_yaml(pattern.replace('$', '$$'))}" for pattern in harmless_key_patterns()),
        "    db_sanitizer: # literals in statements",
        "      sanitize_span_name: false",
        "      sql:",
        "        enabled: true",
        '        attributes: ["db.statement", "db.query.text"]',
        "  transform/values:",
        "    error_mode: propagate",
        "    trace_statements:",
    ]
    groups = (
        ('replace_all_patterns(resource.attributes, "value", ',),
        (
            'replace_all_patterns(span.attributes, "value", ',
            "replace_pattern(span.name, ",
            "replace_pattern(span.status.message, ",
        ),
        ('replace_all_patterns(spanevent.attributes, "value", ',),
    )
    for calls in groups:
        lines.append("      - statements:")
        for pattern, replacement in text_patterns():
            for call in calls:
                statement = f'{call}"{_ottl(pattern)}", "{_ottl(replacement)}")'
                lines.append(f"          - {_yaml(statement)}")
    return "\n".join(lines) + "\n"


def written_into(config: str) -> str:
    """Return a configuration with its redaction section written anew.

    Raises:
        ValueError: it has no such section.
    """
    head, begin, rest = config.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no section between {BEGIN.strip()!r} and {END.strip()!r}")
    return head + BEGIN + processors() + END + tail


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written_into(file.read_text("utf-8")), "utf-8")
