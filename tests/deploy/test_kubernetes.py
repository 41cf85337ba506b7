"""No cluster runs here: what `kubectl kustomize` gives is checked against Kubernetes's schemas.

KEDA, the Prometheus operator and the Gateway API have no schemas in that collection; what their
resources refer to is compared with the rest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from joker.generation.request import GenerationRequest
from joker.jobs.queue import MAX_RUNNING_TOKENS
from joker.settings import Settings
from tests.deploy.dockerfile import STAGES

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
FOLDER = DEPLOY / "kubernetes"
EXAMPLES = [DEPLOY / "kubernetes-example", DEPLOY / "kubernetes-example-managed"]
COMPONENTS = sorted(path.parent for path in FOLDER.glob("*/kustomization.yaml"))
KUBERNETES = "1.34"
Resource = dict[str, Any]


def build_resources(folder: Path) -> dict[str, Resource]:
    """Return what would be applied, by kind and name."""
    if shutil.which("kubectl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("kubectl is not installed")
    build = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    made = [resource for resource in yaml.safe_load_all(build.stdout) if resource]
    return {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in made}


@pytest.fixture(scope="module")
def resources() -> dict[str, Resource]:
    """Return what would be applied without any component."""
    return build_resources(FOLDER)


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: str(path.name))
def example(request: pytest.FixtureRequest) -> dict[str, Resource]:
    """Return what would be applied with most components, in a namespace of its own."""
    return build_resources(request.param)


def build_overlay(overlay: Path, *components: Path) -> dict[str, Resource]:
    """Return what would be applied with components, in a namespace of its own."""
    text = {
        "namespace": "elsewhere",
        "resources": [os.path.relpath(FOLDER, overlay)],
        "components": [os.path.relpath(path, overlay) for path in components],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return build_resources(overlay)


@pytest.fixture(scope="module", params=COMPONENTS, ids=lambda path: str(path.name))
def component(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Resource]:
    """Return what would be applied with one component."""
    return build_overlay(tmp_path_factory.mktemp("overlay"), request.param)


def find_settings(resources: dict[str, Resource]) -> dict[str, str]:
    """Return the settings of servers and workers."""
    (name,) = [name for name in resources if name.startswith("ConfigMap/settings-")]
    data: dict[str, str] = resources[name]["data"]
    return data


def of_kind(resources: dict[str, Resource], *kinds: str) -> list[Resource]:
    return [resource for resource in resources.values() if resource["kind"] in kinds]


def pods(resources: dict[str, Resource]) -> dict[str, Resource]:
    return {
        resource["metadata"]["name"]: resource["spec"]["template"]["spec"]
        for resource in of_kind(resources, "Deployment", "StatefulSet")
    }


def probes(container: Resource) -> list[Resource]:
    names = ("startupProbe", "livenessProbe", "readinessProbe")
    return [container[name] for name in names if name in container]


def test_every_file_is_a_resource_and_every_resource_has_its_namespace(
    resources: dict[str, Resource],
) -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed["resources"]) == files
    others = [resource for resource in resources.values() if resource["kind"] != "Namespace"]
    assert {resource["metadata"]["namespace"] for resource in others} == {"joker"}


WITHOUT_SCHEMA = ("keda.sh/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


def test_resources_keep_the_published_schemas(
    resources: dict[str, Resource], component: dict[str, Resource]
) -> None:
    for resource in (*resources.values(), *component.values()):
        if not resource["apiVersion"].startswith(WITHOUT_SCHEMA):
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_an_overlay_stays_in_its_namespace(component: dict[str, Resource]) -> None:
    """KEDA runs in another one: an address without its namespace would be that of its own."""
    namespace = component["Namespace/elsewhere"]
    others = [resource for resource in component.values() if resource is not namespace]
    assert {resource["metadata"]["namespace"] for resource in others} == {"elsewhere"}
    assert not re.search(r"\bjoker\.svc\b", json.dumps(component))
    triggers = component["ScaledObject/worker"]["spec"]["triggers"]
    assert not any("address" in trigger["metadata"] for trigger in triggers)


def test_the_examples_use_every_component(example: dict[str, Resource]) -> None:
    named = set()
    for folder in EXAMPLES:
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        named |= {Path(os.path.normpath(folder / path)) for path in listed["components"]}
    assert named == set(COMPONENTS)
    assert example["Deployment/web"]["spec"]["template"]["spec"]["containers"][0]["image"] == (
        "registry.example.com/joker-web-maintained:1"
    )


def test_components_may_be_listed_in_any_order(tmp_path: Path) -> None:
    """What one deletes, another must not change or refer to."""
    together = [path for path in COMPONENTS if path.name not in ("gateway", "redis-exporter")]
    first, second = (build_overlay(tmp_path, *paths) for paths in (together, together[::-1]))
    assert first.keys() == second.keys()
    for policy in of_kind(first, "NetworkPolicy", "PodMonitor"):
        selector = policy["spec"].get("podSelector") or policy["spec"].get("selector")
        if selector and "matchLabels" in selector:
            assert selector["matchLabels"]["app"] in {"web", "worker"}


def test_an_edited_setting_rolls_out(
    resources: dict[str, Resource], example: dict[str, Resource]
) -> None:
    names: list[str] = []
    for made in (resources, example):
        used = {
            source["configMapRef"]["name"]
            for pod in (pods(made)["web"], pods(made)["worker"])
            for source in pod["containers"][0]["envFrom"]
        }
        assert len(used) == 1
        assert f"ConfigMap/{min(used)}" in made
        names += used
    assert names[0] != names[1]


def test_only_a_named_network_is_believed_about_addresses(
    resources: dict[str, Resource], example: dict[str, Resource]
) -> None:
    assert find_settings(resources)["FORWARDED_ALLOW_IPS"] == "127.0.0.1"
    # Not that of all pods or of all on a node, which are /24 and wider.
    assert ip_network(find_settings(example)["FORWARDED_ALLOW_IPS"]).prefixlen > 24


@pytest.mark.parametrize("kind", ["Ingress", "Gateway"])
def test_the_way_in_has_tls_a_class_and_the_service(kind: str, tmp_path: Path) -> None:
    folder = FOLDER / kind.lower()
    (file,) = [path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"]
    made = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    way_in, *_, policy = made
    assert (way_in["kind"], policy["kind"]) == (kind, "NetworkPolicy")
    spec = way_in["spec"]
    assert spec.get("ingressClassName") or spec["gatewayClassName"]
    if kind == "Ingress":
        assert spec["tls"][0]["hosts"] == [rule["host"] for rule in spec["rules"]]
        assert spec["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == "web"
    else:
        assert spec["listeners"][0]["tls"]["certificateRefs"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app": "web"}


def test_nothing_is_served_without_tls(tmp_path: Path) -> None:
    made = build_overlay(tmp_path, FOLDER / "gateway", FOLDER / "ingress")
    listeners = made["Gateway/web"]["spec"]["listeners"]
    assert {each["name"]: each["protocol"] for each in listeners} == {
        "https": "HTTPS",
        "http": "HTTP",
    }
    rules: dict[str, Resource] = {}
    for route in of_kind(made, "HTTPRoute"):
        (parent,) = route["spec"]["parentRefs"]
        assert parent["name"] == "web"
        assert route["spec"]["hostnames"] == [each["hostname"] for each in listeners[:1]]
        (rules[parent["sectionName"]],) = route["spec"]["rules"]
    assert rules["https"]["backendRefs"] == [{"name": "web", "port": 80}]
    assert rules["http"] == {
        "filters": [
            {
                "type": "RequestRedirect",
                "requestRedirect": {"scheme": "https", "statusCode": 301},
            }
        ]
    }
    annotations = made["Ingress/web"]["metadata"]["annotations"]
    assert annotations["traefik.ingress.kubernetes.io/router.entrypoints"] == "websecure"


def test_names_are_resolved_through_the_cache_of_the_node_too(
    resources: dict[str, Resource],
) -> None:
    (rule,) = resources["NetworkPolicy/names"]["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]


def test_monitors_find_ports_that_pods_have(example: dict[str, Resource]) -> None:
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    monitors = of_kind(example, "PodMonitor")
    jobs = {m["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"] for m in monitors}
    assert set(re.findall(r'job="([\w-]+)"', alerts)) <= jobs
    for monitor in monitors:
        pod = pods(example)[monitor["spec"]["selector"]["matchLabels"]["app"]]
        ports = {port["name"] for container in pod["containers"] for port in container["ports"]}
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports


def test_alerts_are_those_of_prometheus(example: dict[str, Resource]) -> None:
    """Kustomize has read them as they are meant."""
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    assert example["PrometheusRule/joker"]["spec"] == alerts


def test_secrets_from_files_are_those_that_make_draws(component: dict[str, Resource]) -> None:
    drawn = re.findall(r"\b(?:joker|mlflow|database)_\w+", recipe_of("secrets"))
    for pod in pods(component).values():
        for volume in pod.get("volumes", []):
            if "secret" in volume or "projected" in volume:
                assert set(secret_files(volume)) <= set(drawn)


def recipe_of(target: str) -> str:
    """Return the commands of a target of the Makefile."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return text.partition(f"\n{target}:")[2].partition("\n\n")[0]


def test_the_queue_may_be_as_long_as_the_autoscaler_needs_to_see(
    resources: dict[str, Resource],
) -> None:
    spec = resources["ScaledObject/worker"]["spec"]
    waiting = next(
        trigger["metadata"]
        for trigger in spec["triggers"]
        if trigger["metadata"]["listName"] == "{joker}:waiting"
    )
    most = int(find_settings(resources)["JOKER_MAX_QUEUE_SIZE"])
    assert most >= spec["maxReplicaCount"] * int(waiting["listLength"])


def test_a_managed_redis_replaces_the_one_here(component: dict[str, Resource]) -> None:
    managed = "NetworkPolicy/to-managed-redis" in component
    assert ("StatefulSet/redis" in component) is not managed
    assert ("Service/redis" in component) is not managed
    assert find_settings(component)["JOKER_BROKER"].startswith("rediss" if managed else "redis:")
    for trigger in component["ScaledObject/worker"]["spec"]["triggers"]:
        assert trigger["metadata"].get("enableTLS") == ("true" if managed else None)


def secret_files(volume: Resource) -> list[str]:
    """Return the files of a volume of secrets."""
    sources = volume["projected"]["sources"] if "projected" in volume else [volume]
    return [item["path"] for source in sources for item in source["secret"]["items"]]


def test_web_servers_have_a_store_that_they_can_write(component: dict[str, Resource]) -> None:
    """Their file systems are read-only and not shared, so it is a database."""
    pod = pods(component)["web"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    secrets = mounted[find_settings(component)["JOKER_SECRETS_DIR"]]
    assert "joker_database" in secret_files(secrets)


def test_a_managed_postgres_replaces_the_one_here(component: dict[str, Resource]) -> None:
    managed = "NetworkPolicy/to-managed-postgres" in component
    for name in ("StatefulSet/database", "Service/database", "NetworkPolicy/to-database"):
        assert (name in component) is not managed


def test_workers_reach_a_remote_engine_and_have_its_key(component: dict[str, Resource]) -> None:
    url = find_settings(component).get("JOKER_ENGINE_URL")
    assert ("NetworkPolicy/to-engine" in component) is bool(url)
    if url:
        policy = component["NetworkPolicy/to-engine"]["spec"]
        assert policy["podSelector"] == {"matchLabels": {"app": "worker"}}
        assert policy["egress"][0]["ports"] == [{"port": urlsplit(url).port}]
        (volume,) = [v for v in pods(component)["worker"]["volumes"] if v["name"] == "secrets"]
        assert volume.keys() == {"name", "projected"}
        assert secret_files(volume) == ["joker_broker_password", "joker_engine_api_key"]


@pytest.mark.parametrize("pod_name", ["web", "worker"])
def test_a_model_of_ones_own_is_where_the_setting_says(
    pod_name: str, example: dict[str, Resource]
) -> None:
    pod = pods(example)[pod_name]
    (container,) = pod["containers"]
    folder, name = Path(find_settings(example)["JOKER_MODEL"]).parts[1:]
    assert name == "my-joker"  # which jokes bear
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == f"/{folder}"]
    assert mount["name"] in [volume["name"] for volume in pod["volumes"]]


def test_an_unknown_field_is_found(resources: dict[str, Resource]) -> None:
    broken = json.loads(json.dumps(resources["Deployment/web"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readyProbe"):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_pods_keep_the_restricted_standard(example: dict[str, Resource]) -> None:
    for pod in pods(example).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["runAsGroup"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_images_are_targets_of_the_dockerfile_or_of_one_version(
    resources: dict[str, Resource],
) -> None:
    for pod in pods(resources).values():
        for container in pod["containers"]:
            name, _, tag = container["image"].partition(":")
            assert re.match(r"\d", tag)
            assert name in ("redis", "postgres") or name.removeprefix("joker-") in STAGES


def test_secrets_are_mounted_where_the_application_looks_and_nowhere_written(
    resources: dict[str, Resource],
) -> None:
    settings = find_settings(resources)
    for name, pod in pods(resources).items():
        (container,) = pod["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert name == "database" or settings["JOKER_SECRETS_DIR"] in mounts
    assert of_kind(resources, "Secret") == []
    assert "@" not in settings["JOKER_BROKER"]


def test_names_inside_refer_to_what_is_there(resources: dict[str, Resource]) -> None:
    for pod in pods(resources).values():
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert f"ConfigMap/{volume['configMap']['name']}" in resources
            if "secret" in volume:
                assert volume["secret"]["secretName"] in ("redis", "database")
            for source in volume.get("projected", {}).get("sources", []):
                assert source["secret"]["name"] in ("redis", "database")
    for scaler in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject"):
        assert f"Deployment/{scaler['spec']['scaleTargetRef']['name']}" in resources
    for service in of_kind(resources, "Service"):
        assert service["spec"]["selector"]["app"] in pods(resources)
    address = find_settings(resources)["JOKER_BROKER"]
    assert address == "redis://redis:6379/0"
    assert "Service/redis" in resources


def test_every_application_has_a_budget_for_disruptions(resources: dict[str, Resource]) -> None:
    budgets = of_kind(resources, "PodDisruptionBudget")
    chosen = {budget["spec"]["selector"]["matchLabels"]["app"] for budget in budgets}
    assert chosen == {"web", "worker"}


def test_nothing_is_reached_but_what_a_policy_names(resources: dict[str, Resource]) -> None:
    policies = {
        policy["metadata"]["name"]: policy["spec"] for policy in of_kind(resources, "NetworkPolicy")
    }
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    to_redis = policies["redis"]["ingress"][0]["from"]
    assert to_redis[0]["podSelector"]["matchExpressions"][0]["values"] == ["web", "worker"]
    assert policies["to-redis"]["podSelector"]["matchExpressions"][0]["values"] == ["web", "worker"]


def test_workers_are_scaled_by_sets_that_the_queue_keeps(resources: dict[str, Resource]) -> None:
    script = REPOSITORY / "src" / "joker" / "jobs" / "records.lua"
    kept = re.findall(r"^--   ({joker}:\w+) ", script.read_text(encoding="utf-8"), re.MULTILINE)
    spec = resources["ScaledObject/worker"]["spec"]
    for trigger in spec["triggers"]:
        assert trigger["type"] == "redis"
        assert trigger["metadata"]["listName"] in kept
        authentication = f"TriggerAuthentication/{trigger['authenticationRef']['name']}"
        references = resources[authentication]["spec"]["secretTargetRef"]
        assert {reference["parameter"] for reference in references} == {"address", "password"}
    jobs = MAX_RUNNING_TOKENS // GenerationRequest().tokens
    lengths = {t["metadata"]["listName"]: t["metadata"]["listLength"] for t in spec["triggers"]}
    assert int(lengths["{joker}:running"]) == jobs * 3 // 4


def test_probes_and_stops_fit_the_application(resources: dict[str, Resource]) -> None:
    deadline = Settings.model_fields["deadline_seconds"].default
    spec = pods(resources)
    for name in ("web", "worker"):
        assert spec[name]["terminationGracePeriodSeconds"] > deadline
        assert probes(spec[name]["containers"][0])
    (web,) = spec["web"]["containers"]
    assert {probe["httpGet"]["path"] for probe in probes(web)} == {"/health/live"}
    command = STAGES["web-maintained"].command
    port = command[command.index("--port") + 1]
    assert web["ports"] == [{"containerPort": int(port), "name": "http"}]
    (worker,) = spec["worker"]["containers"]
    heartbeat = next(v["value"] for v in worker["env"] if v["name"] == "JOKER_HEARTBEAT")
    assert all(heartbeat in probe["exec"]["command"][-1] for probe in probes(worker))
