"""deploy/kubernetes: the manifests, checked against Compose, settings and Kubernetes' schemas."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from service.settings import Settings
from worker.rq.monitoring import queue_key
from worker.store.queues import JOB_SIZES, NAMES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
Manifest = dict[str, Any]


def manifests(*kinds: str) -> list[Manifest]:
    """Return the resources of these kinds, by default all."""
    files = [(FOLDER / name).read_text(encoding="utf-8") for name in KUSTOMIZATION["resources"]]
    found = [one for text in files for one in yaml.safe_load_all(text)]
    return [one for one in found if not kinds or one["kind"] in kinds]


RUNNING = manifests("Deployment", "StatefulSet")


def container(manifest: Manifest) -> dict[str, Any]:
    [found] = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


def named(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def settings_of_redis(text: str) -> set[str]:
    """Return the settings that a Redis server reads from standard input."""
    return {line.strip().replace("$$", "$") for line in text.split("SETTINGS")[1].strip().split("\n")}


def test_kustomization_uses_every_file() -> None:
    assert {*KUSTOMIZATION["resources"], "kustomization.yaml"} == {file.name for file in FOLDER.iterdir()}


def test_workloads_are_those_of_compose_with_a_worker_per_job_size() -> None:
    assert {*map(named, RUNNING)} == {"api", "redis-queue", "redis-cache", *(f"worker-{size}" for size in JOB_SIZES)}
    for size in JOB_SIZES:
        [one] = [container(manifest) for manifest in RUNNING if named(manifest) == f"worker-{size}"]
        assert one["args"] == ["cutaway", "worker", size]
        assert one["livenessProbe"]["exec"]["command"] == ["python", "-m", "worker.alive", size]


@pytest.mark.parametrize("manifest", RUNNING, ids=named)
def test_every_workload_is_hardened_limited_and_checked(manifest: Manifest) -> None:
    pod, one = manifest["spec"]["template"]["spec"], container(manifest)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert one["resources"]["limits"]["memory"]
    assert one["resources"]["requests"].keys() == {"cpu", "memory"}
    assert one["livenessProbe"]
    assert one.get("readinessProbe") or one.get("startupProbe")


@pytest.mark.parametrize("role", ["redis-queue", "redis-cache"])
def test_redis_settings_equal_those_of_compose(role: str) -> None:
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"][role]
    [here] = [container(manifest) for manifest in RUNNING if named(manifest) == role]
    theirs = {line.replace("$CACHE_MEMORY", "2gb") for line in settings_of_redis(composed["command"][-1])}
    assert here["image"] == composed["image"]
    assert settings_of_redis(here["args"][0]) == theirs | {"tcp-keepalive 15"}


def test_password_is_a_secret_in_the_environment_only() -> None:
    assert not manifests("Secret")
    for manifest in RUNNING:
        one = container(manifest)
        assert {"secretKeyRef": {"name": "redis", "key": "password"}} in [e.get("valueFrom") for e in one["env"]]
        assert "REDIS_PASSWORD" not in json.dumps([one.get("command"), one["args"]])


def test_every_setting_exists() -> None:
    known = {field.name.upper() for field in fields(Settings)}
    [generated] = KUSTOMIZATION["configMapGenerator"]
    configured = dict(literal.split("=", 1) for literal in generated["literals"])
    assert configured.keys() <= known
    assert Settings.from_environment(configured).max_trace_seconds <= 3600
    for manifest in RUNNING:
        if not named(manifest).startswith("redis"):
            assert {e["name"] for e in container(manifest)["env"]} - known == {"REDIS_PASSWORD"}


def test_workers_scale_by_all_queues_of_their_job_size() -> None:
    watched = {
        (one["spec"]["scaleTargetRef"]["name"], trigger["metadata"]["listName"])
        for one in manifests("ScaledObject")
        for trigger in one["spec"]["triggers"]
    }
    assert watched == {
        (f"worker-{size}", queue_key(name, Redis())) for size in JOB_SIZES for name in NAMES if f"-{size}-" in name
    }
    for one in manifests("ScaledObject"):
        assert one["spec"]["minReplicaCount"] >= 1  # without workers the API is not ready


def test_worker_has_time_to_finish_its_job() -> None:
    [large] = [one for one in RUNNING if named(one) == "worker-large"]
    [generated] = KUSTOMIZATION["configMapGenerator"]
    seconds = large["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert f"MAX_TRACE_SECONDS={seconds}" in generated["literals"]


def test_only_the_api_accepts_outside_connections() -> None:
    policies = {named(one): one["spec"] for one in manifests("NetworkPolicy")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = [
        name for name, spec in policies.items() if any("from" not in rule for rule in spec.get("ingress", []))
    ]
    assert open_to_all == ["api"]
    assert {one["spec"].get("type", "ClusterIP") for one in manifests("Service")} == {"ClusterIP"}


def test_kustomize_builds_the_manifests() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    ran = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
    built = [*yaml.safe_load_all(ran.stdout)]
    assert len(built) == len(manifests()) + 1  # the generated settings
    assert {one["metadata"].get("namespace", "cutaway") for one in built} == {"cutaway"}


def test_manifests_match_the_schemas_of_kubernetes() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate, whose schemas are 72 MB")
    for manifest in manifests():
        if not manifest["apiVersion"].startswith("keda.sh"):  # custom resources have other schemas
            validator.validate(manifest, "1.37", strict=True)
