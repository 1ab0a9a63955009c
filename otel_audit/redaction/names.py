"""Which names are sensitive: of fields, keys, headers and parameters. Pure decisions on text.

A name is split into words first (``X-Api-Key``, ``apiKey``, ``API_KEY`` and ``apikey`` are one name), then
looked for in a list of terms. What follows the term may make it harmless: ``password`` is a secret,
``password_changed_at`` is not. Everything not known to be harmless is taken for a secret.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from otel_audit.errors import ConfigurationError
from otel_audit.redaction.lazy import pattern

if TYPE_CHECKING:
    from otel_audit.config.model import Place, RedactionConfig

Sensitivity: TypeAlias = Literal["clean", "allowed", "secret", "secret_text", "personal", "ambiguous"]
"""``clean``: only the value decides; ``allowed``: leave alone, whatever the value; ``secret``: remove;
``secret_text``: remove, unless it is a number (``tokens`` may count tokens or list them); ``personal``: the
number of a person or account, remove; ``ambiguous``: a word with other meanings (``card``, ``tax_id``,
``clave``), remove unless it is the key of a row, and from free text only what has a digit in it."""
SECRETS: Final = frozenset({"secret", "secret_text"})
SENSITIVE: Final = SECRETS | {"personal", "ambiguous"}

_MAX_NAME: Final = 256  # longer names are decided by their end and not cached

_CAMEL = pattern(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = pattern(r"[^\W\d_]+|\d+")

# Terms, in names written as words joined by "_". A plural may be a count: its group is named `many`.
_TERMS = pattern(
    r"""
      pass_?(?:word|wd|phrase|code|wort)(?P<many1>s(?![a-z]))?
    | pass_?w(?:ö|oe)rter | kennw(?:o|ö|oe)rt
    | (?<![a-z])geheim(?:nis|nisse|wort|zahl|code|schl(?:ü|ue)ssel)?(?![a-z])
    | (?:api|privat|privater|zugangs)_?schl(?:ü|ue)ssel | zugangs_?(?:code|daten)
    | contrase[nñ]a | (?<![a-z])secret[oa]s?(?![a-z])
    | clave_(?:de_acceso|acceso|privada|api)(?![a-z])
    | mots?_?de_?passe | (?<![a-z])mdp(?![a-z]) | (?<![a-z])jeton(?P<many9>s)?(?![a-z])
    | (?<![a-z])secrète(?![a-z]) | cl[eé]_(?:api|priv[eé]e|d_acc[eè]s)(?![a-z])
    | (?<![a-z])senhas?(?![a-z]) | (?:palavra|frase)_?passe(?![a-z]) | (?<![a-z])segredos?(?![a-z])
    | chave_(?:de_acesso|acesso|privada|api)(?![a-z])
    | парол | секрет(?!ар) | токен(?P<many10>ы|ов)?(?![а-я])
    | (?:パスワード|パスコード|パスフレーズ|トークン)(?!変更|更新|有効|期限|数|長|化|ポリシー)
    | 暗証(?:番号|コード) | 合言葉 | シークレット | 秘密(?!保持)
    | (?:密码|密碼|口令|令牌|密钥|密鑰)(?!更新|修改|过期|過期|長度|长度|策略|强度|強度|时间|時間|数|數|类型)
    | (?<![a-z])pwd(?![a-z]) | (?<![a-z])(?:bind|root|admin|user|login|db)?pw(?![a-z])
    | saml_?(?:response|assertion|token)(?![a-z]) | client_?assertion(?![a-z])
    | secret_?(?:access_?)?(?:key|id)(?![a-z])
    | secret(?P<many2>s)?(?![a-z])
    | token(?P<many3>s)?(?![a-z])
    | (?:api|access|private|secret|encryption|signing|master|account|shared|license|licence|deploy|auth|client
        |hmac|aes|session|consumer|subscription|storage|service|app|ssh|gpg|pgp|rsa|activation)_?key(?P<many4>s)?(?![a-z])
    | (?<![a-z])pass_?key(?P<many11>s)?(?![a-z])
    | credentials?(?![a-z])
    | sess(?:ion)?_?id(?P<many5>s)?(?![a-z])
    | session_?(?:token|cookie|secret|data|hash)(?![a-z])
    | (?<![a-z])(?:cvv|cvc|cvn|csc)(?:_?2)?(?![a-z]) | card_?verification | security_?code
    | security_?answer(?P<many12>s)?(?![a-z])
    | (?<![a-z])(?:(?:credit|debit|master|bank|payment)_?)?(?:card|cc)_?(?:number|num|no|nr)(?![a-z])
    | (?:credit|debit)_?card(?P<many6>s)?(?![a-z])
    | (?<![a-z])jwt(?![a-z])
    | (?<![a-z])(?:ssn|social_?security_?(?:number|num|no))(?![a-z])
    | (?<![a-z])(?:mfa|two_?factor|verification|recovery|backup|reset|auth|activation|sms)_?code
        (?P<many7>s)?(?![a-z])
    | one_?time_?(?:code|pin) | (?<![a-z])code_?verifier(?![a-z]) | (?<![a-z])(?:wpa2?_?)?psk(?![a-z])
    | pragma_(?:re|hex|hexre)?key
    | (?:seed|recovery)_?phrase
    | (?:t?otp|mfa|two_?factor)_?seed(?![a-z])
    | magic_?link(?P<many8>s)?(?![a-z])
    """,
    re.VERBOSE,
)

# The last word after a term that makes the name tell *about* a secret.
_ABOUT: Final = frozenset(
    """
    age algorithm alg arn at attempt attempts audience backend brand by change changed changes class column
    cost count counter country counts created date days description dir disabled enabled endpoint event events
    expiration expire expired expires expiry failures field fields file filename form format help hours id ids
    in index invalid issuer kind label length lifetime limit limits max method min minutes missing model
    module name names network on owner page path pk policies policy position present prompt provider rate
    ratio ref reference budget consumed details left remaining
    required requires retries revoked scope scopes seconds size state status strength table time
    timestamp title total ttl type types updated usage used user username uuid valid validator validators
    verified version view
    """.split()  # noqa: SIM905 - a hundred words read better without the quotes
)
_RATE: Final = frozenset({"per"})  # `tokens_per_second`
_ABOUT_ENDINGS: Final = ("last_4", "last4", "last_four")
# A word before a term that makes it a number or a flag: `max_token`, `has_password`.
_FLAG_BEFORE: Final = frozenset(
    "avg count has is max mean min n needs num require requires total".split()  # noqa: SIM905
)

# Names that are sensitive only as a whole or with these words around them: the bare word means many things.
_EXACT = pattern(
    r"""
      (?:\w+_)?(?:authori[sz]ation|cookies?|csrf|xsrf|t?otp)
        (?:_(?:headers?|values?|string|raw|code|key|cookie|jar|secret))?
    | (?:\w+_)?(?:basic|http|proxy|x|digest|bearer)_auth | (?:\w+_)?auth_?header
    | bearer | pass | key_?phrase
    | (?:\w+_)?(?:db|database|user|smtp|ftp|mysql|pg|postgres|redis|admin|root|login|mail|email|ldap
        |proxy)_pass
    | pin | pincode | (?:\w+_)?(?:card|user|security|login|account|sim|new|old)_pin(?:_(?:number|hash))?
    """,
    re.VERBOSE,
)

_AMBIGUOUS: Final = frozenset({"clave"})  # a password, and a key word

# Numbers of persons and accounts: whole names only, for `account_number_format` and `panel` are none.
_NUMBER: Final = r"(?:_?(?:number|num|no|nr))"
_PERSONAL = pattern(
    rf"""
    (?:(?:http_)?x_)?(?:
      (?P<ambiguous> card | pan | bank_?account | tax_?id | national_?id )
    | ibans? | iban{_NUMBER} | pan{_NUMBER}
    | (?:bank_?)?account{_NUMBER}
    | tax{_NUMBER} | tax_?id{_NUMBER} | tax_?(?:payer|identification)_?(?:id|number)
    | passport{_NUMBER}
    | national_?id(?:entity|entification)?{_NUMBER} | national_?insurance{_NUMBER}
    | driv(?:er|ers|er_s|ing)_?licen[cs]e(?:{_NUMBER}|_?id)?
    )(?:_\d+)?
    """,
    re.VERBOSE,
)
_SEGMENT = pattern(r"(?<![^.\[\]])[^.\[\]]++(?=\]*+\Z)")  # `customer.iban` and `customer[iban]` are IBANs
_FORM_PREFIX = pattern(r"\A.*-\d+-")  # `form-0-iban`
_LARGEST_ROW_KEY: Final = 10_000_000
_NUMBER_TEXT = pattern(r"\d{1,12}(?:[.,]\d{1,12})?")
_ROW_KEY_TEXT = pattern(r"\d{1,7}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGIT = pattern(r"\d")

# Parameters of signed addresses; harmless words elsewhere.
_URL_ONLY: Final = frozenset({"sig", "signature", "awsaccesskeyid"})
_URL_SIGNED = pattern(r"x_(?:amz|goog)_(?:signature|credential)")


def words(name: str) -> str:
    """Write a name as lower-case words joined by ``_``: ``X-Api-Key`` and ``xApiKey`` give ``x_api_key``."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return "_".join(_WORD.findall(_CAMEL.sub("_", name).lower()))


def builtin(name: str) -> Sensitivity:
    """Judge a name by the built-in rules."""
    name = words(name)
    if _EXACT.fullmatch(name):
        return "secret"
    if name in _AMBIGUOUS:
        return "ambiguous"
    found: Sensitivity = "clean"
    for match in _TERMS.finditer(name):
        tail = name[match.end() :].strip("_")
        if (
            tail.rpartition("_")[2] in _ABOUT
            or tail.endswith(_ABOUT_ENDINGS)
            or not _RATE.isdisjoint(tail.split("_"))
        ):
            continue
        if not _FLAG_BEFORE.isdisjoint(name[: match.start()].split("_")):
            continue
        if not (match.lastgroup and match.group(match.lastgroup)) or tail:
            return "secret"
        found = "secret_text"
    return found


def mentioned_secret(name: str) -> str:
    """Return the first term of a secret in a name, whatever stands around it; empty if there is none."""
    found = _TERMS.search(words(name))
    return "" if found is None else found.group()


def is_secret(name: str) -> bool:
    """Say whether values under a name are secrets, by the built-in rules."""
    return builtin(name) in SECRETS


def personal(name: str) -> Sensitivity:
    """Judge a name by the rules about numbers of persons and accounts."""
    segment = _SEGMENT.search(name)
    if segment is None:
        return "clean"
    found = _PERSONAL.fullmatch(words(_FORM_PREFIX.sub("", segment.group())))
    if found is None:
        return "clean"
    return "ambiguous" if found["ambiguous"] else "personal"


def removes(sensitivity: Sensitivity, value: object) -> bool:
    """Say whether a value under a name of this sensitivity is removed.

    That there is none, or that a flag is set, is worth knowing and no secret.
    """
    if sensitivity not in SENSITIVE or value is None or value == "" or type(value) is bool:
        return False
    if sensitivity == "secret_text":
        if isinstance(value, str):
            return _NUMBER_TEXT.fullmatch(value) is None
        return not isinstance(value, (int, float))
    if sensitivity == "ambiguous":
        if isinstance(value, str):
            return _ROW_KEY_TEXT.fullmatch(value) is None
        return type(value) is not int or not 0 <= value < _LARGEST_ROW_KEY
    return True


def removes_from_text(sensitivity: Sensitivity, value: str) -> bool:
    """Say whether a value beside such a name in free text is removed: ``card: visa`` tells no number."""
    return removes(sensitivity, value.rstrip(".,;")) and (
        sensitivity != "ambiguous" or _DIGIT.search(value) is not None
    )


def in_address(name: str) -> bool:
    """Say whether this parameter signs an address (``sig``, ``X-Amz-Signature``)."""
    name = words(name)
    return name in _URL_ONLY or _URL_SIGNED.fullmatch(name) is not None


class NameRules:
    """The built-in terms, own patterns and exceptions, as one cached decision for each name."""

    def __init__(
        self,
        *,
        enabled: bool,
        names: Sequence[str] = (),
        allow: Sequence[str] = (),
        personal_numbers: bool = True,
        first: NameRules | None = None,
        table: str = "redaction",
    ) -> None:
        """Compile the patterns of ``redaction.names`` and ``redaction.allow``.

        Args:
            enabled: the built-in rules apply.
            names: patterns of names that are redacted.
            allow: patterns of names that are not.
            personal_numbers: the rules about numbers of persons and accounts apply as well.
            first: rules whose own patterns take precedence.
            table: where the patterns stand in the configuration, for messages.

        Raises:
            ConfigurationError: a pattern is not a regular expression.
        """
        self._enabled = enabled
        self._personal = enabled and personal_numbers
        self._names = compile_patterns(f"{table}.names", names)
        self._allow = compile_patterns(f"{table}.allow", allow)
        self._first = first
        self.has_own: bool = bool(names) or (first is not None and first.has_own)
        self._cached = lru_cache(maxsize=8192)(self._decide)
        self.in_address = lru_cache(maxsize=1024)(in_address)

    @classmethod
    def of(cls, config: RedactionConfig, place: Place | None = None) -> NameRules:
        """Return the rules of a configuration, everywhere or in one place.

        Raises:
            ConfigurationError: a pattern is not a regular expression.
        """
        own = None if place is None else getattr(config, place)
        return cls(
            enabled=config.enabled,
            names=config.names,
            allow=config.allow,
            personal_numbers=config.personal_numbers,
            first=None
            if own is None
            else cls(enabled=False, names=own.names, allow=own.allow, table=f"redaction.{place}"),
        )

    def decide(self, name: str) -> Sensitivity:
        """Judge the name of a value."""
        if len(name) > _MAX_NAME:
            return self._decide(name[-_MAX_NAME:])
        return self._cached(name)

    def own(self, name: str) -> Sensitivity | None:
        """Judge a name by the patterns of the configuration alone, ``None`` if none matches."""
        if self._first is not None and (own := self._first.own(name)) is not None:
            return own
        if self._allow or self._names:
            spellings = _spellings(name)
            if _matches(self._allow, spellings):
                return "allowed"
            if _matches(self._names, spellings):
                return "secret"
        return None

    def _decide(self, name: str) -> Sensitivity:
        if (own := self.own(name)) is not None:
            return own
        found = builtin(name) if self._enabled else "clean"
        if found == "clean" and self._enabled and (prefix := _FORM_PREFIX.match(name)) is not None:
            found = builtin(name[prefix.end() :])
        return personal(name) if found == "clean" and self._personal else found


def _spellings(name: str) -> set[str]:
    # `http.request.header.x-iban` shall match `x-iban`, and so shall Django's HTTP_X_IBAN match `x_iban`.
    last = name.rpartition(".")[2]
    plain = {name, last, last.removeprefix("HTTP_")}
    return plain | {item.replace("-", "_") for item in plain} | {item.replace("_", "-") for item in plain}


def _matches(patterns: Iterable[re.Pattern[str]], spellings: Iterable[str]) -> bool:
    return any(rule.fullmatch(spelling) for rule in patterns for spelling in spellings)


def compile_patterns(
    setting: str, patterns: Sequence[str], flags: re.RegexFlag = re.IGNORECASE
) -> tuple[re.Pattern[str], ...]:
    """Compile the patterns of a setting.

    Raises:
        ConfigurationError: one is not a regular expression; the message names it.
    """
    compiled = []
    for index, source in enumerate(patterns):
        try:
            compiled.append(re.compile(source, flags))
        except re.error as error:
            raise ConfigurationError(
                f"{setting}[{index}] is not a regular expression: {source!r}: {error}"
            ) from error
        if compiled[-1].fullmatch("") is not None and setting.endswith(".values"):
            raise ConfigurationError(
                f"{setting}[{index}] matches the empty string: {source!r} would redact everything; use "
                "+ instead of *"
            )
    return tuple(compiled)
