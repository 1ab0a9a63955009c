"""doctor: what works is said to work, and each failure comes with what to do."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_audit.cli import checkup
from otel_audit.config.model import SpoolConfig
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import Identity, encode_record
from otel_audit.pipeline.spool.writer import SpoolWriter
from tests.cli.afternoon import RECORDS
from tests.cli.conftest import Command, Done
from tests.startup.agent import ROOT
from tests.trail import Serving, serving

Finding = dict[str, str]
Examine = Callable[..., dict[str, list[Finding]]]


def findings(done: Done) -> dict[str, list[Finding]]:
    """Sort the lines of ``doctor --json`` by subject."""
    found: dict[str, list[Finding]] = {}
    for line in done.out.splitlines():
        each = json.loads(line)
        found.setdefault(each["subject"], []).append(each)
    return found


@pytest.fixture
def healthy(tmp_path: Path, trail: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that is set up as it should be."""
    (tmp_path / "otel-audit.toml").write_text(
        f'[django]\nmodels = ["shop.*"]\n[sink]\nendpoint = "{trail.http}/v1/audit"\n'
        f'[store]\nurl = "{trail.clickhouse}"\n'
    )
    make_shop(tmp_path, monkeypatch)


MODELS = """
from django.db import models

class Card(models.Model):
    number = models.CharField(max_length=20)

class Order(models.Model):
    cards = models.ManyToManyField(Card)

class Late(Order):
    class Meta:
        proxy = True
"""


def make_shop(directory: Path, monkeypatch: pytest.MonkeyPatch, settings: str = "") -> None:
    """Make an application of one app with two models."""
    (directory / "shop").mkdir(exist_ok=True)
    for name, content in {
        "__init__.py": "",
        "models.py": MODELS,
        "settings.py": f"SECRET_KEY = 'x'\nINSTALLED_APPS = ['shop']\nDATABASES = {{}}\n{settings}\n",
    }.items():
        (directory / "shop" / name).write_text(content)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.usefixtures("healthy")
def test_what_works_is_told_in_one_screen_with_status_zero(command: Command, tmp_path: Path) -> None:
    done = command("doctor", "--utc", width=100)
    assert done.status == 0, done.out
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    assert len(shown.splitlines()) <= 24
    assert "✗" not in shown
    for part in (
        *(f"{tmp_path}/otel-audit.toml", "otel_audit_django: active", "shop.settings", "accepts records"),
        *(
            "2 models: shop.Card, shop.Order",
            "instrumentation-asgi",
            "does not exist yet: nothing has been recorded here",
            "2026-11-23 14:00:30 UTC",
        ),
    ):
        # Lines break where the length of the path demands, within it too.
        assert re.sub(r"\s", "", part) in re.sub(r"\s", "", shown), part


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("variables", "subject", "finding", "advice"),
    [
        ({"OTEL_AUDIT_SPOOL_FSNYC": "x"}, "configuration", "OTEL_AUDIT_SPOOL_FSNYC", "correct it"),
        ({"OTEL_AUDIT_ENABLED": "false"}, "configuration", "off by OTEL_AUDIT_ENABLED", "enabled = true"),
        ({"DJANGO_SETTINGS_MODULE": ""}, "Django", "is not set", "before opentelemetry-instrument starts"),
        (
            {"OTEL_AUDIT_SINK_ENDPOINT": "http://127.0.0.1:1/v1/audit"},
            "sink",
            "not reachable",
            "otel-audit serve",
        ),
        ({"OTEL_AUDIT_STORE_URL": "http://127.0.0.1:1"}, "store", "http://127.0.0.1:1", ""),
        ({"OTEL_AUDIT_STORE_DATABASE": "elsewhere"}, "store", "no audit tables", "otel-audit store init"),
        ({"OTEL_AUDIT_SPOOL_DIRECTORY": "/proc/nowhere"}, "spool", "", ""),
    ],
)
def test_each_failure_is_told_with_what_to_do(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    subject: str,
    finding: str,
    advice: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = command("doctor", "--json")
    [found] = [each for each in findings(done)[subject] if each["state"] != "ok"]
    assert finding in found["finding"]
    assert advice in found.get("advice", "")
    assert done.status == (0 if found["state"] == "note" else 1)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, otel_audit_django"}, "DISABLED_INSTRUMENTATIONS"),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}, "DISABLED_INSTRUMENTATIONS"),
        ({"OTEL_AUDIT_DJANGO_ENABLED": "no"}, "django.enabled is false"),
        ({"OTEL_AUDIT_ENABLED": "no"}, "audit is switched off"),
    ],
)
def test_why_an_instrumentor_is_inactive_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, *_ = findings(command("doctor", "--json"))["instrumentors"]
    assert "otel_audit_django: inactive" in found["finding"]
    assert reason in found["finding"]


@pytest.mark.usefixtures("healthy")
def test_a_service_of_fastapi_is_looked_at(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    (tmp_path / "otel-audit.toml").write_text(
        '[sqlalchemy]\nmodels = ["fulfilment.*"]\n[context]\nactor_from = "accounts:current_user"\n'
    )
    found = findings(command("doctor", "--json"))
    told = {each["finding"].partition(":")[0]: each["finding"] for each in found["instrumentors"]}
    assert "active under opentelemetry-instrument" in told["otel_audit_starlette"]
    assert told["otel_audit_sqlalchemy"].endswith("for fulfilment.*")
    assert [each["state"] for each in found["Django"]] == ["note"], "installed here, and not meant"
    assert (found["actor"][0]["state"], "accounts cannot be found" in found["actor"][0]["finding"]) == (
        "note",
        True,
    )
    (tmp_path / "accounts.py").write_text("raise SystemExit('imported')\n")
    found = findings(command("doctor", "--json"))
    assert found["actor"][0]["state"] == "ok"
    monkeypatch.setenv("OTEL_AUDIT_STARLETTE_ENABLED", "false")
    found = findings(command("doctor", "--json"))
    assert any("starlette.enabled is false" in each["finding"] for each in found["instrumentors"])


def test_a_name_the_sink_does_not_answer_to_is_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the two ways out; the store's own token is found all the same."""
    with serving(tmp_path, makes_token=True) as server:
        monkeypatch.setenv("OTEL_AUDIT_SINK_ENDPOINT", f"{server.http}/v1/audit")
        monkeypatch.setenv("OTEL_AUDIT_SINK_HEADERS", "Host=audit.example")
        monkeypatch.setenv("OTEL_AUDIT_STORE_URL", server.clickhouse)
        found = findings(command("doctor", "--json"))
        assert "answers 421" in found["sink"][0]["finding"]
        assert "OTEL_AUDIT_SERVER_HOSTS" in found["sink"][0]["advice"]
        assert found["store"][0]["state"] == "ok"


def test_a_missing_token_is_told_as_such_for_sink_and_store(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, OTEL_AUDIT_SERVER_TOKEN="token-of-the-test") as server:
        monkeypatch.setenv("OTEL_AUDIT_SINK_ENDPOINT", f"{server.http}/v1/audit")
        monkeypatch.setenv("OTEL_AUDIT_STORE_URL", server.clickhouse)
        found = findings(command("doctor", "--json"))
        assert "401: no token is configured" in found["sink"][0]["finding"]
        assert "OTEL_AUDIT_SINK_TOKEN" in found["sink"][0]["advice"]
        assert "OTEL_AUDIT_STORE_TOKEN" in found["store"][0]["finding"]
        monkeypatch.setenv("OTEL_AUDIT_SINK_TOKEN", "wrong")
        found = findings(command("doctor", "--json"))
        assert "401: the token is not valid" in found["sink"][0]["finding"]
        monkeypatch.setenv("OTEL_AUDIT_SINK_TOKEN", "token-of-the-test")
        monkeypatch.setenv("OTEL_AUDIT_STORE_TOKEN", "token-of-the-test")
        found = findings(command("doctor", "--json"))
        assert found["sink"][0]["state"] == found["store"][0]["state"] == "ok"
        assert "none yet" in found["newest record"][0]["finding"]


def test_a_sink_that_says_nothing_is_given_up_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_AUDIT_SINK_ENDPOINT", f"{address}/v1/audit")
        monkeypatch.setenv("OTEL_AUDIT_STORE_URL", address)
        found = findings(command("doctor", "--json", "--timeout", "0.2"))
    assert "no answer within 0.2 s" in found["sink"][0]["finding"]
    assert "no answer within 0.2 s" in found["store"][0]["finding"]


def test_records_that_wait_are_counted(command: Command, tmp_path: Path) -> None:
    directory = tmp_path / ".otel-audit" / "spool"
    layout.prepare(directory)
    spool = SpoolWriter(
        SpoolConfig(), directory, lambda: Identity(incarnation="", host="h", version="0"), Health()
    )
    spool.append([encode_record(each) for each in RECORDS])
    found = findings(command("doctor", "--json", "--timeout", "0.2"))["spool"]
    assert found[0]["state"] == "bad"
    assert f"{len(RECORDS)} records waiting, 1 processes writing" in found[0]["finding"]
    status = json.loads(command("spool", "status", "--json").out)
    assert status["waiting"] == len(RECORDS)
    shown = command("spool", "status", "--utc", width=120).out
    assert f"{len(RECORDS)} records waiting" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "2026-11-23 14:00:01 UTC" in shown
    spool.close()
    spool.release()


def test_a_stream_that_cannot_be_read_is_told_with_what_to_do(command: Command, tmp_path: Path) -> None:
    """By doctor, status and drain; none of them ends in a traceback, none lets it hide the others."""
    stream = tmp_path / ".otel-audit" / "spool" / "01a221d1-2d66-7b32-9201-a657cc958510"
    (stream / "lock").mkdir(parents=True)
    [spool, *_, problem] = findings(command("doctor", "--json", "--timeout", "0.2"))["spool"]
    assert spool["state"] == "ok"
    assert problem["state"] == "bad"
    assert str(stream) in problem["finding"]
    assert "check the file and its file system" in problem["advice"]
    status = command("spool", "status")
    assert (status.status, str(stream) in status.out.replace("\n", "")) == (1, True)
    drained = command("spool", "drain", "--timeout", "0.2")
    assert (drained.status, str(stream) in drained.err) == (1, True)
    assert "0 records sent" in drained.out


@pytest.mark.parametrize("value", ["s3cr3t\u20ac", "s3cr3t\r\nX: 1", " s3cr3t"])
def test_a_token_that_is_no_header_is_told_without_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    """By its key, for sink and store; `query` says it as well, and ends."""
    file = tmp_path / "otel-audit.toml"
    file.write_text(f"[sink]\ntoken = {json.dumps(value)}\n[store]\ntoken = {json.dumps(value)}\n")
    done = command("doctor", "--json", "--timeout", "0.2", "--config", str(file))
    found = findings(done)
    assert "sink.token (OTEL_AUDIT_SINK_TOKEN)" in found["sink"][0]["finding"]
    assert "store.token (OTEL_AUDIT_STORE_TOKEN)" in found["store"][0]["finding"]
    asked = command("query", "--config", str(file))
    assert asked.status == 2
    assert "store.token (OTEL_AUDIT_STORE_TOKEN)" in asked.err.replace("\n", " ")
    assert "s3cr3t" not in done.out + done.err + asked.out + asked.err


def models(command: Command) -> list[Finding]:
    return findings(command("doctor", "--json", "--timeout", "0.2")).get("models", [])


@pytest.mark.parametrize(
    ("patterns", "state", "finding", "advice"),
    [
        ('models = ["*"]', "ok", "2 models: shop.Card, shop.Order", ""),
        (
            'models = ["shop.card"]\nreads = ["shop.*"]',
            "ok",
            "1 model: shop.Card; reads of 2 models: shop.",
            "",
        ),
        (
            'models = ["shp.Card"]',
            "bad",
            "otel-audit.toml:2: django.models has the pattern 'shp.Card', which matches no installed model",
            "'shop.Card'",
        ),
        (
            'reads = ["library.*"]',
            "bad",
            "otel-audit.toml:2: django.reads has the pattern 'library.*'",
            "app_label.Model",
        ),
        ("auth_events = true", "note", "no model is audited", "shop.*"),
    ],
)
def test_the_models_that_are_audited_are_counted(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patterns: str,
    state: str,
    finding: str,
    advice: str,
) -> None:
    (tmp_path / "otel-audit.toml").write_text(f"[django]\n{patterns}\n")
    make_shop(tmp_path, monkeypatch)
    [found] = models(command)
    assert found["state"] == state
    assert finding in found["finding"]
    assert advice in found.get("advice", "")


def test_a_pattern_that_matches_nothing_is_named_beside_those_that_do(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "otel-audit.toml").write_text('[django]\nmodels = ["shop.*", "!auth.*", "shop.Ordr"]\n')
    make_shop(tmp_path, monkeypatch)
    counted, missing = models(command)
    assert counted["state"] == "ok"
    assert (missing["state"], missing["advice"]) == ("bad", "Did you mean 'shop.Order'?")


def test_models_that_their_class_or_code_names_are_counted_with_the_place(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shop(tmp_path, monkeypatch)
    opted_in = MODELS.replace("number =", '__audit__ = {"reads": True, "ignore": ["nubmer"]}\n    number =')
    named = "\nimport otel_audit\notel_audit.audit_models('shop.Order', 'shop.Crad')\n"
    (tmp_path / "shop" / "models.py").write_text(opted_in + named)
    counted, placed, code, ignored = models(command)
    assert counted["finding"] == "2 models: shop.Card, shop.Order; reads of 1 model: shop.Card"
    assert placed["finding"].endswith(
        "shop.Card by shop.models.Card.__audit__, shop.Order by shop/models.py:16"
    )
    assert "shop/models.py:16: audit_models() has the pattern 'shop.Crad'" in code["finding"]
    assert ignored["advice"] == "Did you mean 'number'?"
    assert (counted["state"], placed["state"], code["state"], ignored["state"]) == ("ok", "ok", "bad", "bad")


def test_a_model_that_is_swapped_out_is_named_with_what_stands_for_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'shop']"
    make_shop(tmp_path, monkeypatch, f"{installed}\nAUTH_USER_MODEL = 'shop.User'")
    (tmp_path / "shop" / "models.py").write_text(
        "import otel_audit\n"
        "from django.contrib.auth.models import AbstractUser, User as Swapped\n"
        "class User(AbstractUser):\n    pass\n"
        "otel_audit.audit_models('auth.User', Swapped, AbstractUser)\n"
    )
    counted, placed, *wrong = models(command)
    assert counted["finding"] == "1 model: shop.User"
    assert "shop.User by shop/models.py:5" in placed["finding"]
    assert len(wrong) == 2
    for each in wrong:
        assert each["state"] == "bad"
        assert "did you mean 'shop.User'?" in each["advice"].replace("Did", "did")


def test_djangos_setting_counts_where_there_is_no_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shop(tmp_path, monkeypatch, 'OTEL_AUDIT = {"django": {"models": ["shop.Order"]}}')
    found = findings(command("doctor", "--json", "--timeout", "0.2"))
    assert found["models"][0]["finding"] == "1 model: shop.Order, set by Django's OTEL_AUDIT setting"
    assert found["instrumentors"][0]["state"] == "ok"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("raise RuntimeError('no database host')", "RuntimeError: no database host"),
        ("raise SystemExit(3)", "status 3"),
        ("import os; os._exit(4)", "status 4"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("INSTALLED_APPS = ['nowhere']", "No module named 'nowhere'"),
    ],
)
def test_apps_that_cannot_be_loaded_are_told_with_the_reason_and_harm_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, reason: str
) -> None:
    make_shop(tmp_path, monkeypatch, settings)
    [found] = models(command)
    assert found["state"] == "bad"
    assert found["finding"].startswith("cannot load the application's apps: ")
    assert reason in found["finding"]


def test_what_an_application_prints_and_starts_stays_out_of_the_answer(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    make_shop(
        tmp_path,
        monkeypatch,
        "import subprocess, sys, threading, time\n"
        'print(\'{"subject": "models"}\')\n'
        "print('noise', file=sys.stderr)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "import otel_audit\notel_audit.setup()",
    )
    (tmp_path / "otel-audit.toml").write_text('[django]\nmodels = ["shop.*"]\n')
    [found] = models(command)
    assert found["state"] == "ok"
    assert not (tmp_path / ".otel-audit").exists(), "doctor records nothing"
    state = Path(f"/proc/{pid.read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_apps_that_do_not_get_ready_are_given_up_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shop(tmp_path, monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(checkup, "_LOADING_SECONDS", 0.5)
    [found] = models(command)
    assert "not ready after 0.5 s" in found["finding"]
