"""Bad rules of a policy are refused with file, line and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_audit.config import load
from otel_audit.errors import ConfigurationError

RULE = '[[policy]]\npath = "/api/*"\nlevel = "request"\n'


def problem(tmp_path: Path, text: str) -> str:
    """Load a file that is refused; return what is said without its directory."""
    file = tmp_path / "otel-audit.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load(file, environ={})
    return str(refused.value).replace(f"{tmp_path}/", "")


def notes(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "otel-audit.toml"
    file.write_text("[redaction]\npersonal_numbers = true\n" + text, "utf-8")
    return [note.replace(f"{tmp_path}/", "") for note in load(file, environ={}).notes]


@pytest.mark.parametrize(
    ("rule", "line", "said"),
    [
        ('pth = "/"\nlevel = "none"', 5, "unknown key 'pth' in [[policy]]; did you mean 'path'?"),
        ('path = "/"', 4, "[[policy]] has no level: write one of"),
        ('level = "all"', 5, "policy.level: 'all' is not one of"),
        ('kind = "job"\nlevel = "none"', 5, "policy.kind: 'job' is not one of"),
        ('path = 7\nlevel = "none"', 5, "policy.path: 7 is not a pattern or a list of patterns"),
        ('path = "api/*"\nlevel = "none"', 5, "a path begins with '/', so write '/api/*' or '*api/*'"),
        ('path = "https://x/api"\nlevel = "none"', 5, "write scheme and host apart"),
        ('path = "/api#x"\nlevel = "none"', 5, "never sees what stands behind '#'"),
        ('path = []\nlevel = "none"', 5, "is an empty list, which matches nothing"),
        ('path = ""\nlevel = "none"', 5, "it is empty"),
        ('path = ["/api", "!/api"]\nlevel = "none"', 5, "is excluded again"),
        ('method = "GET POST"\nlevel = "none"', 5, "'GET POST' is not a method"),
        ('status = 99\nlevel = "none"', 5, "'99' matches no status"),
        ('status = "6xx"\nlevel = "none"', 5, "'6xx' matches no status: write a number from 100 to 599"),
        ('host = "http://x"\nlevel = "none"', 5, "can never match a host"),
        ('command = "migrate --plan"\nlevel = "none"', 5, "the name of a command has no blanks"),
        ('view = "/cards/"\nlevel = "none"', 5, "write it as path or route"),
        ('task = "a.b"\npath = "/x"\nlevel = "none"', 6, "no event has path and task at once"),
        (
            'kind = "task"\nhost = "a.b"\nlevel = "none"',
            6,
            "kind 'task' has no host, only request and outgoing",
        ),
        ('kind = []\nlevel = "none"', 5, "names no kind"),
        ('level = "request"', 5, "add a path, view or route, such as path = '/api/*', or a kind"),
        ('path = "*"\nlevel = "request"', 6, "add a path, view or route"),
        ('kind = "request"\nhost = "a"\nlevel = "request_response"', 7, "add a path, view or route"),
        ('kind = "outgoing"\nmethod = "POST"\nlevel = "request"', 7, "add a host or path"),
        ('kind = "change"\nlevel = "request"', 6, "a rule can only lower that. Write 'none' or 'metadata'"),
        ('model = "shop.*"\nlevel = "request_response"', 6, "exclude the model from the rule with '!'"),
        ('model = "shop.*"\nlevel = "none"\nslug = "x"', 7, "slug has no effect on change"),
        (
            'command = "*"\nlevel = "none"\nmax_request_body = 1',
            7,
            "max_request_body has no effect on command",
        ),
        ('level = "none"\nslug = " "', 6, "is empty: write a name"),
        ('level = "metadata"\nstages = ["start"]', 6, 'has no "end"'),
        ('level = "metadata"\nstages = ["begin"]', 6, "is not a list of"),
        ('level = "metadata"\nmax_request_body = -1', 6, "is not an integer of at least 0"),
        ('path = "/x"\nlevel = "request"\ncontent_types = ["json"]', 7, "'json' is not a content type"),
    ],
)
def test_a_bad_rule_is_refused_at_its_line(tmp_path: Path, rule: str, line: int, said: str) -> None:
    text = problem(tmp_path, f"{RULE}[[policy]]\n{rule}\n")
    assert text.startswith(f"otel-audit.toml:{line}: ")
    assert said in text


def test_a_policy_that_is_no_list_of_tables_is_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, '[policy]\nlevel = "none"\n') == (
        "otel-audit.toml:1: policy is a list of tables: write [[policy]] with its keys below"
    )
    assert "is not a table" in problem(tmp_path, 'policy = ["none"]\n')


def test_rules_written_as_a_list_are_refused_at_their_line(tmp_path: Path) -> None:
    text = problem(tmp_path, 'policy = [\n  { level = "none" },\n  { level = "none", path = "x" },\n]\n')
    assert text.startswith("otel-audit.toml:3: policy.path: ")


def test_rules_of_a_pyproject_file_are_refused_at_their_line(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[[tool.otel_audit.policy]]\nlevel = "none"\n[[tool.otel_audit.policy]]\nlevel = "request"\n'
    )
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml:4: policy\.level: 'request' records"):
        load(file, environ={})


def test_rules_of_a_django_setting_and_of_a_variable_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"OTEL_AUDIT\['policy'\]\[0\]\['level'\]"):
        load(environ={}, django_settings={"policy": [{"level": "request"}]})
    with pytest.raises(ConfigurationError, match=r"OTEL_AUDIT_POLICY: policy\.level"):
        load(environ={"OTEL_AUDIT_POLICY": '[{"level": "request"}]'})
    with pytest.raises(ConfigurationError, match="OTEL_AUDIT_POLICY"):
        load(environ={"OTEL_AUDIT_POLICY": "none"})


def test_a_variable_may_hold_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={"OTEL_AUDIT_POLICY": '[{"path": "/health", "level": "none"}]'})
    assert [rule.level for rule in loaded.config.policy] == ["none"]


def test_a_rule_behind_one_that_matches_all_of_it_is_noted(tmp_path: Path) -> None:
    said = notes(
        tmp_path,
        '[[policy]]\npath = "/api/*"\nlevel = "none"\n'
        '[[policy]]\npath = "/api/cards/*"\nmethod = "POST"\nlevel = "request"\n'
        '[[policy]]\npath = "/api/*"\nkind = "request"\nlevel = "metadata"\n',
    )
    advice = "before it matches all that it matches. Put it before that rule, or remove it"
    assert said == [
        f"otel-audit.toml:6: policy: rule 2 never decides: rule 1 {advice}",
        f"otel-audit.toml:10: policy: rule 3 never decides: rule 1 {advice}",
    ]


@pytest.mark.parametrize(
    "rules",
    [
        '[[policy]]\npath = ["/a*", "!/ab"]\nlevel = "none"\n[[policy]]\npath = "/a*"\nlevel = "none"',
        '[[policy]]\nmethod = "POST"\nlevel = "none"\n[[policy]]\nlevel = "none"',
        '[[policy]]\nlevel = "none"\n[[policy]]\nmodel = "shop.*"\nlevel = "none"',
        '[[policy]]\npath = "/a"\nlevel = "none"\n[[policy]]\npath = "/A"\nlevel = "none"',
    ],
)
def test_a_rule_that_still_decides_is_not_noted(tmp_path: Path, rules: str) -> None:
    assert notes(tmp_path, rules) == []
