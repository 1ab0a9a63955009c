"""Public rule sets, the models of public packages and harmless sentences, held against the rules."""

from __future__ import annotations

import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from tests.redaction import leaks, test_names

DATA = Path(__file__).parent / "data"
FILTERED = json.loads((DATA / "filtered.json").read_text("utf-8"))
JUDGED = tomllib.loads((DATA / "judged.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


def lines(name: str) -> list[str]:
    return [line for line in (DATA / name).read_text("utf-8").splitlines() if not line.startswith("#")]


def test_no_field_of_a_public_model_is_judged_otherwise_than_before(redactor: Redactor) -> None:
    """What changes for whoever audits Django's, Wagtail's, DRF's or Celery's models, named one by one."""
    fields = {line.split()[1] for line in lines("model_fields.txt")}
    assert len(fields) > 300
    sensitive = {name for name in fields if redactor.names.decide(name) != "clean"}
    difference = JUDGED["difference"]
    expected = (set(JUDGED["before"]["fields"]) | set(difference["more_fields"])) - set(
        difference["fewer_fields"]
    )
    assert sensitive == expected


def test_no_harmless_sentence_is_changed_that_was_not_before(redactor: Redactor) -> None:
    sentences = lines("sentences.txt")
    assert len(sentences) >= 100
    changed = {text: redactor.text(text) for text in sentences if redactor.text(text) != text}
    assert changed == JUDGED["before"]["sentences"] | JUDGED["difference"]["sentences"]


@pytest.mark.parametrize(("pattern", "text"), FILTERED["body"])
def test_what_a_body_filter_hides_is_hidden(redactor: Redactor, pattern: str, text: str) -> None:
    found = re.search(pattern, text)
    assert found is not None
    assert "hunter2" in found[1]
    assert "hunter2" not in redactor.text(text)


@pytest.mark.parametrize(("pattern", "name"), FILTERED["header"] + FILTERED["query"])
def test_what_a_filter_of_headers_or_queries_hides_is_hidden(
    redactor: Redactor, pattern: str, name: str
) -> None:
    assert re.fullmatch(pattern, name, re.IGNORECASE)
    assert redactor.mapping({name: "hunter2"}) == {name: "[redacted]"}
    assert redactor.attribute(f"http.request.header.{name.lower()}", ("hunter2",)) == ("[redacted]",)
    assert "hunter2" not in redactor.text(f"/x?a=1&{name}=hunter2")


@pytest.mark.parametrize("what", leaks.BY_SHAPE)
@pytest.mark.parametrize("around", ["{}", "see {} there", "a={}&b=1", '["{}"]', "{}\nnext", "url/{}/x"])
def test_a_secret_that_shows_by_its_shape_is_found_anywhere(
    redactor: Redactor, what: str, around: str
) -> None:
    secret = leaks.BY_SHAPE[what]
    redacted = redactor.text(around.format(secret))
    assert secret[12:] not in redacted
    assert "[redacted]" in redacted


@pytest.mark.parametrize("name", leaks.BY_NAME)
@pytest.mark.parametrize("around", ["{}={}", 'export {}="{}"', "{}: {}", '{{"{}": "{}"}}', "--{} {}"])
def test_a_secret_beside_its_name_is_found(redactor: Redactor, name: str, around: str) -> None:
    secret = leaks.BY_NAME[name]
    assert secret not in redactor.text(around.format(name, secret))


VALUES: dict[str, Any] = {
    "prompt_tokens": "77",
    "completion_tokens": "5",
    "total_tokens": 82,
    "gen_ai.usage.input_tokens": "12",
    "gen_ai.usage.output_tokens": 345,
    "gen_ai.usage.cache_read.input_tokens": "7",
    "gen_ai.request.max_tokens": "4096",
    "llm.token_count.prompt": "3",
    "tokens": "5",
    "tokens_per_second": 31.5,
    "tokensPerMinute": "1200",
    "prompt_tokens_details": {"cached_tokens": "1", "audio_tokens": 0},
    "output_token_details": {"reasoning": 7},
    "token_budget": "1000",
    "tokens_remaining": "9.5",
}


@pytest.mark.parametrize("name", VALUES)
def test_counts_of_tokens_stay_also_as_text(redactor: Redactor, name: str) -> None:
    value = VALUES[name]
    assert redactor.mapping({name: value}) == {name: value}
    assert redactor.attribute(name, value) == value
    if not isinstance(value, dict):
        for text in (
            f"{name}={value}",
            f"{name}: {value}, next",
            f"a=1&{name}={value}&b=2",
            f"{name}={value}.",
        ):
            assert redactor.text(text) == text


def test_what_is_no_count_is_a_secret_under_the_same_name(redactor: Redactor) -> None:
    for value in ("9944b09199c6", "1" * 40, ["a", "b"], "5 of them"):
        assert redactor.mapping({"tokens": value}) == {"tokens": "[redacted]"}


@pytest.mark.parametrize("name", [*test_names.SECRET, *test_names.PERSONAL])
def test_every_name_the_rules_know_is_known_in_text(redactor: Redactor, name: str) -> None:
    for text in (f"{name}=hunter2", f"{name}: hunter2", f'"{name}": "hunter2"', f"a=1&{name}=hunter2&b=2"):
        assert "hunter2" not in redactor.text(text)


IBANS = """
    AD1200012030200359100100 AE070331234567890123456 AT611904300234573201 BE68539007547034
    BR1800360305000010009795493C1 CH9300762011623852957 DE89370400440532013000 ES9121000418450200051332
    FR1420041010050500013M02606 GB82WEST12345698765432 GI75NWBK000000007099453 IE29AIBK93115212345678
    IT60X0542811101000000123456 KW81CBKU0000000000001234560101 LC55HEMM000100010012001200023015
    MT84MALT011000012345MTLCAST001S NL91ABNA0417164300 NO9386011117947 PL61109010140000071219812874
    PT50000201231234567890154 SE4550000000058398257466 TR330006100519786457841326
    UA213223130000026007233566001
""".split()  # noqa: SIM905


@pytest.mark.parametrize("iban", IBANS)
def test_an_iban_is_found_by_its_shape_and_check_in_groups_or_not(redactor: Redactor, iban: str) -> None:
    groups = [iban[at : at + 4] for at in range(0, len(iban), 4)]
    for written in (iban, iban.lower(), " ".join(groups), "-".join(groups), "\u00a0".join(groups)):
        for text in (
            written,
            f"pay {written} today",
            f"to {written}, thanks",
            f"x={written}&y=1",
            f"({written}).",
        ):
            assert redactor.text(text) == text.replace(written, "[redacted]")
    assert redactor.mapping({"note": [iban]}) == {"note": ["[redacted]"]}


def test_what_only_looks_like_an_iban_stays(redactor: Redactor) -> None:
    for iban in IBANS:
        check = (int(iban[2:4]) + 1) % 100
        for other in (f"{iban[:2]}{check:02d}{iban[4:]}", iban[:-1], f"{iban}0", f"QQ{iban[2:]}", f"x{iban}"):
            assert redactor.text(other) is other, other
    for text in ("SE45 is a gate", "BE12 3456 7890", "order DE89-2026-0001-7", "AB12CD34EF56GH78IJ90"):
        assert redactor.text(text) is text


# Each holds a card's number with issuer, length and check digit, or an IBAN with its check.
UUIDS_LIKE_NUMBERS = """
    60485648-3014-4941-ae2c-0aa21b54cd17 46837347-6922-4676-a421-688f6aed3607
    ee824996-8703-4a00-a905-0d4f7c9e21b3 62124596-9365-4336-ba0b-7c21ee3190af
""".split()  # noqa: SIM905


@pytest.mark.parametrize("uuid", UUIDS_LIKE_NUMBERS)
def test_no_part_of_a_uuid_is_a_card_number_or_an_iban(redactor: Redactor, uuid: str) -> None:
    first = uuid[:23]
    assert redactor.text(f"{first} paid") != f"{first} paid"  # what it would be alone
    for written in (uuid, uuid.upper(), f"urn:uuid:{uuid}", f"order_{uuid}", f"x{uuid}", f"{{{uuid}}}"):
        for text in (
            written,
            f"/orders/{written}/lines",
            f"sold {written}, 2 pieces",
            f'{{"id": "{written}"}}',
        ):
            assert redactor.text(text) is text
    assert redactor.mapping({"order": uuid, "lines": [uuid]}) == {"order": uuid, "lines": [uuid]}
    assert redactor.text(f"{uuid} 4111 1111 1111 1111 {uuid}") == f"{uuid} [redacted] {uuid}"
    assert redactor.text(f"{uuid}-{IBANS[6]} token={uuid}") == f"{uuid}-[redacted] token=[redacted]"


def test_random_uuids_stay(redactor: Redactor) -> None:
    numbers = random.Random(7)
    for _ in range(100_000):
        text = str(UUID(int=numbers.getrandbits(128), version=4))
        assert redactor.text(text) is text


def test_ibans_stay_where_the_group_is_off_and_cards_do_not() -> None:
    redactor = Redactor(RedactionConfig(personal_numbers=False))
    text = f"from {IBANS[6]} or 4111 1111 1111 1111"
    assert redactor.text(text) == f"from {IBANS[6]} or [redacted]"
    assert redactor.mapping({"iban": "x", "card": "y"}) == {"iban": "x", "card": "y"}


@pytest.mark.parametrize(
    "gap", ["", " ", "  ", "   ", "-", " - ", "\u00a0", "\u2009", "\u202f", "\u2013", "\u2212", "."]
)
@pytest.mark.parametrize("full_width", [False, True])
@pytest.mark.parametrize(
    "card", ["4111 1111 1111 1111", "5555 5555 5555 4444", "3782 822463 10005", "3056 930902 5904"]
)
def test_a_card_number_is_found_however_its_groups_are_parted(
    redactor: Redactor, card: str, gap: str, full_width: bool
) -> None:
    written = card.replace(" ", gap)
    if full_width:
        written = written.translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"})
    for text in (written, f"paid by {written} today", f"card: {written}, thanks"):
        assert redactor.text(text) == text.replace(written, "[redacted]")


def test_numbers_that_are_no_cards_stay(redactor: Redactor) -> None:
    for text in (
        "4111 1111 1111 1112",
        "4111\n1111\n1111\n1111",
        "4111    1111    1111    1111",
        "14111111111111111",
        "2026-11-28 1234 5678 9012",
        "1795450755443016983",
    ):
        assert redactor.text(text) is text


def test_own_values_ignore_case_as_own_names_do() -> None:
    redactor = Redactor(RedactionConfig(values=[r"KD-\d+"], names=["Kundennummer"]))
    assert redactor.text("kd-12 and KD-13") == "[redacted] and [redacted]"
    assert redactor.mapping({"KUNDENNUMMER": "x"}) == {"KUNDENNUMMER": "[redacted]"}
    exact = Redactor(RedactionConfig(values=[r"(?-i:KD)-\d+"]))
    assert exact.text("kd-12 and KD-13") == "kd-12 and [redacted]"
