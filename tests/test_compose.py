"""docker-compose.yml: its configuration, and with `make test-compose` the running services."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import worker.settings
from service.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKER = shutil.which("docker") or ""
PASSWORD = {"REDIS_PASSWORD": "s3cret"}
PORT = 18473
NANO = {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}}
LONG = {
    "model": {"n_layer": 24, "n_head": 2, "n_embd": 256, "n_positions": 1024, "vocab_size": 1000},
    "tokens": [1, 2, 3],
    "generate": {"max_new_tokens": 1000},
    "capture": ["probs"],
}


def compose(*arguments: str, **variables: str) -> str:
    """Run `docker compose`; return its output."""
    command = [DOCKER, "compose", "--project-name", "cutaway-test", "--project-directory", str(ROOT), *arguments]
    environment = os.environ | PASSWORD | {"PORT": str(PORT), "COMPOSE_PROGRESS": "quiet"} | variables
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(arguments)}: {ran.stderr}"
    return ran.stdout


def available(*command: str) -> bool:
    return DOCKER != "" and subprocess.run([DOCKER, *command], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as parsed by Compose."""
    if not available("compose", "version"):
        pytest.skip("needs a Docker client with Compose")
    found: dict[str, Any] = json.loads(compose("config", "--format", "json"))["services"]
    return found


def test_every_service_is_hardened_limited_checked_and_restarted(services: dict[str, Any]) -> None:
    assert services.keys() == {"api", "worker", "redis-queue", "redis-cache"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["mem_limit"]) > 0
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_only_the_api_is_published_and_only_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published.keys() == {"api"}
    assert [port["host_ip"] for port in published["api"]] == ["127.0.0.1"]


def test_password_is_in_the_environment_and_not_in_commands(services: dict[str, Any]) -> None:
    for service in services.values():
        assert "s3cret" in json.dumps(service["environment"])
        assert "s3cret" not in json.dumps([service["command"], service["healthcheck"]])


def documented() -> set[str]:
    """Return the variables in docs/settings.md and docs/deploying.md."""
    rows = [row.split("|")[1] for row in (ROOT / "docs/settings.md").read_text().splitlines() if row.startswith("| `")]
    deploying = re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", (ROOT / "docs/deploying.md").read_text())
    return {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)`", row)} | {*deploying}


#: Settings that are configured differently in Compose, and how.
DIFFERENT = {
    "HOST": "a container listens on all addresses; BIND is the published one",
    "PORT": "the published port; the port in the container is fixed",
    "QUEUE_URL": "Compose runs both Redis servers",
    "CACHE_URL": "Compose runs both Redis servers",
    "CACHE_MEMORY": "a setting of redis-cache",
    "DATA_DIR": "the queue's data are a volume",
    "MODELS_DIR": "the folder on the host, which is mounted",
    "API_KEYS_FILE": "the file on the host, which is a secret",
}


def test_every_setting_is_passed_to_the_containers() -> None:
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {"MAX_WAITS", "AWS_ALLOW_HTTP", "THREADS"} <= documented()
    of_all = {field.name.upper() for field in fields(worker.settings.Settings)}
    of_api = {field.name.upper() for field in fields(Settings)} | {"WEB_CONCURRENCY", "THREADS"}
    for service, wanted in (("worker", documented() - of_api | of_all), ("api", documented() | of_api)):
        given = described[service]["environment"]
        for name in wanted - DIFFERENT.keys():
            assert name in given, f"{name} is not passed to {service}"
            assert given[name] is None or given[name].startswith(f"${{{name}:-")


def test_settings_are_passed_unchanged_and_others_keep_their_defaults(tmp_path: Path) -> None:
    if not available("compose", "version"):
        pytest.skip("needs a Docker client with Compose")
    keys = tmp_path / "keys"
    keys.write_text("ada:a-key-of-adas-own")
    of_api = {"MAX_WAITS": "7", "CORS_ORIGINS": "https://a.example", "API_KEYS_FILE": str(keys)}
    given = json.loads(compose("config", "--format", "json", **of_api, MAX_TRACE_BYTES="12345"))
    api, of_worker = (given["services"][name]["environment"] for name in ("api", "worker"))
    assert (api["MAX_WAITS"], api["CORS_ORIGINS"]) == ("7", "https://a.example")
    assert api["MAX_TRACE_BYTES"] == of_worker["MAX_TRACE_BYTES"] == "12345"
    assert api["MAX_STREAMS"] is None  # not set in the container
    assert [secret["source"] for secret in given["services"]["api"]["secrets"]] == ["api-keys"]
    assert (api["API_KEYS_FILE"], given["secrets"]["api-keys"]["file"]) == ("/run/secrets/api-keys", str(keys))
    without = json.loads(compose("config", "--format", "json"))
    assert without["services"]["api"]["environment"]["API_KEYS_FILE"] == ""


@pytest.fixture
def running() -> Iterator[None]:
    """Run all services until they are healthy, with a password; remove everything afterwards."""
    if not available("info"):
        pytest.skip("needs a Docker engine")
    try:
        compose("up", "--detach", "--build", "--wait")
        yield
    finally:
        compose("down", "--volumes", "--timeout", "30")


def call(method: str, path: str, body: dict[str, Any] | None = None, wait: int = 0) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Prefer": f"wait={wait}"},
    )
    with urllib.request.urlopen(request, timeout=wait + 30) as response:  # noqa: S310 - our own address
        found: dict[str, Any] = json.load(response)
        return found


def containers(service: str) -> list[str]:
    return compose("ps", "--quiet", service).split()


@pytest.mark.compose
@pytest.mark.usefixtures("running")
def test_services_start_compute_traces_scale_and_survive_killed_workers() -> None:
    first = call("POST", "/v1/traces", NANO, wait=30)
    assert (first["status"], first["output"]) == ("done", "ABBBCC")
    for path, part in (("/", "<title>Cutaway"), ("/docs", "Cutaway"), ("/openapi.yaml", "openapi: 3.1")):
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=30) as page:
            assert part in page.read().decode()  # the image contains all files read at run time
    identity = compose("exec", "--no-TTY", "worker", "id", "--user").strip()
    assert identity != "0"

    compose("up", "--detach", "--wait", "--scale", "worker=3")
    assert len(containers("worker")) == 3
    id = call("POST", "/v1/traces", LONG)["id"]
    deadline = time.monotonic() + 60
    while call("GET", f"/v1/traces/{id}")["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for container in containers("worker")[:2]:  # possibly the one that runs the job
        subprocess.run([DOCKER, "kill", container], check=True, capture_output=True)
    while (trace := call("GET", f"/v1/traces/{id}", wait=30))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline + 120
    assert trace["status"] == "done"

    compose("restart", "redis-queue")  # its data is on disk
    assert call("GET", f"/v1/traces/{id}")["status"] == "done"
    assert call("POST", "/v1/traces", NANO | {"text": "BCA", "generate": None}, wait=60)["status"] == "done"
