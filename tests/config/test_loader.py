"""Loading: which source wins, where a value came from, what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_audit.config import AuditConfig, load
from otel_audit.config.catalog import settings
from otel_audit.config.showing import shown
from otel_audit.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def problems(**arguments: object) -> list[str]:
    """Load, expecting refusal; give the message line by line."""
    arguments.setdefault("environ", {})
    with pytest.raises(ConfigurationError) as refused:
        load(**arguments)  # type: ignore[arg-type]
    return str(refused.value).splitlines()


def test_without_any_source_all_is_default_and_directories_are_under_the_working_directory(
    tmp_path: Path,
) -> None:
    loaded = load(environ={})
    assert loaded.path is None
    assert loaded.origins == {}
    assert loaded.config.django == AuditConfig().django
    assert loaded.config.spool.directory == str(tmp_path / ".otel-audit/spool")


def test_nearest_file_upward_is_found_and_directories_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "otel-audit.toml", '[spool]\ndirectory = "queue"\n')
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    loaded = load(environ={})
    assert loaded.path == file
    assert loaded.config.spool.directory == str(tmp_path / "queue")
    assert loaded.config.server.data == str(tmp_path / ".otel-audit/store")


def test_own_file_goes_before_pyproject_of_the_same_directory_and_the_nearer_before_the_farther(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "otel-audit.toml", 'tenant = "outer"\n')
    inner = write(tmp_path / "app" / "pyproject.toml", '[tool.otel_audit]\ntenant = "inner"\n').parent
    monkeypatch.chdir(inner)
    assert load(environ={}).config.tenant == "inner"
    write(inner / "otel-audit.toml", 'tenant = "own file"\n')
    assert load(environ={}).config.tenant == "own file"


def test_pyproject_of_another_project_is_passed_over_even_when_broken(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.black\n")
    assert load(environ={}).path is None


def test_pyproject_errors_name_the_line_in_the_whole_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pyproject.toml",
        '[project]\nname = "x"\n\n[[tool.other]]\na = 1\n\n[tool.otel_audit.spool]\nfsync = "sometimes"\n',
    )
    assert problems() == [f'{file}:8: spool.fsync: \'sometimes\' is not one of "never", "always"']


def test_variable_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "otel-audit.toml", 'tenant = "searched"\n')
    named = write(tmp_path / "else" / "audit.toml", 'tenant = "named"\n')
    assert load(environ={"OTEL_AUDIT_CONFIG": str(named)}).config.tenant == "named"
    [message] = problems(environ={"OTEL_AUDIT_CONFIG": "nowhere.toml"})
    assert "OTEL_AUDIT_CONFIG" in message
    assert "nowhere.toml" in message


def test_environment_goes_over_the_file_and_origins_tell_which(tmp_path: Path) -> None:
    file = write(
        tmp_path / "otel-audit.toml", 'tenant = "acme"\n\n[spool]\nfsync = "always"\nmax_bytes = 70000000\n'
    )
    loaded = load(environ={"OTEL_AUDIT_SPOOL_FSYNC": "never", "OTEL_AUDIT_SPOOL_DIRECTORY": "here"})
    assert loaded.config.spool.fsync == "never"
    assert loaded.config.spool.max_bytes == 70_000_000
    assert loaded.origins == {
        "tenant": f"{file}:1",
        "spool.fsync": "OTEL_AUDIT_SPOOL_FSYNC",
        "spool.max_bytes": f"{file}:5",
        "spool.directory": "OTEL_AUDIT_SPOOL_DIRECTORY",
    }


def test_directory_from_a_variable_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "otel-audit.toml", "")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    loaded = load(environ={"OTEL_AUDIT_SPOOL_DIRECTORY": "q"})
    assert loaded.config.spool.directory == str(tmp_path / "sub" / "q")
    assert loaded.config.server.data == str(tmp_path / ".otel-audit/store")


def test_django_setting_is_used_without_a_file_and_said_to_be_ignored_with_one(tmp_path: Path) -> None:
    setting = {"django": {"models": ("shop.*", "auth.User")}, "spool": {"directory": tmp_path / "spool"}}
    loaded = load(environ={}, django_settings=setting)
    assert loaded.config.django.models == ["shop.*", "auth.User"]
    assert loaded.config.spool.directory == str(tmp_path / "spool")
    assert loaded.origins["django.models"] == "Django setting OTEL_AUDIT['django']['models']"
    write(tmp_path / "otel-audit.toml", "")
    loaded = load(environ={}, django_settings=setting)
    assert loaded.config.django.models == []
    assert "ignored" in loaded.notes[0]
    assert "OTEL_AUDIT" in loaded.notes[0]


def test_django_setting_errors_name_the_key_as_python_writes_it() -> None:
    [message] = problems(django_settings={"djnago": {}})
    assert message.startswith("Django setting OTEL_AUDIT['djnago']: unknown key 'djnago' at the top level")
    assert message.endswith("did you mean 'django'?")
    [message] = problems(django_settings=["shop.*"])
    assert "must be a dict" in message


def test_declarative_options_go_over_the_file_and_under_the_environment(tmp_path: Path) -> None:
    write(tmp_path / "otel-audit.toml", 'tenant = "file"\nsystem = "file"\n')
    loaded = load(environ={"OTEL_AUDIT_SYSTEM": "variable"}, declarative={"tenant": "yaml", "system": "yaml"})
    assert (loaded.config.tenant, loaded.config.system) == ("yaml", "variable")
    [message] = problems(declarative={"tenannt": "yaml"})
    assert message.startswith("OTEL_CONFIG_FILE")
    assert "'tenant'" in message


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[spool]\nfsnyc = 'never'\n", 2, "did you mean 'fsync'?"),
        ("\n[spol]\n", 2, "did you mean 'spool'?"),
        ("[sink]\nurl = 'http://x'\n", 2, "did you mean 'store.url'?"),
        ("[spool]\nsegment_bytes = 12\n", 2, "12 is not an integer of at least 4096"),
        ("[server]\nhttp_port = 99999\n", 2, "99999 is not an integer from 0 to 65535"),
        ("enabled = 'yes'\n", 1, "'yes' is not true or false"),
        ("on_error = 'closed'\n", 1, 'one of "fail_open", "fail_closed"'),
        ("django = 5\n", 1, "django is a table: write [django]"),
        ("[django]\nmodels = 'shop.*'\n", 2, "'shop.*' is not a list of strings"),
        ("[django]\nmodels = [\n 'shop',\n]\n", 2, "'shop' has no app label: write 'shop.*'"),
        ("[django.model.'shop.Order']\nread = true\n", 2, "did you mean 'reads'?"),
        ("[django.model]\nreads = true\n", 2, 'write [django.model."shop.Order"] above'),
        (
            "[django.model.'shop.Order'.fields]\nname = 'mask'\ncard = 'hide'\n",
            3,
            "'hide' is not one of drop, mask, hmac",
        ),
        ("[django.model.'a.B']\nfields = { x = 'hmac' }\n", 2, "OTEL_AUDIT_REDACTION_HMAC_KEY"),
        ("[redaction]\nvalues = ['[']\n", 2, "is not a regular expression"),
        ("[redaction]\nhmac_key = 'short'\n", 2, "at least 16"),
        ("[store]\nurl = 'localhost:8123'\n", 2, "must be a http:// or https:// URL"),
        ("[store]\ndatabase = 'x; drop'\n", 2, "text that matches"),
        ("[requests]\nignore_addresses = ['10.0.0.300']\n", 2, "is neither an address nor a network"),
        ("[spool]\nmax_bytes = 65536\n", 2, "not even one segment would fit"),
        ("[spool]\n\nfsync = never\n", 3, "not valid TOML"),
    ],
)
def test_each_mistake_is_told_with_file_and_line_and_what_is_valid(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    file = write(tmp_path / "otel-audit.toml", text)
    [message] = problems()
    assert message.startswith(f"{file}:{line}: ")
    assert expected in message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "otel-audit.toml", "tenent = 'x'\n[spool]\nfsync = 1\n[stroe]\n")
    assert len(problems(environ={"OTEL_AUDIT_TENNANT": "x"})) == 4


def test_bad_value_in_the_file_is_an_error_even_where_the_environment_overrides_it(tmp_path: Path) -> None:
    file = write(tmp_path / "otel-audit.toml", "spool = 7\n")
    [message] = problems(environ={"OTEL_AUDIT_SPOOL_FSYNC": "never"})
    assert message.startswith(f"{file}:1: ")


def test_secret_values_are_not_repeated_in_messages(tmp_path: Path) -> None:
    write(tmp_path / "otel-audit.toml", "[sink]\ntoken = 4711\nheaders = { Authorization = 4712 }\n")
    messages = problems()
    assert len(messages) == 2
    assert "4711" not in str(messages)
    assert "4712" not in str(messages)


def test_unreadable_and_binary_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_bytes(b"tenant = '\xff'\n")
    [message] = problems()
    assert "not UTF-8" in message
    [message] = problems(path="missing.toml")
    assert "otel-audit init" in message


def test_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_bytes(b"\xef\xbb\xbftenant = 'x'\r\n[spool]\r\nfsync = 'always'\r\n")
    loaded = load(environ={})
    assert loaded.config.spool.fsync == "always"
    assert loaded.origins["spool.fsync"].endswith(":3")


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("OTEL_AUDIT_ENABLED", "off", "enabled", False),
        ("OTEL_AUDIT_ENABLED", "TRUE", "enabled", True),
        ("OTEL_AUDIT_CONTEXT_TRUSTED_PROXIES", "2", "context.trusted_proxies", 2),
        ("OTEL_AUDIT_SINK_MAX_DELAY", "0.5", "sink.max_delay", 0.5),
        (
            "OTEL_AUDIT_DJANGO_MODELS",
            "shop.*, auth.User,!shop.Cart",
            "django.models",
            ["shop.*", "auth.User", "!shop.Cart"],
        ),
        ("OTEL_AUDIT_REDACTION_VALUES", '["a{1,2}"]', "redaction.values", ["a{1,2}"]),
        ("OTEL_AUDIT_SINK_HEADERS", "X-A=1, X-B=a=b", "sink.headers", {"X-A": "1", "X-B": "a=b"}),
        ("OTEL_AUDIT_TENANT", "", "tenant", ""),
    ],
)
def test_variables_are_read_by_the_type_of_their_setting(
    variable: str, text: str, key: str, value: object
) -> None:
    found: object = load(environ={variable: text}).config
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_tables_of_models_are_given_to_a_variable_as_json() -> None:
    loaded = load(environ={"OTEL_AUDIT_DJANGO_MODEL": '{"shop.Order": {"reads": true}}'})
    assert loaded.config.django.model["shop.Order"].reads is True
    [message] = problems(environ={"OTEL_AUDIT_DJANGO_MODEL": "shop.Order=true"})
    assert message == "OTEL_AUDIT_DJANGO_MODEL: not a table; write a JSON object"


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("OTEL_AUDIT_SPOOL_FSNYC", "never", "did you mean 'OTEL_AUDIT_SPOOL_FSYNC'?"),
        ("OTEL_AUDIT_ENABLED", "maybe", "enabled: 'maybe' is not true or false"),
        ("OTEL_AUDIT_SPOOL_MAX_BYTES", "2GB", "'2GB' is not an integer"),
        (
            "OTEL_AUDIT_SINK_HEADERS",
            "no pair",
            "not a table; write name=value, several separated by commas, or",
        ),
        ("OTEL_AUDIT_SINK_HEADERS", '{"x": "half', "or a JSON object"),
    ],
)
def test_bad_variables_are_told_by_name(variable: str, text: str, expected: str) -> None:
    [message] = problems(environ={variable: text})
    assert message.startswith(variable)
    assert expected in message


def test_no_two_settings_share_a_variable() -> None:
    variables = [setting.variable for setting in settings().values()]
    assert len(variables) == len(set(variables))


def test_a_hash_of_unknown_user_names_needs_a_key() -> None:
    environ = {"OTEL_AUDIT_REDACTION_UNKNOWN_USER_NAMES": "hmac"}
    with pytest.raises(ConfigurationError, match=r"UNKNOWN_USER_NAMES.*hmac needs a key"):
        load(environ=environ)
    keyed = environ | {"OTEL_AUDIT_REDACTION_HMAC_KEY": "sixteen letters!"}
    assert load(environ=keyed).config.redaction.unknown_user_names == "hmac"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"environ": {}}, 0),
        ({"environ": {}, "django_settings": {"tenant": "a"}}, 1),
        ({"environ": {}, "django_settings": {"redaction": {"personal_numbers": False}}}, 0),
        (
            {
                "environ": {"OTEL_AUDIT_REDACTION_PERSONAL_NUMBERS": "true"},
                "django_settings": {"tenant": "a"},
            },
            0,
        ),
        ({"environ": {"OTEL_AUDIT_REDACTION_ENABLED": "false"}, "django_settings": {"tenant": "a"}}, 0),
    ],
)
def test_a_configuration_from_before_a_rule_is_told_that_it_has_it(source: dict[str, Any], told: int) -> None:
    loaded = load(**source)
    assert sum("personal_numbers" in note for note in loaded.notes) == told


@pytest.mark.parametrize(
    "text",
    [
        '[sink]\nendpoint = "https://bob:s3cr3t@"',
        '[sink]\nendpoint = "ftp://bob:s3cr3t@host/path"',
        '[sink]\nendpoint = "bob:s3cr3t@host"',
        '[sink]\nendpoint = "https://bob:s3cr3t"',
        '[sink]\nendpoint = "ftp://host/?key=s3cr3t"',
        '[sink]\nendpoint = ["https://bob:s3cr3t@host"]',
        '[store]\nurl = "http://bob:s3cr3t@host:port"',
        '[store]\nurl = "http://[s3cr3t]@host/"',
        '[store]\nurl = "http://bob:s3\uff0fcr3t@host"',
        '[sink.headers]\n"Authorization: Bearer s3cr3t" = 1',
        '[sink]\nheaders = {x = ["s3cr3t"]}',
    ],
)
def test_credentials_in_an_address_or_a_header_are_in_no_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"otel-audit.toml:2: (sink|store)\.") as error:
        load(file, {})
    assert "cr3t" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "secret", "expected"),
    [
        ("https://bob:s3cr3t@host/x?key=s3cr3t", False, "https://********@host/x?********"),
        ("http://127.0.0.1:4318/v1/audit", False, "http://127.0.0.1:4318/v1/audit"),
        ("http://[::1]:4318", False, "http://[::1]:4318"),
        ({"Authorization: s3cr3t": "x", "x-team": "y"}, True, {"********": "********", "x-team": "********"}),
        ("s3cr3t", True, "********"),
        ("", True, ""),
        (7, False, 7),
    ],
)
def test_a_setting_is_shown_without_what_is_secret(value: object, secret: bool, expected: object) -> None:
    assert shown(value, secret=secret) == expected


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("sink.ca_file", "OTEL_AUDIT_SINK_CA_FILE"),
        ("spool.directory", "OTEL_AUDIT_SPOOL_DIRECTORY"),
        ("server.data", "OTEL_AUDIT_SERVER_DATA"),
    ],
)
def test_a_home_directory_nobody_knows_is_told_by_key(tmp_path: Path, key: str, variable: str) -> None:
    """Of another user, or one's own in a container whose user has no name."""
    file = write(tmp_path / "otel-audit.toml", f'{key} = "~nobody-of-that-name/x"\n')
    [message] = problems(path=file)
    assert message.startswith(f"{file}:1: {key}: '~nobody-of-that-name/x' begins with '~nobody-of-that-name'")
    file.write_text("")
    [message] = problems(path=file, environ={variable: "~nobody-of-that-name"})
    assert message.startswith(f"{variable}: {key}: ")
    [message] = problems(environ={"OTEL_AUDIT_CONFIG": "~nobody-of-that-name/otel-audit.toml"})
    assert message.startswith("OTEL_AUDIT_CONFIG: ")
