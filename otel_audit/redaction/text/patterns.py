"""Which texts are secrets by their shape alone: tokens, keys, hashes, card numbers, addresses with passwords.

Every pattern is linear: what a client sends goes through them. The cheap test before them stands in
:mod:`otel_audit.redaction.text.suspicions`.
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
        | do[opr]_v1_[a-f0-9]{40,}+ | gl(?:rt|dt|ptt|cbt|soat|agent|ft)-[A-Za-z0-9_-]{16,}+
        | gl(?:sa|c)_[A-Za-z0-9_=+/]{30,}+ | shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32} | hf_[A-Za-z]{30,}+
        | dapi[a-f0-9]{32} | lin_api_[A-Za-z0-9]{30,}+ | sntry[su]_[A-Za-z0-9_=+/-]{40,}+
        | GOCSPX-[A-Za-z0-9_-]{20,}+ | AGE-SECRET-KEY-1[A-Z0-9]{50,}+ | xapp-[0-9]-[A-Za-z0-9-]{20,}+
        | xkeysib-[a-f0-9]{60,}+(?:-[A-Za-z0-9]{10,}+)? | LTAI[A-Za-z0-9]{16,24}\b | NRAK-[A-Z0-9]{27}
        | PMAK-[a-fA-F0-9]{24}-[a-fA-F0-9]{34} | sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}+
        | hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}+
        | discord(?:app)?\.com/api/webhooks/[0-9]{1,20}/[\w-]{40,}+
        | (?:ATATT3|pscale_(?:tkn|pw|oauth)_)[A-Za-z0-9_=.-]{30,}+ | figd_[A-Za-z0-9_-]{30,}+)
    | \b(?:pbkdf2_sha(?:256|1|512)|bcrypt(?:_sha256)?|argon2|scrypt|md5|sha1)\$[^\s"',;)]{12,}+
    | \$(?:2[abxy]|argon2(?:id|i|d)|[156y])\$[A-Za-z0-9./$=,+-]{20,}+
    """,
    re.VERBOSE,
)

# What Django makes for an address: the token that resets a password (django.contrib.auth.tokens; allauth puts
# the key of the user before it), and a signed value (django.core.signing) whose signature proves it.
_IN_ADDRESS = pattern(
    r"""(?<=/)(?:[0-9a-z]{1,13}-)?[0-9a-z]{6}-[0-9a-f]{32}(?![\w.\-])
      | (?<![\w.\-=])[\w.\-=]++:[0-9A-Za-z]{6}:[\w\-]{43}(?![\w\-])""",
    re.VERBOSE,
)

_SCHEME = pattern(
    r"\b(bearer|basic|digest|negotiate)(\s+)([A-Za-z0-9._~+/-]{6,}+=*+)(?!\s*[:=])", re.IGNORECASE
)
_LONG_CREDENTIAL: Final = 20

# What stands before the last @ of it is userinfo: an unescaped @ in a password is part of the password.
_AUTHORITY = pattern(r"(?<=://)[^\s/?#\"'<>\\]++")

# Blanks, dashes and dots that people and documents put between groups of digits: at most three at a time.
_GAP: Final = r"[ \t\u00a0\u2000-\u200b\u202f\u3000.\-\u2010-\u2015\u2212\uff0d]{0,3}"
_DIGIT: Final = "[0-9\uff10-\uff19]"  # and those of full width
# A part of one UUID in 27 000 would pass for a card's number or an IBAN: each is stepped over as a whole.
UUID: Final = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_CARD = pattern(
    rf"""(?P<uuid>{UUID}) | (?<![0-9A-Za-z\uff10-\uff19])(?<![0-9][.-])
        (?: [2-6\uff12-\uff16]{_DIGIT}{{3}}{_GAP}{_DIGIT}{{4}}{_GAP}{_DIGIT}{{4}}{_GAP}{_DIGIT}{{1,7}}
          | [3\uff13][47\uff14\uff17]{_DIGIT}{{2}}{_GAP}{_DIGIT}{{6}}{_GAP}{_DIGIT}{{5}}
          | [3\uff13][068\uff10\uff16\uff18]{_DIGIT}{{2}}{_GAP}{_DIGIT}{{6}}{_GAP}{_DIGIT}{{4}} )
        (?![0-9A-Za-z\uff10-\uff19])(?![.-]\d)
    """,
    re.VERBOSE,
)
_NOT_DIGIT = pattern(r"\D")

# The countries of ISO 13616 by the length of their IBANs.
_IBAN_LENGTHS: Final = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
    21: "CH CR HR LI LV", 22: "BG BH DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
    33: "RU",
}  # fmt: skip
_IBAN_LENGTH: Final = {
    country: length for length, countries in _IBAN_LENGTHS.items() for country in countries.split()
}
_IBAN = pattern(
    rf"(?P<uuid>{UUID})|"
    r"(?<![0-9A-Za-z])[A-Za-z]{2}\d{2}(?:[ \u00a0\-]?[0-9A-Za-z]{4}){2,7}(?:[ \u00a0\-]?[0-9A-Za-z]{1,3})?"
    r"(?![0-9A-Za-z])"
)
_NOT_ALPHANUMERIC = pattern(r"[^0-9A-Za-z]")

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


def is_iban(text: str) -> bool:
    """Say whether ``text`` is as long as its country's IBANs and passes their check (ISO 7064, mod 97-10)."""
    if _IBAN_LENGTH.get(text[:2].upper()) != len(text):
        return False
    # A letter stands for two digits, A for 10.
    return int("".join([str(int(character, 36)) for character in text[4:] + text[:4]])) % 97 == 1


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


_HEX_TO_ZERO: Final = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_UUID_OF_ZEROS: Final = b"00000000-0000-0000-0000-000000000000"


def is_uuid(text: str) -> bool:
    """Say whether a whole text is a UUID: no pattern here and no rule of names changes one."""
    return (
        len(text) == len(_UUID_OF_ZEROS)
        and text.isascii()
        and text.encode().translate(_HEX_TO_ZERO) == _UUID_OF_ZEROS
    )


def scrub(text: str, mask: str, *, ibans: bool = True) -> str:
    """Replace every secret that shows by its shape, and every IBAN if asked."""
    # A word that begins like a token and is none is matched, too: it would be followed from each `eyJ` in it.
    text = _WHOLE.sub(lambda match: mask if match["word"] is None else match.group(), text)

    if "/" in text or ":" in text:
        text = _IN_ADDRESS.sub(mask, text)

    def credential(match: re.Match[str]) -> str:
        scheme, space, value = match.groups()
        if _is_credential(scheme, value) and not _is_name(match):
            return scheme + space + mask
        return match.group()

    text = _SCHEME.sub(credential, text)
    if "@" in text:
        text = _AUTHORITY.sub(lambda match: _without_userinfo(match.group(), mask), text)
    if "%" in text or ":\\/" in text:
        text = _QUOTED_AUTHORITY.sub(lambda match: match[1] + _without_userinfo(match[2], mask), text)
    text = _FAILING_ROW.sub(lambda match: match[1] + mask + match[3], text)
    text = scrub_cards(text, mask)
    return scrub_ibans(text, mask) if ibans else text


def _is_name(match: re.Match[str]) -> bool:
    """Say whether what a scheme is followed by is a name with its own value: ``bearer token="x"``."""
    text, start, end = match.string, match.start(), match.end()
    following = text[end : end + 1]
    if text[end - 1] != "=" or not following:
        return False
    # A quote may as well be the end of what begins before the scheme, and the sign before it padding.
    return following.isalnum() or (following in "\"'" and text[max(0, start - 1) : start] != following)


def _without_userinfo(authority: str, mask: str) -> str:
    marks = [found.start() for found in _AT.finditer(authority)]
    return mask + authority[marks[-1] :] if marks and marks[-1] else authority


def scrub_cards(text: str, mask: str) -> str:
    """Replace every card number."""

    def number(match: re.Match[str]) -> str:
        candidate = match.group()
        return mask if match["uuid"] is None and is_card_number(_digits(candidate)) else candidate

    return _CARD.sub(number, text)


def _digits(text: str) -> str:
    digits = _NOT_DIGIT.sub("", text)
    return digits if digits.isascii() else unicodedata.normalize("NFKC", digits)


def scrub_ibans(text: str, mask: str) -> str:
    """Replace every IBAN, in groups or not."""

    def number(match: re.Match[str]) -> str:
        return _without_iban(match.group(), mask) if match["uuid"] is None else match.group()

    return _IBAN.sub(number, text)


def _without_iban(candidate: str, mask: str) -> str:
    plain = _NOT_ALPHANUMERIC.sub("", candidate)
    if is_iban(plain):
        return mask
    # A word may follow in what looks like its next group: "DE89 3704 … 0130 00 paid".
    length = _IBAN_LENGTH.get(plain[:2].upper(), len(plain))
    if length < len(plain) and is_iban(plain[:length]):
        end = [index for index, character in enumerate(candidate) if character.isalnum()][length]
        if not candidate[end - 1].isalnum():
            return mask + candidate[end - 1 :]
    return candidate
