"""init, config show and --help: from an empty project to a configuration that holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_audit.cli.detection import find_django
from otel_audit.config import load
from tests.cli.conftest import Command
from tests.trail import COMMAND, clean_environment


def project(root: Path) -> Path:
    """Write the files of a Django project as ``startproject`` and ``startapp`` leave them, and traps."""
    files = {
        "manage.py": 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")\n',
        "config/settings.py": "raise SystemExit('imported')\n",
        "config/wsgi.py": "",
        "orders/models.py": "from django.db import models\nclass Order(models.Model):\n    pass\n",
        "orders/apps.py": "class OrdersConfig(AppConfig):\n    name = 'orders'\n    label = 'sales'\n",
        "stock/models/__init__.py": "from .item import Item\n",
        "stock/models/item.py": "class Item(TimeStampedModel):\n    pass\n",
        "pages/models.py": "# Create your models here.\n",
        "broken/models.py": "class Half(models.Model:\n",
        ".venv/lib/django/contrib/auth/models.py": "class User(AbstractUser):\n    pass\n",
        "env311/pyvenv.cfg": "",
        "env311/lib/thing/models.py": "class Thing(models.Model):\n    pass\n",
    }
    return write(root, files)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def variables(text: str) -> set[str]:
    """Return the names of the variables that commands in ``text`` export."""
    exports = re.findall(r"^ *export (.*)$", text, re.MULTILINE)
    return {word.partition("=")[0] for line in exports for word in line.split()}


def variables_of_page(name: str) -> set[str]:
    page = (Path(__file__).parents[2] / name).read_text("utf-8")
    return variables("".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)))


def test_init_writes_a_file_that_holds_and_names_the_next_commands(command: Command, tmp_path: Path) -> None:
    project(tmp_path)
    done = command("init")
    assert done.status == 0
    loaded = load(environ={})
    assert loaded.path == tmp_path / "otel-audit.toml"
    assert loaded.config.django.models == ["sales.*", "stock.*", "auth.User", "!sessions.*"]
    assert loaded.notes == []
    assert (
        loaded.origins["redaction.personal_numbers"].startswith("otel-audit.toml:")
        or str(tmp_path) in (loaded.origins["redaction.personal_numbers"])
    )
    assert "personal_numbers = true" in (tmp_path / "otel-audit.toml").read_text()
    assert "DJANGO_SETTINGS_MODULE=config.settings" in done.out
    assert f"OTEL_SERVICE_NAME={tmp_path.name}" in done.out
    assert "opentelemetry-instrument gunicorn config.wsgi" in done.out
    assert variables(done.out) == variables_of_page("README.md") == variables_of_page("docs/quickstart.md")
    assert "otel-audit serve" in done.out


def test_init_finds_the_models_and_the_users_of_a_stock_wagtail_project(
    command: Command, tmp_path: Path
) -> None:
    settings = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings.dev")\n'
    write(
        tmp_path,
        {
            "manage.py": settings,
            "mysite/settings/__init__.py": "",
            "mysite/settings/base.py": 'AUTH_USER_MODEL = "people.Person"\n',
            "mysite/settings/dev.py": "from .base import *\n",
            "mysite/wsgi.py": settings,
            "home/models.py": "from wagtail.models import Page\n\n\nclass HomePage(Page):\n    pass\n",
            "search/views.py": "",
        },
    )
    done = command("init")
    assert done.status == 0
    assert load(environ={}).config.django.models == ["home.*", "people.Person", "!sessions.*"]
    assert "people.Person" in done.out


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from taggit.models import TaggedItemBase as Base\nclass Tagged(Base):\n    pass\n", True),
        ("import mptt.models as trees\nclass Branch(trees.MPTTModel):\n    pass\n", True),
        ("from core.models import Base\nclass Order(Base):\n    pass\n", True),
        ("from .base import Base\nclass Order(Base):\n    total: int = models.IntegerField()\n", True),
        ("from django.db import models\nclass A(models.Model):\n    pass\nclass B(A):\n    pass\n", True),
        ("from django.db import models\nclass Paid(models.TextChoices):\n    YES = 'y'\n", False),
        ("from django.db import models\nclass Paid(models.Manager):\n    pass\n", False),
        ("from django import forms\nclass Search(forms.Form):\n    q = forms.CharField()\n", False),
        ("class Base(models.Model):\n    class Meta:\n        abstract = True\n", False),
        ("from wagtail.models import Page\ndef pages() -> list[Page]:\n    return []\n", False),
        ("class Plain:\n    name = CharField()\n", False),
    ],
)
def test_init_tells_models_from_what_else_stands_in_a_models_file(
    tmp_path: Path, text: str, found: bool
) -> None:
    write(tmp_path, {"manage.py": "", "shop/models.py": text})
    project = find_django(tmp_path, {"DJANGO_SETTINGS_MODULE": "shop.settings"})
    assert project is not None
    assert project.apps == (["shop"] if found else [])


def test_a_user_model_of_an_app_that_is_recorded_is_not_named_twice(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "manage.py": "",
            "shop/settings.py": 'AUTH_USER_MODEL: str = "shop.Customer"\n',
            "shop/models.py": "class Customer(AbstractUser):\n    pass\n",
        },
    )
    project = find_django(tmp_path, {"DJANGO_SETTINGS_MODULE": "shop.settings"})
    assert project is not None
    assert project.patterns == ["shop.*"]


def test_a_file_from_before_the_rules_about_personal_numbers_has_them_and_is_told_once(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "otel-audit.toml").write_text("tenant = 'mine'\n")
    done = command("config", "show")
    assert done.status == 0
    said = done.out + done.err
    assert said.count("personal_numbers is not set") == 1
    assert "false to record them" in " ".join(said.split())
    assert "redaction.personal_numbers" in done.out
    for chosen in ("true", "false"):
        (tmp_path / "otel-audit.toml").write_text(f"[redaction]\npersonal_numbers = {chosen}\n")
        done = command("config", "show")
        assert "is not set" not in done.out + done.err
    (tmp_path / "otel-audit.toml").write_text("[redaction]\nenabled = false\n")
    done = command("config", "show")
    assert "is not set" not in done.out + done.err, "they are off with all others"


def test_init_does_not_overwrite_what_somebody_wrote(command: Command, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text("tenant = 'mine'\n")
    done = command("init")
    assert done.status == 2
    assert "--force" in done.err
    assert (tmp_path / "otel-audit.toml").read_text() == "tenant = 'mine'\n"
    assert command("init", "--force").status == 0
    assert load(environ={}).config.tenant == ""


SERVICE = {
    "main": "from fastapi import FastAPI\nfrom .models import Shipment\napp = FastAPI()\n",
    "models": "class Base(DeclarativeBase): ...\nclass Shipment(Base):\n    __tablename__ = 'shipments'\n",
}


@pytest.mark.parametrize(
    ("files", "command_line", "models", "service"),
    [
        (
            {"fulfilment/main.py": SERVICE["main"], "fulfilment/models.py": SERVICE["models"]},
            "uvicorn fulfilment.main:app",
            ["fulfilment.*", "!alembic_version"],
            "fulfilment",
        ),
        (
            {"src/fulfilment/main.py": SERVICE["main"], "src/fulfilment/models.py": SERVICE["models"]},
            "uvicorn fulfilment.main:app --app-dir src",
            ["fulfilment.*", "!alembic_version"],
            "fulfilment",
        ),
        (
            {"main.py": SERVICE["main"] + SERVICE["models"]},
            "uvicorn main:app",
            ["main.*", "!alembic_version"],
            "",
        ),
        (
            {"shipping/app.py": "import fastapi\ndef make():\n    return fastapi.FastAPI()\n"},
            "uvicorn shipping.app:make --factory",
            [],
            "shipping",
        ),
        (
            {
                "shipping/asgi.py": "from starlette.applications import Starlette as S\nsite: S = S()\n",
                "shipping/tables.py": "import sqlalchemy as sa\nports = sa.Table('ports', sa.MetaData())\n",
                "shipping/sqlmodels.py": "class Ship(SQLModel, table=True):\n    id: int\n",
                "shipping/schemas.py": "class ShipIn(SQLModel):\n    id: int\n",
            },
            "uvicorn shipping.asgi:site",
            ["ports", "shipping.*", "!alembic_version"],
            "shipping",
        ),
        (
            {"models.py": SERVICE["models"]},
            "python your_program.py",
            ["models.*", "!alembic_version"],
            "",
        ),
    ],
)
def test_init_finds_a_service_and_how_it_is_started(
    command: Command,
    tmp_path: Path,
    files: dict[str, str],
    command_line: str,
    models: list[str],
    service: str,
) -> None:
    traps = {"tests/main.py": SERVICE["main"], "broken.py": "app = FastAPI(\n", "raises.py": "1 / 0\n"}
    write(tmp_path, files | traps)
    done = command("init")
    assert done.status == 0
    loaded = load(environ={})
    assert loaded.config.sqlalchemy.models == models
    assert loaded.config.django.models == []
    assert f"opentelemetry-instrument {command_line}\n" in done.out
    assert f"OTEL_SERVICE_NAME={service or tmp_path.name}\n" in done.out
    assert "DJANGO_SETTINGS_MODULE" not in done.out
    assert variables(done.out) == variables_of_page("docs/fastapi.md")


def test_a_django_project_stays_one_if_it_has_an_application_of_fastapi(
    tmp_path: Path, command: Command
) -> None:
    write(project(tmp_path), {"config/api.py": SERVICE["main"]})
    assert "opentelemetry-instrument gunicorn config.wsgi" in command("init").out


def test_init_without_a_project_writes_the_file_all_the_same(command: Command, tmp_path: Path) -> None:
    done = command("init")
    assert done.status == 0
    assert "Neither a Django project nor a service of FastAPI" in done.out
    assert load(environ={}).config.django.models == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root can be denied only by a file in the way")
def test_init_says_why_it_cannot_write(command: Command, tmp_path: Path) -> None:
    assert command("init", str(tmp_path / "nowhere")).status == 2
    (tmp_path / "otel-audit.toml").mkdir()
    done = command("init", "--force")
    assert done.status == 2
    assert "cannot be written" in done.err


def test_detection_imports_nothing_and_finds_what_django_would(tmp_path: Path) -> None:
    found = find_django(project(tmp_path), {})
    assert found is not None
    assert (found.settings, found.wsgi, found.asgi) == ("config.settings", "config.wsgi", "")
    assert found.apps == ["sales", "stock"]
    other = find_django(tmp_path, {"DJANGO_SETTINGS_MODULE": "config.production"})
    assert other is not None
    assert other.settings == "config.production"


def test_config_show_tells_each_value_and_where_it_came_from(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "otel-audit.toml").write_text('tenant = "acme"\n[django.model."shop.Order"]\nreads = true\n')
    monkeypatch.setenv("OTEL_AUDIT_SPOOL_FSYNC", "always")
    found = {
        row["key"]: (row["value"], row["origin"])
        for row in map(json.loads, command("config", "show", "--json").out.splitlines())
    }
    assert found["tenant"] == ("acme", f"{tmp_path}/otel-audit.toml:1")
    assert found["django.model.shop.Order.reads"] == (True, f"{tmp_path}/otel-audit.toml:3")
    assert found["spool.fsync"] == ("always", "OTEL_AUDIT_SPOOL_FSYNC")
    assert found["enabled"] == (True, "default")
    changed = command("config", "show", "--changed", width=120).out
    assert "OTEL_AUDIT_SPOOL_FSYNC" in changed
    assert "enabled" not in changed


def test_config_show_knows_what_opentelemetrys_own_file_says(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "otel.yaml"
    path.write_text(
        'file_format: "1.0"\ninstrumentation/development:\n  python:\n'
        "    otel_audit_django:\n      models: [shop.Order]\n"
    )
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(path))
    [row] = map(json.loads, command("config", "show", "--changed", "--json").out.splitlines())
    assert (row["key"], row["value"]) == ("django.models", ["shop.Order"])
    assert row["origin"].startswith("OTEL_CONFIG_FILE")


def test_config_show_shows_no_secret(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_AUDIT_SINK_TOKEN", "geheim-1")
    monkeypatch.setenv("OTEL_AUDIT_STORE_PASSWORD", "geheim-2")
    monkeypatch.setenv("OTEL_AUDIT_REDACTION_HMAC_KEY", "geheim-3-geheim-3")
    monkeypatch.setenv("OTEL_AUDIT_SINK_HEADERS", "X-Key=geheim-4")
    monkeypatch.setenv("OTEL_AUDIT_STORE_URL", "http://me:geheim-5@host:8123")
    for arguments in ([], ["--json"]):
        shown = command("config", "show", *arguments).out
        assert "geheim" not in shown
        assert "********" in shown


def test_config_errors_name_file_and_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "otel-audit.toml").write_text("[spool]\nfsnyc = 1\n")
    for arguments in (["config", "show"], ["query"], ["spool", "status"], ["serve"]):
        done = command(*arguments)
        assert done.status == 2
        assert (
            f"{tmp_path}/otel-audit.toml:2: unknown key 'fsnyc' in [spool]; did you mean 'fsync'?" in done.err
        )


@pytest.mark.parametrize(
    "arguments",
    [[], ["config", "show"], ["spool", "status"], ["spool", "drain"],
     ["init"], ["serve"], ["doctor"], ["query"], ["tail"], ["show"], ["history"], ["trace"],
     ["store", "init"], ["store", "migrate"], ["store", "status"], ["store", "roles"]],
)  # fmt: skip
def test_help_teaches_and_documents_exit_statuses(command: Command, arguments: list[str]) -> None:
    done = command(*arguments, "--help", width=100)
    assert done.status == 0
    assert "Exit status: 0 success; 1 nothing found" in done.out
    assert "\\b" not in done.out
    assert "Traceback" not in done.out


def test_neither_help_nor_a_query_imports_django_or_the_engine(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from otel_audit.cli import main\n"
        "sys.argv = ['otel-audit', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'django', 'sqlalchemy', 'chdb', 'grpc', 'uvicorn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "if sys.argv[1] == '--help':\n"
        "    heavy = {name for name in sys.modules if name.startswith('opentelemetry.sdk')}\n"
        "    assert not heavy, heavy\n"
    )
    for arguments in (
        ["--help"],
        ["query", "--url", "http://127.0.0.1:1"],
        ["init"],
        ["doctor", "--timeout", "0.1"],
    ):
        done = subprocess.run(  # noqa: PLW1510 - the status is what is tested
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_without_its_packages_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    script = "import sys; sys.modules['typer'] = None; " + COMMAND[2]
    done = subprocess.run(  # noqa: PLW1510 - the status is what is tested
        [sys.executable, "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "otel-audit: the command line needs typer: pip install 'otel-audit[cli]'\n"


def test_serve_without_the_server_extra_says_how_to_get_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['uvicorn'] = None; sys.argv = ['otel-audit', 'serve']; " + COMMAND[2]
    done = subprocess.run(  # noqa: PLW1510 - the status is what is tested
        [sys.executable, "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'otel-audit[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    program = f"{sys.executable} -c '{COMMAND[2]}' config show --json | head -n 1"
    done = subprocess.run(  # noqa: PLW1510 - the status is what is tested
        ["bash", "-c", f"set -o pipefail; {program}"],
        cwd=tmp_path,
        env=clean_environment(PYTHONUNBUFFERED="1"),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
