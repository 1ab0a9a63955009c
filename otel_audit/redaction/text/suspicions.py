"""The cheap test before all rules: most texts hold nothing, and one look says so.

:func:`may_hold_secret` may say yes for nothing, and never says no to a text that a pattern of
:mod:`otel_audit.redaction.text.patterns` or a rule of names changes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Final

from otel_audit.redaction.lazy import pattern
from otel_audit.redaction.text.vocabulary import Vocabulary


def may_hold_secret(text: str) -> bool:
    """Tell quickly that a text holds nothing: no shape of a secret, no name of one beside a value.

    Chains of ``in`` are several times faster than one regular expression over the same words; and most texts
    are made of words that were searched before.
    """
    if len(text) < _SHORTEST_SHAPE and not _BESIDE.search(text):
        return False
    lower = text.lower()
    if lower.isascii():
        zeros = lower.encode().translate(_ZEROS)
    else:
        lower = unicodedata.normalize("NFKC", lower)
        zeros = lower.encode("utf-8", "surrogatepass").translate(_ZEROS)
    words: Collection[bytes] | None = None
    if len(zeros) <= WORDS_LENGTH:
        if _BETWEEN in zeros:  # many texts of a column are alike but for their digits
            zeros = _BETWEEN.join(set(zeros.split(_BETWEEN)))
        words = zeros.split()
        if len(words) > _MANY:  # the same ones again and again, and looked up twice
            words = set(words)
    return (
        "$" in lower  # md5$, pbkdf2_sha256$, $2b$, $argon2id$: all password hashes have a dollar
        or ((words is None or _shapes.may_hold(words)) and _may_hold_shape(lower))
        or ("@" in lower and ("://" in lower or ":\\/" in lower))
        or ("%" in lower and _may_hold_encoded(lower))
        or ("-" in lower and "/" in lower and _RESET.search(lower) is not None)
        or (":" in lower and _SIGNED.search(lower) is not None)
        or _may_hold_number(lower, zeros)
        or (_is_beside(lower) and (words is None or _names.may_hold(words)) and _may_hold_name(lower))
    )


def are_too_short(texts: Collection[str]) -> bool:
    """Say of many texts that :func:`may_hold_secret` says no to each of them: keys and numbers, mostly."""
    return max(map(len, texts), default=0) < _SHORTEST_SHAPE and not _BESIDE.search("".join(texts))


def _is_beside(lower: str) -> bool:
    """Say whether a text has a sign that may stand between a name and its value."""
    return (
        "=" in lower
        or ":" in lower
        or '"' in lower
        or "'" in lower
        or ">" in lower
        or "%" in lower
        or "|" in lower
        or "\n" in lower
        or "\\" in lower
        or ("-" in lower and ("--" in lower or " -" in lower))
        or ("&" in lower and "&#" in lower)
        or (";" in lower and "lt;" in lower)
        or "│" in lower
        or " is " in lower
        or " was " in lower
        or "\t" in lower
    )


_SHORTEST_SHAPE: Final = 10  # "Basic YTpi"
BESIDE: Final = "=:\"'>：＝﹕﹦\n\t|%\\&-"
"""A text of less characters than the shortest shape holds nothing without one of these signs."""
_BESIDE = pattern(f"[{re.escape(BESIDE)}]")


def _may_hold_shape(lower: str) -> bool:
    return (
        "eyj" in lower
        or "private key" in lower
        or "bearer" in lower
        or "basic " in lower
        or "digest " in lower
        or "negotiate " in lower
        or "failing row" in lower
        or "auth " in lower  # Redis: AUTH user password
        or "akia" in lower
        or "asia" in lower
        or "abia" in lower
        or "acca" in lower
        or "aiza" in lower
        or "dapi" in lower
        or "ltai" in lower
        or "atatt3" in lower
        or ("_" in lower and _may_hold_underscored(lower))
        or ("-" in lower and _may_hold_hyphenated(lower))
        or (
            "." in lower
            and (
                "sg." in lower
                or "ya29." in lower
                or "hvs." in lower
                or "hvb." in lower
                or "hooks.slack" in lower
                or "/webhooks/" in lower
            )
        )
    )


def _may_hold_encoded(lower: str) -> bool:
    """Say whether a text may hold an address or a name that is percent-encoded."""
    return ("40" in lower and "2f" in lower) or _PERCENT_ENCODED.search(lower) is not None


def _may_hold_number(lower: str, zeros: bytes) -> bool:
    """Say whether a text may hold the number of a card or an IBAN."""
    if b"0000" not in zeros:
        return False
    if not lower.isascii():
        return _EIGHT_DIGITS.search(lower) is not None and _CARD_OR_IBAN.search(lower) is not None
    # With zeros for digits these are searches for a fixed text, many times faster.
    plain = zeros.decode()
    return (
        _EIGHT_ZEROS.search(plain) is not None
        and _NUMBER_OF_ZEROS.search(plain) is not None
        and _CARD_OR_IBAN.search(lower) is not None
    )


def _may_hold_underscored(lower: str) -> bool:
    return (
        "_live_" in lower
        or "_test_" in lower
        or "_v1_" in lower
        or "_pat_" in lower
        or "_api_" in lower
        or _GITHUB.search(lower) is not None
        or "gls" in lower
        or "glc_" in lower
        or "npm_" in lower
        or "whsec_" in lower
        or "shp" in lower
        or "hf_" in lower
        or "sntry" in lower
        or "pscale_" in lower
        or "figd_" in lower
    )


def _may_hold_hyphenated(lower: str) -> bool:
    return (
        "sk-" in lower
        or "xox" in lower
        or "xapp-" in lower
        or _GITLAB.search(lower) is not None
        or "pypi-" in lower
        or "gocspx-" in lower
        or "age-sec" in lower
        or "xkeysib-" in lower
        or "nrak-" in lower
        or "pmak-" in lower
        or "sq0" in lower
    )


def _may_hold_name(lower: str) -> bool:
    # Every term of names.py contains one of these; test_text.py holds the two lists together.
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
        or "psk" in lower
        or "pin" in lower
        or "ssn" in lower
        or "social" in lower
        or "phrase" in lower
        or ("sig" in lower and ("sig=" in lower or "signature" in lower))
        or ("cc" in lower and _CC_NUMBER.search(lower) is not None)
        or "kennwort" in lower
        or "contrase" in lower
        or "senha" in lower
        or "identified" in lower
        or "answer" in lower
        or "seed" in lower
        or "magic" in lower
        or "iban" in lower
        or (
            ("tax" in lower or "account" in lower or "pan" in lower)
            and _PERSONAL_NAME.search(lower) is not None
        )
        or "licen" in lower
        or "saml" in lower
        or "assertion" in lower
        or "national" in lower
        or "geheim" in lower
        or "schluess" in lower
        or "zugang" in lower
        or "mdp" in lower
        or "jeton" in lower
        or "segredo" in lower
        or "clave" in lower
        or "chave" in lower
        or "cle_" in lower
        or (not lower.isascii() and _FOREIGN_NAME.search(lower) is not None)
        or "duplicate entry" in lower
        or "already exists" in lower
        or (" -" in lower and _PROGRAM.search(lower) is not None)
        or "\\u00" in lower
    )


_RESET = pattern(r"-[0-9a-f]{32}")
_SIGNED = pattern(r":[0-9a-z]{6}:[\w-]{43}")
_GITHUB = pattern(r"gh[oprsu]_")
_GITLAB = pattern(r"gl[a-z]{2,5}-")
_CC_NUMBER = pattern(r"cc[ _-]?(?:n|no|nr|num|number)(?![a-z])")
_PERSONAL_NAME = pattern(r"tax|account|(?<![a-z])pan(?![a-z])")
_FOREIGN_NAME = pattern(
    r"kennwö|schlüss|secrète|clé|парол|секрет|токен|パスワ|パスコ|パスフ|トークン|シークレ|暗証|合言葉|秘密|密码|密碼|口令|令牌|密钥|密鑰"
)
_PERCENT_ENCODED = pattern(r"%[2-7][0-9a-f]")  # not the %s of a statement
_PROGRAM = pattern(r"curl|wget|lftp|smbclient|mongo|mysql|mariadb|sshpass|login|redis-cli|ldap|7z")
# Every card number and IBAN has eight digits in a row or in groups of four: that is quickly seen.
_EIGHT_DIGITS = pattern(r"[0-9]{4}(?:[^0-9a-z\n]{1,3}[0-9]{4}|[0-9]{4})")
# The same, and the expression below, of a text whose digits are all zeros.
_EIGHT_ZEROS = pattern(r"0000(?:[^0-9a-z\n]{1,3}0000|0000)")
_NUMBER_OF_ZEROS = pattern(
    r"0000[^\w\n]{0,3}0000[^\w\n]{0,3}0000|0000[^\w\n]{0,3}000000"
    r"|00(?<=[a-z][a-z]00)[^\w\n]?[a-z0]{4}[^\w\n]?[a-z0]{4}"
)
_ZEROS: Final = bytes.maketrans(b"123456789\0", b"000000000 ")
"""Digits alike, and a blank for what stands between texts that are looked at together."""
_BETWEEN: Final = b" " * 4
"""What the translation makes of what stands between texts."""
WORDS_LENGTH: Final = 16 * 1024
"""Bytes of a text whose words are looked up."""
_MANY: Final = 64
"""Words of a text that is made of few different ones."""
_CARD_OR_IBAN = pattern(
    r"[2-6][0-9]{3}[^\w\n]{0,3}[0-9]{4}[^\w\n]{0,3}[0-9]{4}|3[0-9]{3}[^\w\n]{0,3}[0-9]{6}"
    r"|[a-z][a-z][0-9]{2}[^\w\n]?[a-z0-9]{4}[^\w\n]?[a-z0-9]{4}"
)


# Of what goes on behind a blank, the word before it; of what has a digit, the same with a zero.
def _shape_in_words(words: str) -> bool:
    return (
        "private " in words
        or "failing " in words
        or "atatt0" in words
        or "_v0_" in words
        or "ya00." in words
        or _may_hold_shape(words)
    )


def _name_in_words(words: str) -> bool:
    return (
        "cc " in words
        or "duplicate " in words
        or "already " in words
        or "0z" in words
        or _may_hold_name(words)
    )


_shapes: Final = Vocabulary(_shape_in_words)
_names: Final = Vocabulary(_name_in_words)
