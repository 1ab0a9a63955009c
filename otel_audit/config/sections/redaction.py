"""``[redaction]``: what is sensitive."""

from typing import Annotated, Literal

from msgspec import Meta

from otel_audit.config.sections.section import SECRET, Section


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
