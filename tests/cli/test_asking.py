"""query, show, history, trace and tail against a real store, as a person and as a program sees them."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

from tests.cli.afternoon import ATTACKED, CREATED, PAID, PRICED, READ, REFUSED_LOGIN, TRACE
from tests.cli.conftest import Command

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: str) -> str:
    """Take our own colours out."""
    return STYLE.sub("", text)


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_says_when_who_what_which_object_and_from_where(ask: Command) -> None:
    done = ask("query", "--target", "shop.Order/7", "--utc", width=140)
    assert done.status == 0
    title, head, _, paid, created, *_ = plain(done.out).splitlines()
    assert title.strip() == "2026-11-23, times in UTC"
    assert head.split() == ["time", "who", "action", "object", "what", "changed", "outcome", "from", "id"]
    assert paid.split() == [
        *("14:00:09", "ana", "UPDATE", "shop.Order/7", "status:", "new", "→", "paid", "✓"),
        *("203.0.113.7", PAID.id[-8:]),
    ]
    assert "status = new" in created


def test_times_are_local_unless_utc_is_asked_for_and_the_zone_is_shown(ask: Command) -> None:
    local = plain(ask("query", "--target", "shop.Order/7", width=100).out)
    assert "times in JST (+09:00)" in local
    assert "23:00:09" in local
    assert (
        len(ask("query", "--since", "2026-11-23 23:00:09", "--until", "2026-11-23 23:00:10").out.splitlines())
        == 2
    )
    done = ask("query", "--utc", "--since", "2026-11-23 14:00:09", "--until", "2026-11-23 14:00:10")
    assert PAID.id in done.out


@pytest.mark.parametrize("width", [60, 80, 100, 132, 200])
def test_no_line_is_wider_than_the_terminal(ask: Command, width: int) -> None:
    for arguments in (
        ["query"],
        ["show", ATTACKED.id],
        ["history", "shop.Order/7"],
        ["trace", TRACE],
        ["tail"],
    ):
        for line in plain(ask(*arguments, width=width).out).splitlines():
            cells = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)
            assert cells <= width, (arguments, line)


def test_everything_is_in_eighty_columns(ask: Command) -> None:
    shown = plain(ask("query", "--target", "auth.User", width=80).out)
    for part in ("anonymous", "203.0.113.7", "LOGIN", "✗ failure", "auth.User", REFUSED_LOGIN.id[-8:], "ana"):
        assert part in shown


def test_a_pipe_gets_one_uncut_line_a_record(ask: Command) -> None:
    done = ask("query", "--oldest-first")
    head, *lines = done.out.splitlines()
    assert head.startswith("TIME")
    assert len(lines) == 6
    assert "\x1b" not in done.out
    assert re.fullmatch(
        r"2026-11-23T23:00:05\.000\+09:00 +ana +CREATE +success +shop\.Order/7 +203\.0\.113\.7 +"
        rf"{CREATED.id} +"
        r"status = new; total = 19\.80",
        lines[1],
    )


def test_json_is_one_object_a_line_in_utc(ask: Command) -> None:
    done = ask("query", "--json", "--actor", "ana")
    paid, created = objects(done.out)
    assert created["time"] == "2026-11-23T14:00:05.000000000Z"
    assert created["id"] == CREATED.id
    assert created["actor"] == {"id": "2", "type": "user", "name": "ana"}
    assert created["target"] == {"type": "shop.Order", "id": "7"}
    assert paid["changes"] == [{"field": "status", "old": "new", "new": "paid"}]


def test_pages_are_continued_by_cursor_or_all_at_once(ask: Command) -> None:
    first = ask("query", "--json", "-n", "4")
    cursor = re.search(r"--cursor (\S+)", first.err)
    assert cursor
    second = ask("query", "--json", "-n", "4", "--cursor", cursor.group(1))
    assert "--cursor" not in second.err
    together = ask("query", "--json", "-n", "4", "--all")
    assert first.out + second.out == together.out
    assert len(objects(together.out)) == 6


@pytest.mark.parametrize("arguments", [["query"], ["query", "--json"], ["tail"], ["tail", "--json"]])
@pytest.mark.parametrize("width", [None, 80, 160])
def test_values_cannot_act_on_the_terminal(ask: Command, arguments: list[str], width: int | None) -> None:
    _assert_harmless(ask(*arguments, width=width))


@pytest.mark.parametrize("width", [None, 80, 160])
def test_values_cannot_act_on_the_terminal_in_full_views(ask: Command, width: int | None) -> None:
    for arguments in (
        ["show", ATTACKED.id],
        ["show", ATTACKED.id, "--json"],
        ["trace", "a" * 32],
        ["trace", "a" * 32, "--json"],
        ["history", f"shop.Note/{ATTACKED.target.id if ATTACKED.target else ''}"],
        ["query", "--field", "\x1b[2J\u202e"],
        ["query", "--since", "\x1b[2J\u202e"],
        ["query", "--url", "http://\x1b[2J\u202e"],
        ["history", "shop.Note/\x1b[2J\u202e"],
        ["show", "\x1b[2J"],
    ):
        done = ask(*arguments, width=width)
        _assert_harmless(done)


def _assert_harmless(done: tuple[int, str, str]) -> None:
    _, out, err = done
    for text in (plain(out), plain(err)):
        acting = [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
        assert not acting, text


def test_markup_and_emoji_codes_in_values_are_text(ask: Command) -> None:
    shown = ask("show", ATTACKED.id, width=200).out
    assert "[bold]" in plain(shown)
    assert ":smile:" in plain(shown)


def test_show_tells_everything_of_one_record(ask: Command) -> None:
    done = ask("show", CREATED.id, width=100)
    shown = plain(done.out)
    for part in (
        *("CREATE shop.Order/7 by ana", "2026-11-23 23:00:05.000000000 JST (+09:00)", "ana (user 2)"),
        *("customer phoned", "total", "19.80", "decimal", "ticket", "42", "203.0.113.7", "Mozilla/5.0"),
        *("POST /orders/", "shop.views.create", "r-1", "tx-1", "host.name", "web-1", TRACE),
        *("stream-1, number 3", CREATED.id),
    ):
        assert part in shown, part
    assert "otel-audit history shop.Order/7" in done.err
    assert f"otel-audit trace {TRACE}" in done.err


def test_show_takes_the_shortened_id_a_table_shows(ask: Command) -> None:
    [found] = objects(ask("show", PRICED.id[-8:], "--json", "--since", "2026-11-01").out)
    assert (found["id"], found["outcome"], found["log"]) == (PRICED.id, "success", "audit")
    assert found["bulk"]["keys"] == ["1", "2"]  # type: ignore[index]
    assert found["resource"] == {"service.name": "shop", "host.name": "web-1"}
    rows = plain(ask("show", PRICED.id, width=80).out)
    assert re.search(r"1 +1\.00 → 1\.50", rows)


def test_show_asks_for_more_of_an_id_that_several_records_share(ask: Command) -> None:
    done = ask("show", CREATED.id[:8], "--since", "2026-11-01")
    assert done.status == 2
    assert PAID.id in done.err
    assert CREATED.id in done.err


def test_history_is_told_from_the_beginning(ask: Command) -> None:
    assert [each["id"] for each in objects(ask("history", "shop.Order/7", "--json").out)] == [
        CREATED.id,
        PAID.id,
    ]
    assert "1.00 → 1.50" in plain(ask("history", "shop.Product/1", width=100).out)


def test_a_trace_is_a_tree_of_spans_and_records(ask: Command) -> None:
    lines = plain(ask("trace", TRACE, width=120).out).splitlines()
    assert TRACE in lines[0]
    assert lines[1].startswith("├── POST /orders/  300 ms")
    assert lines[2].startswith("│   ├── INSERT shop_order")
    assert lines[3].startswith("│   │   └── ● CREATE shop.Order/7 by ana")
    assert "charge" in lines[4]
    assert "declined" in lines[4]
    assert "not in the store" in lines[5]
    assert "UPDATE shop.Order/7" in lines[6]
    kinds = [(each["kind"], each["depth"]) for each in objects(ask("trace", CREATED.id, "--json").out)]
    assert kinds == [("span", 0), ("span", 1), ("record", 2), ("span", 1), ("record", 1)]


def test_tail_shows_the_newest_at_the_bottom(ask: Command) -> None:
    assert [each["id"] for each in objects(ask("tail", "-n", "2", "--json").out)] == [READ.id, ATTACKED.id]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["query", "--actor", "anna"], 1, "did you mean 'ana'?"),
        (["query", "--target", "shop.Ordr/7"], 1, "did you mean 'shop.Order'?"),
        (
            ["query", "--field", "staus", "--target", "shop.Order"],
            1,
            "of shop.Order has the field 'staus'; did you",
        ),
        (["query", "--action", "FROB"], 1, "valid are "),
        (["query", "--actor", "ana", "--action", "READ"], 1, "Nothing found."),
        (["tail", "--actor", "nobody"], 1, "Nothing found."),
        (["show", "019ab3c2-7d1e-7c41-9f0a-51d2a90b3f7e"], 1, "No record has the id"),
        (["show", "00000000"], 1, "look further back with --since"),
        (["history", "shop.Order/777"], 1, "Nothing is recorded about shop.Order/777"),
        (["trace", "0" * 32], 1, "no spans or records"),
        (["query", "--since", "soon"], 2, "write one of 15m, 2h"),
        (["query", "--outcome", "fail"], 2, "valid are success, failure, unknown"),
        (["query", "--limit", "0"], 2, "--limit"),
        (["query", "--feild", "x"], 2, "--field"),
        (["query", "--cursor", "x"], 2, "copy it unchanged from the previous page"),
        (["query", "--trace-id", "12"], 2, "32 hexadecimal digits"),
        (["show", "zz"], 2, "last 6 digits"),
        (["trace", "zz"], 2, "traceparent"),
        (["history", "shop.Order"], 2, "such as shop.Order/7"),
        (["qurey"], 2, "query"),
        (["query", "--url", "localhost:8123"], 2, "http://"),
        (["query", "--database", "x; y"], 2, "--database"),
        (["query", "--url", "http://127.0.0.1:1"], 3, "http://127.0.0.1:1"),
        (["query", "--database", "elsewhere"], 3, "elsewhere"),
        (["query", "--config", "nowhere.toml"], 2, "otel-audit init"),
    ],
)
def test_what_went_wrong_is_said_with_its_exit_status(
    ask: Command, arguments: list[str], status: int, expected: str
) -> None:
    done = ask(*arguments)
    assert done.status == status
    assert expected in re.sub(r"\s+", " ", done.err)
    assert "Traceback" not in done.err
    assert done.out == ""
