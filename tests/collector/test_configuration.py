"""The configuration files: each combination is valid, and what is missing or mistaken is said."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.collector import certificates
from tests.collector.running import COLLECTOR, TOKEN, binary
from tests.e2e.running import ROOT, clean_environment

COMBINATIONS = [
    ["config.yaml"],
    ["config.yaml", "profiles/mirror.yaml"],
    ["config.yaml", "profiles/tls.yaml"],
    ["config.yaml", "profiles/gateway.yaml"],
    ["config.yaml", "profiles/tls.yaml", "profiles/gateway.yaml"],
    ["config.yaml", "profiles/tls.yaml", "profiles/gateway.yaml", "profiles/mirror.yaml"],
    ["profiles/agent.yaml", "profiles/mirror.yaml"],
    ["profiles/agent.yaml", "profiles/mirror.yaml", "profiles/tls.yaml"],
]
AGENT = {
    "OTELCOL_GATEWAY_URL": "https://gateway.example:4328",
    "OTELCOL_GATEWAY_TELEMETRY_URL": "https://gateway.example:4318",
    "OTELCOL_GATEWAY_TOKEN": TOKEN,
}
FILES = sorted(COLLECTOR.glob("*.yaml")) + sorted((COLLECTOR / "profiles").glob("*.yaml"))


def validate(configs: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run ``otelcol-audit validate``, give its status and what it says."""
    done = subprocess.run(
        [binary(), "validate", *(f"--config={COLLECTOR / config}" for config in configs)],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    made = certificates.make(tmp_path)
    return {"OTELCOL_TLS_CERT_FILE": str(made.certificate), "OTELCOL_TLS_KEY_FILE": str(made.key)}


@pytest.mark.parametrize("configs", COMBINATIONS, ids="+".join)
def test_each_combination_of_profiles_is_valid(configs: list[str], tls: dict[str, str]) -> None:
    """With nothing set but what has no default."""
    needed = {"OTELCOL_AUDIT_TOKEN": TOKEN}
    needed |= tls if "profiles/tls.yaml" in configs else {}
    needed |= AGENT if "profiles/agent.yaml" in configs else {}
    status, output = validate(configs, needed)
    assert status == 0, output
    assert "unused" not in output.lower()


@pytest.mark.parametrize(
    ("configs", "environment", "what"),
    [
        (["config.yaml"], {}, "bearertokenauth/audit"),
        (["profiles/agent.yaml"], {"OTELCOL_AUDIT_TOKEN": TOKEN}, "bearertokenauth/gateway"),
        (
            ["profiles/agent.yaml"],
            {"OTELCOL_AUDIT_TOKEN": TOKEN, "OTELCOL_GATEWAY_TOKEN": TOKEN},
            "otlp_http/telemetry",
        ),
        (["config.yaml", "profiles/tls.yaml"], {"OTELCOL_AUDIT_TOKEN": TOKEN}, "tls"),
        (
            ["config.yaml"],
            {"OTELCOL_AUDIT_TOKEN": TOKEN, "OTELCOL_AUDIT_MAX_BYTES": "20 MB"},
            "max_request_body_size",
        ),
        (["config.yaml"], {"OTELCOL_AUDIT_TOKEN": TOKEN, "OTELCOL_QUEUE_RECORDS": "10"}, "queue_size"),
    ],
)
def test_what_is_missing_or_mistaken_is_named(
    configs: list[str], environment: dict[str, str], what: str
) -> None:
    status, output = validate(configs, environment)
    assert status != 0
    assert what in output


def test_every_variable_of_the_files_is_documented_and_no_other() -> None:
    """In the table of docs/collector.md, where `OTELCOL_A_B`, `_C` stands for two."""
    used = {name for path in FILES for name in re.findall(r"\$\{env:(OTELCOL_\w+)", path.read_text())}
    documented: set[str] = set()
    for cell in re.findall(
        r"^\| (`OTELCOL_[^|]*) \|", (ROOT / "docs" / "collector.md").read_text(), re.MULTILINE
    ):
        first, *rest = re.findall(r"`(\w+)`", cell)
        documented |= {first, *(name for name in rest if name.startswith("OTELCOL"))}
        for suffix in (name for name in rest if name.startswith("_")):
            possible = {first[: match.start()] + suffix for match in re.finditer("_", first)}
            assert possible & used, f"{suffix} beside {first} is no variable"
            documented |= possible & used
    assert documented == used


def test_a_router_without_a_place_for_the_rest_is_not_valid(tmp_path: Path) -> None:
    """A pipeline mistyped, or taken away: records without a log of their own would have nowhere to go."""
    mistyped = tmp_path / "mistyped.yaml"
    mistyped.write_text("connectors: {audit_router: {otherwise: logs/othre}}")
    status, output = validate(["config.yaml", str(mistyped)], {"OTELCOL_AUDIT_TOKEN": TOKEN})
    assert status != 0
    assert "logs/othre" in output


@pytest.mark.parametrize("configs", COMBINATIONS, ids="+".join)
def test_audit_is_given_up_nowhere(configs: list[str], tls: dict[str, str]) -> None:
    """Whatever exports audit records queues on disk, blocks instead of dropping, and tries for ever."""
    done = subprocess.run(
        [
            binary(),
            "print-config",
            "--mode=unredacted",
            *(f"--config={COLLECTOR / each}" for each in configs),
        ],
        env=clean_environment() | {"OTELCOL_AUDIT_TOKEN": TOKEN} | AGENT | tls,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["extensions"]["file_storage/queue"]["fsync"] is True
    exporters = set()
    for pipeline in config["service"]["pipelines"].values():
        if set(pipeline["receivers"]) & {"otlp/audit", "otlp/mirror", "audit_router"}:
            assert not pipeline.get("processors")
            exporters |= set(pipeline["exporters"])
    assert len(exporters) >= (1 if "profiles/agent.yaml" in configs else 4)
    # The file has no queue, there is one in front of it; the router keeps nothing.
    for name in exporters - {"file/mirror", "audit_router"}:
        queue, retry = (config["exporters"][name][part] for part in ("sending_queue", "retry_on_failure"))
        assert queue["storage"] == "file_storage/queue", name
        assert queue["block_on_overflow"] is True, name
        assert (retry["enabled"], retry["max_elapsed_time"]) == (True, "0s"), name
