"""Which texts are secrets by their shape alone: tokens, keys, hashes, card numbers, addresses with passwords.

Every pattern is linear: what a client sends goes through them. :func:`may_hold_secret` is the cheap test
before: it may say yes for nothing, and never says no to a text that a pattern here or a name rule changes.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from typing import Final

from otel_audit.redaction.lazy import pattern

_WHOLE = pattern(
    r"""
      -----BEGIN[A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----[\s\S]*?
        (?:-----END[A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----|\Z)
    | \beyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*+)*+|(?P<word>))
    | \b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b
    | \b(?:gh[pousr]_[A-Za-z0-9]{20,}+ | github_pat_[A-Za-z0-9_]{20,}+ | glpat-[A-Za-z0-9_-]{16,}+
        | xox[abeoprs]-[A-Za-z0-9-]{10,}+ | [srp]k_(?:live|test)_[A-Za-z0-9]{10,}+ | whsec_[A-Za-z0-9]{16,}+
        | AIza[A-Za-z0-9_-]{35} | ya29\.[A-Za-z0-9_-]{20,}+ | sk-[A-Za-z0-9_-]{20,}+
        | hv[sb]\.[A-Za-z0-9_-]{20,}+
        | SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+ | npm_[A-Za-z0-9]{30,}+ | pypi-[A-Za-z0-9_-]{30,}+
        | dop_v1_[a-f0-9]{40,}+)
    | \b(?:pbkdf2_sha(?:256|1|512)|bcrypt(?:_sha256)?|argon2|scrypt|md5|sha1)\$[^\s"',;)]{12,}+
    | \$(?:2[abxy]|argon2(?:id|i|d)|[156y])\$[A-Za-z0-9./$=,+-]{20,}+
    """,
    re.VERBOSE,
)

_SCHEME = pattern(
    r"\b(bearer|basic|digest|negotiate)(\s+)([A-Za-z0-9._~+/-]{6,}+=*+)(?!\s*[:=])", re.IGNORECASE
)
_LONG_CREDENTIAL: Final = 20

# What stands before the last @ of it is userinfo: an unescaped @ in a password is part of the password.
_AUTHORITY = pattern(r"(?<=://)[^\s/?#\"'<>\\]++")

_CARD = pattern(
    r"""(?<![0-9A-Za-z])(?<![0-9][.-])
        (?: [2-6]\d{3}([ .\-]?)\d{4}\1\d{4}\1\d{1,7}
          | 3[47]\d{2}([ .\-]?)\d{6}\2\d{5}
          | 3[068]\d{2}([ .\-]?)\d{6}\3\d{4} )
        (?![0-9A-Za-z])(?![.-]\d)
    """,
    re.VERBOSE,
)
_NOT_DIGIT = pattern(r"\D")
# Issuer prefixes with their numbers of digits. Times in any unit since 1970 begin with 1 until the year 2033
# (milliseconds and up), dates like 20261123… with 20: neither is a card's beginning.
_ISSUERS: Final = (
    (pattern(r"4"), (13, 16, 19)),
    (pattern(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (pattern(r"3[47]"), (15,)),
    (pattern(r"6011|64[4-9]|65|62|60|81"), (16, 17, 18, 19)),
    (pattern(r"30[0-5]|3095|36|3[89]"), (14, 16, 19)),
    (pattern(r"352[89]|35[3-8]"), (16, 17, 18, 19)),
    (pattern(r"50|5[6-8]|6[37]"), (16, 18, 19)),
)

SMALLEST_CARD: Final = 10**12
"""No smaller integer is a card number."""

# An address inside a parameter, quoted once or more, or inside JSON.
_QUOTED_AUTHORITY = pattern(
    r"(%(?:25)*+3A(?:%(?:25)*+2F){2}|:\\/\\/)((?:(?!%(?:25)*+(?:2F|3F|23|22|27))[^\s/&?#\"'<>\\])++)",
    re.IGNORECASE,
)
_AT = pattern(r"@|%(?:25)*+40", re.IGNORECASE)

_FAILING_ROW = pattern(r"(Failing row contains \()([\s\S]*?)(\)\.?\s*(?:\n|$)|\Z)")


def luhn(digits: str) -> bool:
    """Say whether the last of ``digits`` is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = ord(digit) - 48
        if index & 1:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def is_card_number(digits: str) -> bool:
    """Say whether ``digits`` begin like an issuer's cards, have as many digits, and pass Luhn's check."""
    return any(
        len(digits) in lengths and prefix.match(digits) is not None for prefix, lengths in _ISSUERS
    ) and luhn(digits)


def _is_credential(scheme: str, value: str) -> bool:
    # "Basic information", "bearer responsibilities", "digest algorithm" are words, not credentials.
    if scheme.lower() == "basic":
        try:
            return b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except (binascii.Error, ValueError):
            return False
    return len(value) >= _LONG_CREDENTIAL or any(
        character.isdigit() or character in "._~+/=" for character in value.rstrip(".")
    )


def scrub(text: str, mask: str) -> str:
    """Replace every secret that shows by its shape."""
    # A word that begins like a token and is none is matched, too: it would be followed from each `eyJ` in it.
    text = _WHOLE.sub(lambda match: mask if match["word"] is None else match.group(), text)

    def credential(match: re.Match[str]) -> str:
        scheme, space, value = match.groups()
        return scheme + space + mask if _is_credential(scheme, value) else match.group()

    text = _SCHEME.sub(credential, text)
    if "@" in text:
        text = _AUTHORITY.sub(lambda match: _without_userinfo(match.group(), mask), text)
    if "%" in text or ":\\/" in text:
        text = _QUOTED_AUTHORITY.sub(lambda match: match[1] + _without_userinfo(match[2], mask), text)
    text = _FAILING_ROW.sub(lambda match: match[1] + mask + match[3], text)
    return scrub_cards(text, mask)


def _without_userinfo(authority: str, mask: str) -> str:
    marks = [found.start() for found in _AT.finditer(authority)]
    return mask + authority[marks[-1] :] if marks and marks[-1] else authority


def scrub_cards(text: str, mask: str) -> str:
    """Replace every card number."""
    return _CARD.sub(
        lambda match: mask if is_card_number(_NOT_DIGIT.sub("", match.group())) else match.group(), text
    )


def may_hold_secret(text: str) -> bool:
    """Tell quickly that a text holds nothing: no shape of a secret, no name of one beside a value.

    Chains of ``in`` are several times faster than one regular expression over the same words.
    """
    if len(text) < _SHORTEST_SHAPE and not _BESIDE.search(text):
        return False
    lower = text.lower()
    if not lower.isascii():
        lower = unicodedata.normalize("NFKC", lower)
    return _may_hold_shape(lower) or (
        (
            "=" in lower
            or ":" in lower
            or '"' in lower
            or "'" in lower
            or "--" in lower
            or ">" in lower
            or "%" in lower
            or "|" in lower
            or "\n" in lower
            or " -" in lower
            or "│" in lower
        )
        and _may_hold_name(lower)
    )


_SHORTEST_SHAPE: Final = 10  # "Basic YTpi"
_BESIDE = pattern("[=:\"'>：＝﹕﹦\n|%-]")


def _may_hold_shape(lower: str) -> bool:
    # md5$, pbkdf2_sha256$, $2b$, $argon2id$: all password hashes have a dollar.
    return (
        "eyj" in lower
        or "$" in lower
        or "private key" in lower
        or "bearer" in lower
        or "basic " in lower
        or "digest " in lower
        or "negotiate " in lower
        or "failing row" in lower
        or "_live_" in lower
        or "_test_" in lower
        or "auth " in lower  # Redis: AUTH user password
        or "akia" in lower
        or "asia" in lower
        or "abia" in lower
        or "acca" in lower
        or "ghp_" in lower
        or "gho_" in lower
        or "ghu_" in lower
        or "ghs_" in lower
        or "ghr_" in lower
        or "_pat_" in lower
        or "glpat-" in lower
        or "xox" in lower
        or "sk-" in lower
        or "npm_" in lower
        or "pypi-" in lower
        or "whsec_" in lower
        or "aiza" in lower
        or "ya29." in lower
        or "hvs." in lower
        or "hvb." in lower
        or "sg." in lower
        or "dop_v1_" in lower
        or ("@" in lower and ("://" in lower or ":\\/" in lower))
        or ("%" in lower and "40" in lower and "2f" in lower)
        or _DIGITS.search(lower) is not None
    )


def _may_hold_name(lower: str) -> bool:
    # Every term of names.py contains one of these; test_patterns.py holds the two lists together.
    return (
        "pass" in lower
        or "secret" in lower
        or "token" in lower
        or "key" in lower
        or "auth" in lower
        or "sess" in lower
        or "cookie" in lower
        or "credential" in lower
        or "pw" in lower
        or "card" in lower
        or "code" in lower
        or "bearer" in lower
        or "cv" in lower
        or "csc" in lower
        or "srf" in lower
        or "jwt" in lower
        or "otp" in lower
        or "pin" in lower
        or "ssn" in lower
        or "social" in lower
        or "phrase" in lower
        or "sig=" in lower
        or "signature" in lower
        or "credit" in lower
        or "debit" in lower
        or "ccn" in lower
        or "cc_n" in lower
        or "cc-n" in lower
        or "cc n" in lower
        or "ccno" in lower
        or "kennwort" in lower
        or "contrase" in lower
        or "senha" in lower
        or "identified" in lower
        or "duplicate entry" in lower
        or "already exists" in lower
        or (" -" in lower and _PROGRAM.search(lower) is not None)
        or ("%" in lower and _PERCENT_ENCODED.search(lower) is not None)
        or "\\u00" in lower
    )


_PERCENT_ENCODED = pattern(r"%[2-7][0-9a-f]")  # not the %s of a statement
_PROGRAM = pattern(r"curl|wget|lftp|smbclient|mysql|mariadb|sshpass|login|redis-cli|ldap|7z")
_DIGITS = pattern(r"[2-6]\d{3}[ .\-]?\d{4}[ .\-]?\d{4}|3\d{3}[ .\-]?\d{6}")
