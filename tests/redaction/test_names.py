"""Which names are sensitive: a secret's name in every spelling, and no word that only looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from otel_audit.errors import ConfigurationError
from otel_audit.redaction.names import SENSITIVE, NameRules, builtin, in_address, removes

SECRET = """
    password Password PASSWORD passwd pwd user_pwd db_password dbPassword DATABASE_PASSWORD password2
    new_password1 passwordHash password_hash passphrase passcode kennwort contraseña db_pass pass
    smtp_pass secret SECRET_KEY client_secret clientsecret aws_secret_access_key webhook_secret
    vault.secret_id token access_token refresh-token authToken csrfmiddlewaretoken X-CSRF-Token
    csrftoken password_reset_token api_key apikey apiKey API-KEY X-Api-Key private_key privateKey
    encryption_key signing-key account_key access_key session_key sessionid session_id session.id
    PHPSESSID JSESSIONID session_cookie session_data Authorization http.request.header.authorization
    Proxy-Authorization HTTP_AUTHORIZATION authorization_code cookie Cookie Set-Cookie
    http.request.header.cookie http.response.header.set-cookie HTTP_COOKIE csrf credentials credential
    cvv CVV2 card_cvc cvc card_number cardNumber cc_number credit_card creditCardNumber
    mastercard_number security_code jwt id_jwt bearer basic_auth otp totp_secret mfa_code one_time_code
    activation_key activation_code smsCode code_verifier psk wpa_psk
    pin card_pin ssn social_security_number seed_phrase backup_code user[password] form-0-password
    ｐａｓｓｗｏｒｄ ssh_key sshKey SSH_KEY passkey passKey pincode security_answer securityAnswer totp_seed
    TOTP_SEED magic_link magicLink auth_header authHeader X-Auth-Header keyphrase gpg_key
    Passwort benutzer_passwort Kennwort Kennwörter Passwörter passwoerter geheimnis Geheimcode geheimschlüssel
    zugangscode mot_de_passe motDePasse mdp jeton jeton_acces clé_api secrète contrasena nuevaContraseña
    clave_secreta secreto senha nova_senha palavra_passe segredo chave_secreta
    пароль Пароль новый_пароль секрет секретный_ключ токен токен_доступа
    パスワード ﾊﾟｽﾜｰﾄﾞ 新しいパスワード 暗証番号 トークン 秘密鍵 シークレット
    密码 新密码 密碼 口令 访问令牌 密钥
    bindpw rootpw SAMLResponse saml_assertion client_assertion clientAssertion
""".split()  # noqa: SIM905

CLEAN = """
    token_count tokenCount token_type token_expires_in tokenizer tokenized max_token token_limit author
    authors author_id authority authored_by authenticated auth_user auth.user authorization_id
    authorization_status authorization_url_count passenger passengers passport compass bypass
    boarding_pass pass_rate secretary secretariat secret_name aws.secretsmanager.secret.arn order_id
    order_number id created_at updated_at timestamp user.id customer number account_balance
    discard_number wildcard_no password_changed_at password_length has_password is_password_set
    password_policy requires_password password_reset_required password_expires card card_id card_brand
    credit_card_id credit_card_last4 credit_card_type session sessions session_count session_duration
    cookie_consent cookies_accepted cookie_policy csrf_exempt key keyboard primary_key public_key
    foreign_key cache_key sort_key idempotency_key monkey donkey_key description shipping spin pinned
    activation_date activation_key_expires code_verified verifier pskov sms_count
    pin_code postal_code code http.response.status_code code.function.name otp_enabled passive access
    accessed_by cc success magic_link_sent_at passkey_count security_question keyphrases_count
    tokens_per_second tokensPerMinute token_budget prompt_token_details palabra_clave parolee
    секретарь токенизация パスワード変更日 トークン数 秘密保持契約 密码更新时间 令牌数量
    client_assertion_type assertion saml_provider upward
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET)
def test_the_name_of_a_secret_is_known_in_every_spelling(name: str) -> None:
    assert builtin(name) == "secret"


PERSONAL = """
    iban IBAN card pan bank_account bankAccount account_number accountNumber bank_account_number tax_id taxId
    tax-id tax_number passport_number passportNumber passport_no national_id nationalId national_id_number
    national_insurance_number drivers_license driversLicense driver_license driver_licence_number
    customer.iban customer[iban] form-0-iban X-Iban HTTP_X_IBAN iban_2 http.request.header.x-iban
""".split()  # noqa: SIM905

NOT_PERSONAL = """
    card_type card_id card_brand cards discard wildcard cardinal pan_angle panel company pancake expand
    iban_country account account_id account_type account_number_format accounts bank bank_name tax tax_rate
    tax_ids_count passport passport_country nationality national national_park license license_plate
    driver driver_id drivers number id licence_number_plate
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", PERSONAL)
def test_the_number_of_a_person_or_account_is_known_by_its_whole_name(name: str) -> None:
    assert NameRules(enabled=True).decide(name) in ("personal", "ambiguous")


@pytest.mark.parametrize("name", NOT_PERSONAL)
def test_a_name_that_only_contains_one_is_left_alone(name: str) -> None:
    assert NameRules(enabled=True).decide(name) == "clean"


@pytest.mark.parametrize(
    "rules",
    [
        NameRules(enabled=True, personal_numbers=False),
        NameRules(enabled=False),
        NameRules(enabled=True, allow=["iban", "card", "tax.id", "account_number"]),
    ],
)
def test_numbers_of_persons_stay_where_the_rules_or_an_exception_say_so(rules: NameRules) -> None:
    for name in ("iban", "card", "tax_id", "account_number"):
        assert rules.decide(name) in ("clean", "allowed")


@pytest.mark.parametrize(
    ("name", "removed", "kept"),
    [
        ("password", ["x", 1, 1.5, ["x"], {"a": 1}], [None, "", True, False]),
        ("tokens", ["x", "1" * 13, ["x"]], [None, "", True, 5, 1.5, "5", "1.5"]),
        ("iban", ["x", 5, ["x"]], [None, "", True]),
        ("card", ["x", "12345678", 10_000_000, -1, ["x"]], [None, "", True, 7, "7", "9999999"]),
        ("tax_id", ["x"], [7, "550e8400-e29b-41d4-a716-446655440000"]),
    ],
)
def test_what_is_removed_depends_on_the_value_where_a_name_means_several_things(
    name: str, removed: list[Any], kept: list[Any]
) -> None:
    sensitivity = NameRules(enabled=True).decide(name)
    assert all(removes(sensitivity, value) for value in removed)
    assert not any(removes(sensitivity, value) for value in kept)


@pytest.mark.parametrize("name", CLEAN)
def test_a_name_that_only_resembles_a_secret_is_left_alone(name: str) -> None:
    assert builtin(name) == "clean"


@pytest.mark.parametrize("name", ["tokens", "gen_ai.usage.input_tokens", "passwords", "secrets", "api_keys"])
def test_a_plural_may_be_a_count(name: str) -> None:
    assert builtin(name) == "secret_text"


def test_own_names_match_whole_names_fields_headers_and_django_spellings() -> None:
    rules = NameRules(enabled=True, names=["x-iban", "maiden.*"])
    for name in ("X-IBAN", "http.request.header.x-iban", "HTTP_X_IBAN", "x_iban", "maiden_name"):
        assert rules.decide(name) == "secret", name
    assert rules.decide("x-iban-country") == "clean"


def test_an_exception_goes_before_every_rule() -> None:
    rules = NameRules(enabled=True, names=["token.*"], allow=["token_family", "password"])
    assert rules.decide("token_family") == "allowed"
    assert rules.decide("form.password") == "allowed"
    assert rules.decide("token_value") == "secret"


def test_switched_off_only_own_names_are_left() -> None:
    rules = NameRules(enabled=False, names=["iban"])
    assert rules.decide("password") == "clean"
    assert rules.decide("iban") == "secret"


def test_a_name_of_any_length_is_decided() -> None:
    assert NameRules(enabled=True).decide("x" * 100_000 + "_password") == "secret"


@pytest.mark.parametrize("name", ["sig", "Signature", "X-Amz-Signature", "X-Goog-Signature"])
def test_parameters_that_sign_an_address_are_known_there_only(name: str) -> None:
    assert in_address(name)
    assert builtin(name) == "clean"


def test_a_pattern_that_is_no_regular_expression_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"redaction\.names\[1\].*'\('"):
        NameRules(enabled=True, names=["ok", "("])


@pytest.mark.parametrize("name", ["form-0-pin", "items-12-pass", "form-0-password", "form-0-token"])
def test_a_field_of_one_form_of_many_is_judged_by_its_own_name(name: str) -> None:
    assert NameRules(enabled=True).decide(name) in SENSITIVE
    assert NameRules(enabled=False).decide(name) == "clean"
    assert NameRules(enabled=True).decide("form-0-quantity") == "clean"
