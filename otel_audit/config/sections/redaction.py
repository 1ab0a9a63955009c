"""``[redaction]``: what is sensitive."""

from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Section

Place: TypeAlias = Literal["headers", "queries", "bodies", "arguments"]
PLACES: Final[tuple[Place, ...]] = get_args(Place)
"""Places with rules of their own: tables within ``[redaction]``."""


class PlaceRules(Section, frozen=True):
    """Rules of one place, before those that hold everywhere."""

    names: Annotated[
        list[str],
        Meta(description="Additional sensitive names in this place, as for `redaction.names`."),
    ] = []
    values: Annotated[
        list[str],
        Meta(description="Additional sensitive values in this place, as for `redaction.values`."),
    ] = []
    allow: Annotated[
        list[str],
        Meta(description="Names that must not be redacted in this place, whatever all other rules say."),
    ] = []


class RedactionConfig(Section, frozen=True):
    enabled: Annotated[bool, Meta(description="Apply the built-in rules. Your own rules always apply.")] = (
        True
    )
    personal_numbers: Annotated[
        bool,
        Meta(
            description="Apply the built-in rules for numbers of persons and accounts: IBANs, and "
            "fields named iban, card, pan, bank_account, account_number, tax_id, passport_number, "
            "national_id or drivers_license. Values they remove do not appear in a history and cannot "
            "be searched for."
        ),
    ] = True
    names: Annotated[
        list[str],
        Meta(
            description="Additional sensitive names, as regular expressions. Each is matched against "
            "the whole name of a field, key, header or parameter, ignoring case."
        ),
    ] = []
    values: Annotated[
        list[str],
        Meta(
            description="Additional sensitive values, as regular expressions, ignoring case. If an "
            "expression has groups, only the groups are replaced."
        ),
    ] = []
    allow: Annotated[
        list[str], Meta(description="Names that the rules must not redact, as regular expressions.")
    ] = []
    unknown_user_names: Annotated[
        Literal["keep", "mask", "hmac"],
        Meta(
            description="User name of a failed login that belongs to no account: record it, mask it, "
            "or hash it with `hmac_key`, so that equal names can be counted. Such a name is sometimes "
            "a password typed into the wrong field. `mask` and `hmac` cost one query per failed login."
        ),
    ] = "keep"
    replacement: Annotated[str, Meta(description="Text that replaces a removed value.")] = "[redacted]"
    hmac_key: Annotated[
        str,
        Meta(
            description="Key of the hmac strategy, at least 16 characters. Prefer "
            "OTEL_AUDIT_REDACTION_HMAC_KEY.",
            extra=SECRET,
        ),
    ] = ""
    spans: Annotated[bool, Meta(description="Redact exported spans as well.")] = True
    headers: Annotated[
        PlaceRules,
        Meta(
            description="Rules for headers of requests and responses, beside those of `[redaction]`. In each "
            "place, its own rules take precedence: `allow` over `names`, both over what `[redaction]` says."
        ),
    ] = PlaceRules()
    queries: Annotated[
        PlaceRules,
        Meta(description="The same for the parameters of an address."),
    ] = PlaceRules()
    bodies: Annotated[
        PlaceRules,
        Meta(description="The same for the fields of bodies: JSON, forms, XML, text."),
    ] = PlaceRules()
    arguments: Annotated[
        PlaceRules,
        Meta(description="The same for arguments of commands and tasks."),
    ] = PlaceRules()
