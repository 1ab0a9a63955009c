"""The end of what was printed, and what is new: readable, redacted first and cut then."""

from __future__ import annotations

from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents
from otel_audit.runs.printed import Printed

CONTENTS = Contents.of(AuditConfig())
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bq\n" * 20 + "-----END RSA PRIVATE KEY-----\n"


def test_a_secret_that_was_written_in_pieces_is_removed() -> None:
    printed = Printed(1000)
    for piece in ("pass", "word", "=", "hun", "ter2\n", "Authorization: Bea", "rer abcdef", "ghijkl0123\n"):
        printed.add(piece)
    shown = printed.text(CONTENTS)
    assert "hunter2" not in shown
    assert "ghijkl" not in shown
    assert "password=" in shown


def test_a_secret_on_the_edge_of_what_is_kept_is_removed() -> None:
    for limit in range(100, 160):
        printed = Printed(limit)
        printed.add("password=hunter2hunter2hunter2 and more\n")
        printed.add("x" * 19 + "\n")
        printed.add("y" * (limit - 60))
        assert "hunter2" not in printed.text(CONTENTS)


def test_colours_and_control_characters_are_left_out() -> None:
    printed = Printed(1000)
    printed.add("\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07plain\x00\n\x1b")
    assert printed.text(CONTENTS) == "red plain\n"


def test_half_a_surrogate_pair_does_no_harm() -> None:
    printed = Printed(1000)
    printed.add("odd \ud83d and \udcff\n")
    shown = printed.text(CONTENTS)
    shown.encode()
    assert shown.startswith("odd ")


def test_news_come_once_and_by_lines() -> None:
    printed = Printed(1000)
    printed.add("one\ntwo")
    assert printed.news(CONTENTS) == "one\n"
    printed.add(" three\n")
    assert printed.news(CONTENTS) == "two three\n"
    assert printed.news(CONTENTS) == ""


def test_a_line_without_an_end_waits_once() -> None:
    printed = Printed(1000)
    printed.add("working")
    assert printed.news(CONTENTS) == ""
    assert printed.news(CONTENTS) == "working"
    printed.add(" on\n")
    assert printed.news(CONTENTS) == " on\n"


def test_a_secret_over_two_news_is_removed_from_both() -> None:
    lines = KEY.splitlines(keepends=True)
    for cut in range(1, len(lines)):
        printed = Printed(4000)
        printed.add("begin\n" + "".join(lines[:cut]))
        first = printed.news(CONTENTS)
        printed.add("".join(lines[cut:]) + "end\n")
        both = first + printed.news(CONTENTS)
        assert "MIIEpAIBAAKCAQEA7bq" not in both
        assert both.startswith("begin\n")
        assert both.endswith("end\n")


def test_more_news_than_a_record_has_are_cut_from_the_end() -> None:
    printed = Printed(1000)
    printed.add("line\n" * 10_000)
    news = printed.news(CONTENTS)
    assert news.startswith("… (50000 characters)\n")
    assert news.endswith("line\nline\n")
    assert len(news.encode()) <= 1000
    printed.add("more\n")
    assert printed.news(CONTENTS) == "more\n"
