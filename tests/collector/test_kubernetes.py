"""The Kubernetes manifests: what kustomize builds of each overlay, decoded strictly as the API would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector import certificates
from tests.collector.deploying import Refused, read, unknown_variables, validate
from tests.collector.running import COLLECTOR

KUBERNETES = COLLECTOR / "kubernetes"
OVERLAYS = {
    "small": {"StatefulSet/otelcol-audit-gateway", "StatefulSet/otel-audit-store"},
    "cluster": {
        "StatefulSet/otelcol-audit-gateway",
        "DaemonSet/otelcol-audit-agent",
        "Job/otel-audit-migrate",
    },
}
SECRETS = {
    "otelcol-audit": {"audit-token", "gateway-token"},
    "otel-audit-store": {"user", "password"},
    "otel-audit-migrator": {"user", "password"},
    "otelcol-audit-gateway-tls": {"tls.crt", "tls.key"},
}
"""Made by whoever deploys, as docs/deploy.md says (test_deploy_page.py); none is in the repository."""

Object = dict[str, Any]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Object]]:
    return request.param, read("kubernetes", KUBERNETES / "overlays" / request.param)


@pytest.fixture
def objects(overlay: tuple[str, list[Object]]) -> list[Object]:
    return overlay[1]


def of(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def workloads(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Return each object that makes pods, and what its pods are."""
    for each in objects:
        if each["kind"] in ("StatefulSet", "DaemonSet", "Job", "Deployment"):
            yield each, each["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Return each main container: the name of what it belongs to, its pod, itself."""
    for workload, pod in workloads(objects):
        for container in pod["containers"]:
            yield workload["metadata"]["name"], pod, container


def collectors(objects: list[Object]) -> list[tuple[str, Object, Object]]:
    return [each for each in containers(objects) if each[2]["name"] == "otelcol-audit"]


def find(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (each for each in of(objects, kind) if each["metadata"]["name"] == name)
    return found


def test_each_overlay_has_its_workloads(overlay: tuple[str, list[Object]]) -> None:
    name, objects = overlay
    assert {f"{each['kind']}/{each['metadata']['name']}" for each, _ in workloads(objects)} == OVERLAYS[name]
    spaces = {each["metadata"]["name"] for each in of(objects, "Namespace")}
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == spaces


def test_a_field_the_api_does_not_know_is_found(tmp_path: Path) -> None:
    """The check checks: a misspelt field would otherwise be dropped by the server, with a warning at best."""
    (tmp_path / "kustomization.yaml").write_text("resources: [service.yaml]\n")
    service = (KUBERNETES / "base" / "agent" / "service.yaml").read_text()
    (tmp_path / "service.yaml").write_text(service)
    assert read("kubernetes", tmp_path)
    (tmp_path / "service.yaml").write_text(service.replace("internalTrafficPolicy", "internalTraficPolicy"))
    with pytest.raises(Refused, match="internalTraficPolicy"):
        read("kubernetes", tmp_path)


def test_every_pod_is_confined(objects: list[Object]) -> None:
    """As the Pod Security Standard `restricted` asks, and read-only beside."""
    for workload, pod in workloads(objects):
        name = workload["metadata"]["name"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            confined = container["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False, name
            assert confined["readOnlyRootFilesystem"] is True, name
            assert confined["capabilities"]["drop"] == ["ALL"], name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


def test_root_does_one_thing_on_nodes_and_nothing_elsewhere(overlay: tuple[str, list[Object]]) -> None:
    """A directory of the node belongs to root: a container owns it over before the agent starts."""
    name, objects = overlay
    root = [
        (workload["metadata"]["name"], container["command"], container["securityContext"]["capabilities"])
        for workload, pod in workloads(objects)
        for container in [*pod["containers"], *pod.get("initContainers", [])]
        if container["securityContext"].get("runAsUser") == 0
    ]
    assert [each[0] for each in root] == (["otelcol-audit-agent"] if name == "cluster" else [])
    for _, command, capabilities in root:
        assert command[0] == "chown"
        assert capabilities["add"] == ["CHOWN"]
    for workload, pod in workloads(objects):
        uses = [each for each in pod["volumes"] if "hostPath" in each]
        assert not uses or workload["kind"] == "DaemonSet"


def test_namespaces_enforce_what_their_pods_need(objects: list[Object]) -> None:
    for space in of(objects, "Namespace"):
        enforced = space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        inside = [
            (workload, pod)
            for workload, pod in workloads(objects)
            if workload["metadata"]["namespace"] == space["metadata"]["name"]
        ]
        host = any("hostPath" in volume for _, pod in inside for volume in pod["volumes"])
        assert enforced == ("privileged" if host else "restricted")


def test_what_was_accepted_is_on_a_volume_that_outlives_the_pod(objects: list[Object]) -> None:
    """Each has its own, and it stays when the StatefulSet is deleted or made smaller."""
    state = "/var/lib/otelcol-audit"
    wanted = {
        name: {state} if name == "otelcol-audit-agent" else {f"{state}/queue"}
        for name, _, _ in collectors(objects)
    }
    for name, _, container in collectors(objects):
        if name == "otelcol-audit-gateway" and any("mirror.yaml" in each for each in container["args"]):
            wanted[name].add(f"{state}/mirror")
    wanted["otel-audit-store"] = {"/var/lib/otel-audit"}
    for workload, pod in workloads(objects):
        name = workload["metadata"]["name"]
        if name not in wanted:
            continue
        spec = workload["spec"]
        lasting = {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])}
        lasting |= {each["name"] for each in pod["volumes"] if "hostPath" in each}
        (container,) = pod["containers"]
        mounted = {each["mountPath"] for each in container["volumeMounts"] if each["name"] in lasting}
        assert mounted == wanted[name]
        if workload["kind"] == "StatefulSet":
            assert spec["persistentVolumeClaimRetentionPolicy"] == {
                "whenDeleted": "Retain",
                "whenScaled": "Retain",
            }
            for claim in spec["volumeClaimTemplates"]:
                assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
            assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def claimed(objects: list[Object], workload: str, volume: str) -> int:
    """Return the bytes a StatefulSet asks for; 0 if it has no such volume."""
    sizes = [
        claim["spec"]["resources"]["requests"]["storage"]
        for each in of(objects, "StatefulSet")
        if each["metadata"]["name"] == workload
        for claim in each["spec"]["volumeClaimTemplates"]
        if claim["metadata"]["name"] == volume
    ]
    return sum(int(size.removesuffix("Gi")) * 2**30 for size in sizes)


def test_the_mirror_cannot_fill_its_volume(objects: list[Object]) -> None:
    """Where there is one, it keeps fewer files than there is room for."""
    for name, _, container in collectors(objects):
        given = {each["name"]: each.get("value") for each in container["env"]}
        mirrors = any("mirror.yaml" in argument for argument in container["args"])
        assert ("OTELCOL_MIRROR_FILES" in given) is mirrors, name
        if mirrors and name == "otelcol-audit-gateway":
            kept = int(given["OTELCOL_MIRROR_FILES"]) * int(given.get("OTELCOL_MIRROR_MEGABYTES") or 100)
            assert kept * 2**20 < claimed(objects, name, "mirror")


def test_full_queues_fit_into_their_volume(objects: list[Object]) -> None:
    """With records as docs/collector.md measured them, and room to compact the largest queue."""
    (name, _, container), *_ = [each for each in collectors(objects) if each[0] == "otelcol-audit-gateway"]
    profiles = {Path(argument).name for argument in container["args"]}
    sizes = [
        int(records)
        for profile in ("config.yaml", "gateway.yaml")
        if profile in profiles
        for path in [COLLECTOR / profile, COLLECTOR / "profiles" / profile]
        if path.exists()
        for records in re.findall(r"OTELCOL_QUEUE_RECORDS:-(\d+)", path.read_text())
    ]
    queues = 4 + ("mirror.yaml" in profiles) + 1
    assert queues * max(sizes) * 1253 < claimed(objects, name, "queue")


def test_probes_ask_ports_that_listen(objects: list[Object]) -> None:
    for name, _, container in containers(objects):
        if name == "otel-audit-migrate":
            continue
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            expected = 13133 if container["name"] == "otelcol-audit" else 4318
            assert ports[asked["port"]] == expected, name


def test_services_lead_to_pods_and_ports_that_are_there(objects: list[Object]) -> None:
    pods = [(workload["spec"]["template"]["metadata"]["labels"], pod) for workload, pod in workloads(objects)]
    for service in of(objects, "Service"):
        selector = service["spec"]["selector"].items()
        (selected,) = [pod for labels, pod in pods if selector <= labels.items()]
        ports = {port["name"] for container in selected["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for workload in of(objects, "StatefulSet"):
        governing = find(objects, "Service", workload["spec"]["serviceName"])
        assert governing["spec"]["clusterIP"] == "None"


def test_gateways_go_one_at_a_time(objects: list[Object]) -> None:
    (budget,) = of(objects, "PodDisruptionBudget")
    gateway = find(objects, "StatefulSet", "otelcol-audit-gateway")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == gateway["spec"]["selector"]
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_three_gateways_are_on_three_nodes() -> None:
    gateway = find(
        read("kubernetes", KUBERNETES / "overlays" / "cluster"), "StatefulSet", "otelcol-audit-gateway"
    )
    assert gateway["spec"]["replicas"] == 3
    spread = gateway["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in spread} == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }


def reached(policy: Object, direction: str) -> set[int | str]:
    return {port["port"] for rule in policy["spec"].get(direction, []) for port in rule["ports"]}


def test_every_pod_that_stays_has_a_policy_for_both_directions(objects: list[Object]) -> None:
    policies = of(objects, "NetworkPolicy")
    for workload, _ in workloads(objects):
        if workload["kind"] == "Job":
            continue
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        matching = [each for each in policies if each["spec"]["podSelector"]["matchLabels"].items() <= labels]
        assert len(matching) == 1, workload["metadata"]["name"]
        assert set(matching[0]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    for policy in policies:
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "anybody may"
            assert all(each.get("podSelector", {}).get("matchLabels") for each in rule["from"])
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], "anywhere"


def test_a_gateway_reaches_names_and_the_store_only(overlay: tuple[str, list[Object]]) -> None:
    name, objects = overlay
    gateway = find(objects, "NetworkPolicy", "otelcol-audit-gateway")
    assert reached(gateway, "egress") == {53, 8123}
    if name == "small":
        store = find(objects, "NetworkPolicy", "otel-audit-store")
        assert reached(store, "ingress") == {"queries"}
        assert reached(store, "egress") == set()
        return
    senders = [
        each
        for rule in gateway["spec"]["ingress"]
        for each in rule["from"]
        if "audit" in {port["port"] for port in rule["ports"]}
    ]
    assert [each["podSelector"]["matchLabels"] for each in senders] == [
        {"app.kubernetes.io/name": "otelcol-audit-agent"}
    ]
    assert reached(find(objects, "NetworkPolicy", "otelcol-audit-agent"), "egress") == {53, 4328, 4318}


def test_labels_policies_ask_of_agents_are_those_they_carry() -> None:
    objects = read("kubernetes", KUBERNETES / "overlays" / "cluster")
    agent = find(objects, "DaemonSet", "otelcol-audit-agent")
    labels = agent["spec"]["template"]["metadata"]["labels"]
    policy = find(objects, "NetworkPolicy", "otelcol-audit-gateway")
    peers = [each for rule in policy["spec"]["ingress"] for each in rule["from"]]
    spaces = {each["metadata"]["name"] for each in of(objects, "Namespace")}
    mine = [each for each in peers if each["podSelector"]["matchLabels"].items() <= labels.items()]
    assert mine
    for each in mine:
        assert each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] in spaces


def test_the_configuration_is_the_repositorys_own(objects: list[Object]) -> None:
    """Not a copy that could differ: the ConfigMap's files are those of collector/, byte for byte."""
    for name, pod, container in collectors(objects):
        (volume,) = [each for each in pod["volumes"] if each["name"] == "config"]
        data = find(objects, "ConfigMap", volume["configMap"]["name"])["data"]
        assert re.fullmatch(rf"{name}-\w+", volume["configMap"]["name"]), "a change would not replace pods"
        for file, content in data.items():
            source = COLLECTOR / file if file == "config.yaml" else COLLECTOR / "profiles" / file
            assert content == source.read_text(), file
        mount = next(each["mountPath"] for each in container["volumeMounts"] if each["name"] == "config")
        for argument in container["args"]:
            assert Path(argument.removeprefix("--config=")).name in data
            assert Path(argument.removeprefix("--config=")).parent == Path(mount)


def test_each_role_runs_its_profiles(overlay: tuple[str, list[Object]]) -> None:
    name, objects = overlay
    run = {
        each: [Path(argument).name for argument in container["args"]]
        for each, _, container in collectors(objects)
    }
    if name == "small":
        assert run == {"otelcol-audit-gateway": ["config.yaml", "mirror.yaml"]}
    else:
        assert run == {
            "otelcol-audit-gateway": ["config.yaml", "tls.yaml", "gateway.yaml"],
            "otelcol-audit-agent": ["agent.yaml", "mirror.yaml"],
        }


def test_the_collectors_take_their_arguments(objects: list[Object], tmp_path: Path) -> None:
    """The real binary, with the manifest's environment and files for what secrets and volumes would give."""
    made = certificates.make(tmp_path)
    files = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": made.authority}
    for _, pod, container in collectors(objects):
        (volume,) = [each for each in pod["volumes"] if each["name"] == "config"]
        configs = {}
        for file, content in find(objects, "ConfigMap", volume["configMap"]["name"])["data"].items():
            (tmp_path / file).write_text(content)
            configs[f"/etc/otelcol-audit/{file}"] = tmp_path / file
        environment = {each["name"]: each.get("value") or "from-a-secret" for each in container["env"]}
        for name, value in environment.items():
            if name.endswith("_FILE"):
                environment[name] = str(files[Path(value).name])
        validate(container["args"], configs, environment)


def test_memory_is_bounded_below_what_the_pod_may_use(objects: list[Object]) -> None:
    for name, _, container in collectors(objects):
        given = {each["name"]: each.get("value") for each in container["env"]}
        assert given["GOGC"] == "200", name
        unit = {"Mi": 2**20, "Gi": 2**30}
        limit = container["resources"]["limits"]["memory"]
        allowed = int(limit[:-2]) * unit[limit[-2:]]
        assert int(given["GOMEMLIMIT"].removesuffix("MiB")) * 2**20 < allowed, name


def test_variables_are_ones_that_are_read(objects: list[Object]) -> None:
    for name, _, container in containers(objects):
        assert not unknown_variables({each["name"] for each in container["env"]}), name


def test_secrets_are_referred_to_and_never_there(objects: list[Object]) -> None:
    """Nor a value that looks like one: tokens and passwords come by reference only."""
    assert not of(objects, "Secret")
    for _, pod in workloads(objects):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            for variable in container.get("env", []):
                if re.search(r"TOKEN|PASSWORD|_USER$", variable["name"]):
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in SECRETS[reference["name"]]
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] in SECRETS


def test_agents_and_gateways_share_a_token_no_application_has() -> None:
    """A token taken from an application opens the agent of its node, not the gateways."""
    shown = {
        name: {
            each["name"]: each["valueFrom"]["secretKeyRef"]["key"]
            for each in container["env"]
            if "valueFrom" in each
        }
        for name, _, container in collectors(read("kubernetes", KUBERNETES / "overlays" / "cluster"))
    }
    assert shown["otelcol-audit-agent"]["OTELCOL_GATEWAY_TOKEN"] == "gateway-token"
    assert shown["otelcol-audit-gateway"]["OTELCOL_AUDIT_TOKEN"] == "gateway-token"
    assert shown["otelcol-audit-agent"]["OTELCOL_AUDIT_TOKEN"] == "audit-token"


def test_the_clusters_tables_are_made_on_the_store_that_is_written_to() -> None:
    objects = read("kubernetes", KUBERNETES / "overlays" / "cluster")
    urls = {
        each["value"]
        for _, _, container in containers(objects)
        for each in container["env"]
        if each["name"] in ("OTELCOL_STORE_URL", "OTEL_AUDIT_STORE_URL")
    }
    assert len(urls) == 1


def test_images_that_are_not_ours_are_pinned_to_a_release(objects: list[Object]) -> None:
    for _, pod in workloads(objects):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            ours = container["image"].split(":")[0] in ("otelcol-audit", "otel-audit")
            assert ours or re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+", container["image"])
