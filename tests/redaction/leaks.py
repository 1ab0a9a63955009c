"""Secrets of the shapes that public rule sets (gitleaks' among them) know, none of them real.

Each is put together here: no scanner of a repository shall stumble over this file.
"""

from __future__ import annotations

from typing import Final

_HEX: Final = "0123456789abcdef" * 8
_TEXT: Final = "q7xK2mZ9vB4nW1sT6" * 12


def _joined(*parts: str) -> str:
    return "".join(parts)


BY_SHAPE: Final = {
    "aws access key": _joined("AK", "IA", "IOSFODNN7QXAMPLE"),
    "age": _joined("AGE-SECRET", "-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 2)[:75],
    "alibaba": _joined("LT", "AI", _TEXT[:20]),
    "anthropic": _joined("sk", "-ant-api03-", _TEXT[:93], "AA"),
    "atlassian": _joined("ATA", "TT3", _TEXT[:186]),
    "databricks": _joined("da", "pi", _HEX[:32]),
    "digitalocean": _joined("do", "o_v1_", _HEX[:64]),
    "figma": _joined("fi", "gd_", _TEXT[:40]),
    "github": _joined("gh", "p_", _TEXT[:36]),
    "github fine grained": _joined("github", "_pat_", _TEXT[:82]),
    "gitlab": _joined("gl", "pat-", _TEXT[:20]),
    "gitlab runner": _joined("gl", "rt-", _TEXT[:20]),
    "google api": _joined("AI", "za", _TEXT[:35]),
    "google oauth": _joined("GOC", "SPX-", _TEXT[:28]),
    "grafana": _joined("gl", "sa_", _TEXT[:32], "_", _HEX[:8]),
    "hugging face": _joined("hf", "_", "abcdefghijklmnopqrstuvwxyzABCDEFGH"),
    "jwt": _joined("ey", "JhbGciOiJIUzI1NiJ9", ".", "ey", "JzdWIiOiJ4In0", ".", _TEXT[:43]),
    "linear": _joined("lin", "_api_", _TEXT[:40]),
    "new relic": _joined("NR", "AK-", "A1B2C3D4E5F6G7H8I9J0K1L2M3N"),
    "npm": _joined("np", "m_", _TEXT[:36]),
    "openai": _joined("sk", "-proj-", _TEXT[:74]),
    "planetscale": _joined("pscale", "_tkn_", _TEXT[:43]),
    "postman": _joined("PM", "AK-", _HEX[:24], "-", _HEX[:34]),
    "private key": _joined(
        "-----BEGIN PRIV", "ATE KEY-----\n", _TEXT[:64], "\n-----END PRIV", "ATE KEY-----"
    ),
    "pypi": _joined("py", "pi-", "AgEIcHlwaS5vcmc", _TEXT[:80]),
    "sendgrid": _joined("S", "G.", _TEXT[:22], ".", _TEXT[:43]),
    "sendinblue": _joined("xkey", "sib-", _HEX[:64], "-", _TEXT[:16]),
    "sentry": _joined("sn", "tryu_", _HEX[:64]),
    "shopify": _joined("sh", "pat_", _HEX[:32]),
    "slack app": _joined("xa", "pp-", "1-A0B1C2D3E-4567890123-", _HEX[:64]),
    "slack bot": _joined("xo", "xb-", "1234567890-1234567890-", _TEXT[:24]),
    "square": _joined("sq", "0atp-", _TEXT[:22]),
    "stripe": _joined("sk", "_live_", _TEXT[:24]),
    "vault": _joined("hv", "s.", _TEXT[:90]),
}
"""Known by themselves, wherever they stand."""

BY_NAME: Final = {
    "adafruit_api_key": _TEXT[:32],
    "ALGOLIA_API_KEY": _HEX[:32],
    "AWS_SECRET_ACCESS_KEY": _TEXT[:40],
    "bitbucket_client_secret": _TEXT[:64],
    "CLOUDFLARE_API_KEY": _TEXT[:40],
    "codecov_access_token": _HEX[:32],
    "coinbase_access_token": _TEXT[:64],
    "confluent_secret_key": _TEXT[:64],
    "DATADOG_ACCESS_TOKEN": _HEX[:40],
    "discord_client_secret": _TEXT[:32],
    "dropbox_api_secret": _TEXT[:15],
    "etsy_access_token": _TEXT[:24],
    "FACEBOOK_SECRET": _HEX[:32],
    "fastly_api_token": _TEXT[:32],
    "heroku_api_key": "12345678-abcd-4ef0-9876-0123456789ab",
    "jfrog_api_key": _TEXT[:73],
    "LINKEDIN_CLIENT_SECRET": _TEXT[:16],
    "mailgun_private_api_token": _HEX[:32],
    "netlify_access_token": _TEXT[:40],
    "okta_access_token": _TEXT[:42],
    "plaid_secret_key": _HEX[:30],
    "rapidapi_access_token": _TEXT[:50],
    "snyk_token": "12345678-abcd-4ef0-9876-0123456789ab",
    "telegram_bot_token": _joined("12345678:A", _TEXT[:34]),
    "travisci_access_token": _TEXT[:22],
    "twitter_api_secret": _TEXT[:50],
    "zendesk_secret_key": _TEXT[:40],
}
"""Known by the name beside them only."""
