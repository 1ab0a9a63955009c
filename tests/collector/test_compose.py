"""The Compose file: either store, hardened services, no secret that was not set, what lasts in volumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.collector.deploying import Refused, read, unknown_variables, validate
from tests.collector.running import COLLECTOR
from tests.e2e.running import ROOT

FILE = COLLECTOR / "compose" / "compose.yaml"
SECRETS = {
    "OTELCOL_AUDIT_TOKEN": "audit-token-of-a-test",
    "STORE_PASSWORD": "store-password-of-a-test",
    "SHOP_SECRET_KEY": "key-of-a-test",
    "GRAFANA_ADMIN_PASSWORD": "admin-of-a-test",
}
LASTING = {
    "shop": "/var/lib/shop",
    "collector": "/var/lib/otelcol-audit",
    "embedded": "/var/lib/otel-audit",
    "clickhouse": "/var/lib/clickhouse",
    "prometheus": "/prometheus",
    "grafana": "/var/lib/grafana",
}
"""Where what must outlive a container lies."""


def load(*profiles: str, **environment: str) -> dict[str, Any]:
    project = read("compose", FILE, *profiles, environment=SECRETS | environment)
    assert isinstance(project, dict)
    return project


@pytest.fixture(params=["embedded", "clickhouse"])
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


@pytest.fixture
def services(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project["services"]
    return found


def test_each_profile_has_one_store_and_the_rest() -> None:
    """The schema of the Compose specification was asked by the loader."""
    common = {"shop", "shop-setup", "collector", "prometheus", "grafana"}
    assert set(load("embedded")["services"]) == common | {"embedded"}
    assert set(load("clickhouse")["services"]) == common | {"clickhouse", "migrate"}


def test_both_stores_answer_to_the_name_that_is_asked(services: dict[str, dict[str, Any]]) -> None:
    stores = [
        each
        for each in services.values()
        if "store" in (each["networks"].get("back") or {}).get("aliases", [])
    ]
    assert len(stores) == 1


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_not_set_stops_everything_and_is_named(name: str) -> None:
    """Unset or empty: there is no default to forget."""
    for environment in ({key: value for key, value in SECRETS.items() if key != name}, SECRETS | {name: ""}):
        with pytest.raises(
            Refused, match=rf"required variable {name} is missing a value: set {name} in \.env"
        ):
            read("compose", FILE, "embedded", environment=environment)


def test_no_secret_has_a_default_anywhere() -> None:
    """But another one that must be set."""
    defaults = re.findall(r"\$\{(\w*(?:TOKEN|PASSWORD|SECRET)\w*):?-(.{0,2})", FILE.read_text())
    assert defaults
    assert {default for _, default in defaults} == {"${"}


def test_the_example_names_what_must_be_set_and_sets_none_of_it() -> None:
    lines = (FILE.parent / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert {name for name, value in given.items() if not value} == set(SECRETS)
    assert given.pop("COMPOSE_PROFILES") in ("embedded", "clickhouse")
    named = set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert set(re.findall(r"^#?(\w+)=", "\n".join(lines), re.MULTILINE)) - {"COMPOSE_PROFILES"} <= named


def test_env_files_are_never_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_service_is_hardened(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("cap_add"), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert service["restart"] != "always", name
        assert service["tmpfs"], name
        if "build" not in service:  # ours name their user in the container file
            assert int(service["user"].split(":")[0]) > 0, name
        for mount in service.get("volumes", []):
            assert mount["type"] == "volume" or mount["read_only"] is True, name
            assert "docker.sock" not in mount["source"], name


def test_what_lasts_is_in_a_volume_of_its_own(project: dict[str, Any]) -> None:
    """Queue and mirror of the Collector, the shop's spool beside its database, the store's data."""
    seen: dict[str, str] = {}
    for name, service in project["services"].items():
        volumes = {
            each["target"]: each["source"] for each in service.get("volumes", []) if each["type"] == "volume"
        }
        if name in LASTING:
            assert set(volumes) == {LASTING[name]}, name
            (seen[name],) = volumes.values()
    assert len(set(seen.values())) == len(seen)
    assert set(seen.values()) <= set(project["volumes"])


def test_nothing_is_reached_from_other_machines(services: dict[str, dict[str, Any]]) -> None:
    """And the store from no port at all: its network has no way out."""
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"shop", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    for name in {"embedded", "clickhouse", "migrate"} & set(services):
        assert set(services[name]["networks"]) == {"back"}
    assert load("embedded")["networks"]["back"]["internal"] is True


def test_nobody_waits_for_the_collector_or_the_store_to_record(services: dict[str, dict[str, Any]]) -> None:
    """The shop works without the Collector, the Collector without the store: spool and queue are for that."""
    assert set(services["shop"]["depends_on"]) == {"shop-setup"}
    assert not services["collector"].get("depends_on")


def test_who_waits_for_health_waits_for_something_that_tells_it(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, how in (service.get("depends_on") or {}).items():
            if other not in services or how["condition"] != "service_healthy":
                continue
            told = services[other].get("healthcheck") or "build" in services[other]
            assert told, f"{name} waits for {other}, which has no health check"


def test_the_secrets_are_those_the_other_side_asks_for(services: dict[str, dict[str, Any]]) -> None:
    assert services["shop"]["environment"]["OTEL_AUDIT_SINK_TOKEN"] == SECRETS["OTELCOL_AUDIT_TOKEN"]
    assert services["collector"]["environment"]["OTELCOL_AUDIT_TOKEN"] == SECRETS["OTELCOL_AUDIT_TOKEN"]
    store = services.get("embedded") or services["clickhouse"]
    asked = {store["environment"].get(name) for name in ("OTEL_AUDIT_SERVER_TOKEN", "CLICKHOUSE_PASSWORD")}
    assert asked - {None} == {SECRETS["STORE_PASSWORD"]}
    assert services["collector"]["environment"]["OTELCOL_STORE_PASSWORD"] == SECRETS["STORE_PASSWORD"]
    assert services["grafana"]["environment"]["GRAFANA_STORE_PASSWORD"] == SECRETS["STORE_PASSWORD"]


def test_variables_are_ones_that_are_read(services: dict[str, dict[str, Any]]) -> None:
    """By the Collector's files, by otel-audit's settings, by the shop, by Grafana's data sources."""
    grafana = (COLLECTOR / "grafana" / "provisioning" / "datasources" / "otel-audit.yaml").read_text()
    shop = (ROOT / "examples" / "shop" / "shop" / "settings.py").read_text()
    for service in services.values():
        names = set(service.get("environment") or {})
        assert not unknown_variables(names)
        assert all(f"${name}" in grafana for name in names if name.startswith("GRAFANA_"))
        assert all(f'"{name}"' in shop for name in names if name.startswith("SHOP_"))
    named = set(re.findall(r"\$(GRAFANA_\w+)", grafana))
    assert named <= set(services["grafana"]["environment"])


def test_the_collector_takes_its_arguments(services: dict[str, dict[str, Any]]) -> None:
    """The real binary, with the files as the image has them and the environment of the service."""
    service = services["collector"]
    image = Path("/etc/otelcol-audit")  # as collector.Dockerfile copies them
    files = {str(image / path.relative_to(COLLECTOR)): path for path in COLLECTOR.glob("profiles/*.yaml")}
    files[str(image / "config.yaml")] = COLLECTOR / "config.yaml"
    validate(service["command"], files, service["environment"])
    assert service["environment"]["GOGC"] == "200"
    assert service["environment"]["GOMEMLIMIT"].endswith("MiB")
    limit = int(service["environment"]["GOMEMLIMIT"].removesuffix("MiB")) * 2**20
    assert limit < int(service["mem_limit"])


def test_addresses_name_services_and_ports_that_listen(services: dict[str, dict[str, Any]]) -> None:
    listening = {("collector", 4328), ("collector", 4318), ("store", 8123), ("prometheus", 9090)}
    for name, service in services.items():
        for value in (service.get("environment") or {}).values():
            for host, port in re.findall(r"https?://([\w.-]+):(\d+)", value or ""):
                assert (host, int(port)) in listening, name
    scraped = yaml.safe_load((FILE.parent / "prometheus.yaml").read_text())["scrape_configs"]
    assert [job["static_configs"][0]["targets"] for job in scraped] == [["collector:8888"]]


def test_images_that_are_not_ours_are_pinned_to_a_release(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", service["image"]), name
        else:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name


def test_files_that_are_mounted_are_there(services: dict[str, dict[str, Any]]) -> None:
    bound = {
        Path(mount["source"])
        for each in services.values()
        for mount in each.get("volumes", [])
        if mount["type"] == "bind"
    }
    assert not [path for path in bound if not path.exists()]
