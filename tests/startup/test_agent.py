"""Under opentelemetry-instrument, beside other distros, in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.startup.agent import CONFIG, REPORT, put_first, run


def spool_bytes(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (directory / "spool").rglob("*") if file.is_file())


@pytest.mark.parametrize("first", ["otel-audit", "opentelemetry-distro"])
def test_audit_starts_beside_the_distro_in_both_orders_of_discovery(tmp_path: Path, first: str) -> None:
    done = run(tmp_path, path=put_first(tmp_path, first))
    assert done.report["running"], done.errors
    assert done.report["recorded"]
    assert done.report["provider"] == "TracerProvider"
    # The exporter was there before our hook ran: the span it printed was redacted all the same.
    assert '"name": "token=[redacted]"' in done.output
    assert "hunter2" not in done.output
    assert b"shop.export" in spool_bytes(tmp_path)
    assert b"hunter2" not in spool_bytes(tmp_path)


@pytest.mark.parametrize("name", ["otel_audit", "distro"])
def test_either_distro_may_be_asked_for_by_name(tmp_path: Path, name: str) -> None:
    configurator = {"otel_audit": "otel_audit", "distro": "configurator"}[name]
    done = run(tmp_path, environ={"OTEL_PYTHON_DISTRO": name, "OTEL_PYTHON_CONFIGURATOR": configurator})
    assert done.report["running"], done.errors
    assert done.report["provider"] == "TracerProvider"
    assert "[redacted]" in done.output


def test_our_distro_alone_exports_over_otlp_without_being_told(tmp_path: Path) -> None:
    program = """
        import os
        from otel_audit.distro import AuditDistro
        os.environ.pop("OTEL_TRACES_EXPORTER")
        AuditDistro().configure()
        print(os.environ["OTEL_TRACES_EXPORTER"])
    """
    done = run(tmp_path, program, agent=False, environ={"OTEL_PYTHON_DISTRO": "otel_audit"})
    assert done.output.strip() == "otlp", done.errors


FAILING = """
class Failing:
    def __init__(self):
        CONSTRUCTED

    def configure(self, **kwargs):
        raise RuntimeError("not today")
"""


def put_before(directory: Path, entry_points: str, module: str = "") -> Path:
    """Put ours first on the path, then a distribution with ``entry_points`` of the module ``other``."""
    (directory / "other.py").write_text(module)
    folder = directory / "second" / "other-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(entry_points)
    return Path(f"{put_first(directory, 'otel-audit')}{os.pathsep}{folder.parent}")


def test_the_agent_has_nothing_to_say_about_what_was_handed_over_to(tmp_path: Path) -> None:
    done = run(tmp_path, path=put_first(tmp_path, "otel-audit"))
    assert done.report["provider"] == "TracerProvider"
    assert "Configuration of configurator not loaded" not in done.errors


@pytest.mark.parametrize("constructed", ["pass", "raise RuntimeError('never')"])
@pytest.mark.parametrize("kind", ["distro", "configurator"])
def test_a_distribution_beside_us_that_fails_does_not_stop_audit(
    tmp_path: Path, kind: str, constructed: str
) -> None:
    module = FAILING.replace("CONSTRUCTED", constructed)
    if kind == "distro":
        base = "from opentelemetry.instrumentation.distro import BaseDistro\n"
        module = base + module.replace("class Failing:", "class Failing(BaseDistro):")
        module = module.replace("def configure", "def _configure")
    first = put_before(tmp_path, f"[opentelemetry_{kind}]\nbroken = other:Failing\n", module)
    done = run(tmp_path, path=first)
    assert done.report["running"], done.errors
    assert done.report["recorded"]
    assert ("not today" if constructed == "pass" else "never") in done.errors


ALONE = """
    import os
    from importlib import metadata
    from otel_audit import distro
    groups = ("opentelemetry_distro", "opentelemetry_configurator")
    def alone(*, group, **more):
        found = metadata.entry_points(group=group, **more)
        return [each for each in found if each.name == "otel_audit" or group not in groups]
    distro.entry_points = alone
    before = dict(os.environ)
    distro.AuditDistro().configure()
    distro.AuditConfigurator().configure()
    from opentelemetry import trace
    changed = sorted(name for name in os.environ if os.environ[name] != before.get(name))
    print(type(trace.get_tracer_provider()).__name__, changed)
"""


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_without_another_distribution_the_provider_is_left_to_the_application(
    tmp_path: Path, enabled: str
) -> None:
    done = run(tmp_path, ALONE, agent=False, environ={"OTEL_AUDIT_ENABLED": enabled})
    assert done.output.strip() == "ProxyTracerProvider []", done.errors


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR"])
def test_asked_for_by_name_it_is_set(tmp_path: Path, variable: str) -> None:
    done = run(tmp_path, ALONE, agent=False, environ={variable: "otel_audit"})
    assert done.output.startswith("TracerProvider "), done.errors


def test_the_sdk_failing_to_start_does_not_stop_audit_under_our_configurator(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        environ={
            "OTEL_TRACES_EXPORTER": "no_such_exporter",
            "OTEL_PYTHON_DISTRO": "otel_audit",
            "OTEL_PYTHON_CONFIGURATOR": "otel_audit",
        },
    )
    assert done.report["running"]
    assert done.report["recorded"]
    assert "no spans are made. Audit starts without them" in done.errors


def test_a_start_that_fails_is_logged_and_told_and_lets_the_application_run(tmp_path: Path) -> None:
    done = run(tmp_path, config="[spool]\nsegment_byte = 5\n")
    assert done.status == 0
    assert not done.report["running"]
    assert "otel-audit.toml:2" in done.report["error"]
    assert "segment_bytes" in done.report["error"]
    assert done.report["why_off"].startswith("audit could not be started")
    assert "Nothing is audited: " in done.errors
    assert not done.report["recorded"]


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        ('on_error = "fail_closed"\n[spool]\nsegment_byte = 5\n', {}),
        ('on_error = "fail_closed"\nthis is = = not toml\n', {}),
        ("[spool]\nsegment_byte = 5\n", {"OTEL_AUDIT_ON_ERROR": "fail_closed"}),
        ('on_error = "fail_closed"\n[spool]\ndirectory = "program.py/spool"\n', {}),
        ('on_error = "fail_closed"\n[redaction]\nvalues = ["x*"]\n', {}),
    ],
    ids=["unknown key", "not TOML", "from the environment", "spool unwritable", "bad pattern"],
)
def test_with_fail_closed_the_process_does_not_start_although_the_agent_swallows_exceptions(
    tmp_path: Path, config: str, environ: dict[str, str]
) -> None:
    done = run(tmp_path, "print('the application runs')", config=config, environ=environ)
    assert done.status == 78
    assert "the application runs" not in done.output
    assert "otel-audit: refusing to start" in done.errors


def test_a_disabled_sdk_does_not_switch_audit_off_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, environ={"OTEL_SDK_DISABLED": "true"})
    assert done.report["running"]
    assert done.report["recorded"]
    assert "OTEL_SDK_DISABLED is set: no spans are made, but audit stays on" in done.errors
    assert b"shop.export" in spool_bytes(tmp_path)


def test_our_own_switch_switches_off_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, environ={"OTEL_AUDIT_ENABLED": "false"})
    assert not done.report["running"]
    assert done.report["error"] is None
    assert "enabled = false" in done.report["why_off"]
    assert "Nothing is audited: enabled = false" in done.errors


def test_a_missing_settings_module_is_warned_of(tmp_path: Path) -> None:
    django = CONFIG + '[django]\nmodels = ["shop.*"]\n'
    done = run(tmp_path, config=django, environ={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "django"})
    assert "DJANGO_SETTINGS_MODULE is not set" in done.errors
    quiet = run(tmp_path, config=CONFIG)
    assert "DJANGO_SETTINGS_MODULE" not in quiet.errors


def test_switching_our_instrumentors_off_in_the_agent_is_warned_of(tmp_path: Path) -> None:
    ours = "otel_audit_django, otel_audit_sqlalchemy, otel_audit_starlette"
    done = run(tmp_path, environ={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"{ours}, django"})
    assert f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS disables {ours}" in done.errors
    assert done.report["running"]
    assert done.report["instrumented"] == []


SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = []
DATABASES = {}
OTEL_AUDIT = {"spool": {"directory": "spool"}, "sink": {"shutdown_timeout": 0.0}, "tenant": "from settings"}
"""


def test_djangos_setting_is_read_where_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    program = REPORT + "\nprint('TENANT', provider.current().config.tenant)"
    environ = {"DJANGO_SETTINGS_MODULE": "project_settings"}
    done = run(tmp_path, program, config=None, environ=environ)
    assert "TENANT from settings" in done.output, done.errors


def test_settings_that_cannot_be_imported_are_a_reason_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "project_settings.py").write_text("raise RuntimeError('broken settings')")
    done = run(tmp_path, config=None, environ={"DJANGO_SETTINGS_MODULE": "project_settings"})
    assert "broken settings" in done.report["error"]


DECLARED = """
file_format: "1.0-rc.1"
tracer_provider:
  processors:
    - simple: {{exporter: {{console: }}}}
instrumentation/development:
  python:
    otel_audit_django: {options}
"""


def declare(directory: Path, options: str) -> dict[str, str]:
    (directory / "otel.yaml").write_text(DECLARED.format(options=options))
    return {"OTEL_CONFIG_FILE": str(directory / "otel.yaml")}


def test_options_of_the_declarative_configuration_are_honoured(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.configuration")
    program = REPORT + "\nprint('MODELS', provider.current().config.django.models)"
    done = run(tmp_path, program, environ=declare(tmp_path, '{models: ["shop.*"]}'))
    assert "MODELS ['shop.*']" in done.output, done.errors
    assert done.report["running"]
    assert "DjangoAuditInstrumentor" in done.report["instrumented"]
    assert "hunter2" not in done.output


def test_switching_off_in_the_declarative_configuration_is_honoured(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.configuration")
    program = REPORT + "\nprint('ENABLED', provider.current().config.django.enabled)"
    done = run(tmp_path, program, environ=declare(tmp_path, "{enabled: false}"))
    assert "ENABLED False" in done.output, done.errors
    assert "DjangoAuditInstrumentor" not in done.report["instrumented"]


def test_an_unknown_declared_option_stops_audit_and_names_the_nearest(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.configuration")
    done = run(tmp_path, environ=declare(tmp_path, '{modles: ["shop.*"]}'))
    assert not done.report["running"]
    assert "modles" in done.report["error"]
    assert "models" in done.report["error"]
    assert done.report["instrumented"] == []


def test_an_unknown_declared_option_ends_the_process_with_fail_closed(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.configuration")
    environ = declare(tmp_path, '{modles: ["shop.*"]}') | {"OTEL_AUDIT_ON_ERROR": "fail_closed"}
    assert run(tmp_path, "print('the application runs')", environ=environ).status == 78


def test_importing_the_package_brings_no_framework_and_no_transport(tmp_path: Path) -> None:
    program = """
        import sys
        before = set(sys.modules)
        import otel_audit
        otel_audit.Actor, otel_audit.AuditError, otel_audit.AuditConfig
        heavy = {"django", "sqlalchemy", "google", "grpc", "http", "requests", "urllib3", "asyncio", "ssl"}
        print(sorted(heavy & {name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    assert run(tmp_path, program, agent=False).output.strip() == "[]"
