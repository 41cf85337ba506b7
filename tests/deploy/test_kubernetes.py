"""No cluster runs here: what `kubectl kustomize` gives is checked against Kubernetes's schemas.

KEDA's kinds have no schema in that collection; their fields are compared with the queue's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from joker.settings import Settings
from tests.deploy.dockerfile import STAGES

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
FOLDER = DEPLOY / "kubernetes"
KUBERNETES = "1.34"
Resource = dict[str, Any]


@pytest.fixture(scope="module")
def resources() -> dict[str, Resource]:
    """Return what would be applied, by kind and name."""
    if shutil.which("kubectl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("kubectl is not installed")
    build = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    made = [resource for resource in yaml.safe_load_all(build.stdout) if resource]
    return {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in made}


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


def test_resources_keep_the_published_schemas(resources: dict[str, Resource]) -> None:
    for resource in resources.values():
        if not resource["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_an_unknown_field_is_found(resources: dict[str, Resource]) -> None:
    broken = json.loads(json.dumps(resources["Deployment/web"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readyProbe"):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_pods_keep_the_restricted_standard(resources: dict[str, Resource]) -> None:
    for pod in pods(resources).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
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
            assert name == "redis" or name.removeprefix("joker-") in STAGES


def test_secrets_are_mounted_where_the_application_looks_and_nowhere_written(
    resources: dict[str, Resource],
) -> None:
    settings = resources["ConfigMap/settings"]["data"]
    for pod in pods(resources).values():
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
        assert settings["JOKER_SECRETS_DIR"] in [mount["mountPath"] for mount in mounts]
    assert of_kind(resources, "Secret") == []
    assert "@" not in settings["JOKER_BROKER"]


def test_names_inside_refer_to_what_is_there(resources: dict[str, Resource]) -> None:
    for pod in pods(resources).values():
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert f"ConfigMap/{volume['configMap']['name']}" in resources
            if "secret" in volume:
                assert volume["secret"]["secretName"] == "redis"
    for scaler in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject"):
        assert f"Deployment/{scaler['spec']['scaleTargetRef']['name']}" in resources
    for service in of_kind(resources, "Service"):
        assert service["spec"]["selector"]["app"] in pods(resources)
    address = resources["ConfigMap/settings"]["data"]["JOKER_BROKER"]
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
    kept = re.findall(r"^--   (joker:\w+) ", script.read_text(encoding="utf-8"), re.MULTILINE)
    spec = resources["ScaledObject/worker"]["spec"]
    for trigger in spec["triggers"]:
        assert trigger["type"] == "redis"
        assert trigger["metadata"]["listName"] in kept
        assert trigger["metadata"]["address"] == "redis.joker.svc:6379"
        assert f"TriggerAuthentication/{trigger['authenticationRef']['name']}" in resources
    threads = Settings.model_fields["workers"].default
    lengths = {t["metadata"]["listName"]: t["metadata"]["listLength"] for t in spec["triggers"]}
    assert int(lengths["joker:running"]) < threads, "else full workers would not ask for others"


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
