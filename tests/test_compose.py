"""docker-compose.yml: what it promises, and with `make test-compose` the whole of it on a real engine."""

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
    """What `docker compose` prints."""
    command = [DOCKER, "compose", "--project-name", "cutaway-test", "--project-directory", str(ROOT), *arguments]
    environment = os.environ | PASSWORD | {"PORT": str(PORT), "COMPOSE_PROGRESS": "quiet"} | variables
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(arguments)}: {ran.stderr}"
    return ran.stdout


def there_is(*command: str) -> bool:
    return DOCKER != "" and subprocess.run([DOCKER, *command], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as compose understands them."""
    if not there_is("compose", "version"):
        pytest.skip("there is no docker client with compose here")
    found: dict[str, Any] = json.loads(compose("config", "--format", "json"))["services"]
    return found


def test_every_service_is_hardened_bounded_watched_and_restarted(services: dict[str, Any]) -> None:
    assert services.keys() == {"api", "worker", "redis-queue", "redis-cache"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["mem_limit"]) > 0
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_only_the_api_is_published_and_only_to_this_machine(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published.keys() == {"api"}
    assert [port["host_ip"] for port in published["api"]] == ["127.0.0.1"]


def test_the_password_is_in_the_environment_and_in_no_command(services: dict[str, Any]) -> None:
    for service in services.values():
        assert "s3cret" in json.dumps(service["environment"])
        assert "s3cret" not in json.dumps([service["command"], service["healthcheck"]])


def documented() -> set[str]:
    """The variables that docs/settings.md and docs/deploying.md describe."""
    rows = [row.split("|")[1] for row in (ROOT / "docs/settings.md").read_text().splitlines() if row.startswith("| `")]
    deploying = re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", (ROOT / "docs/deploying.md").read_text())
    return {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)`", row)} | {*deploying}


#: Settings that are said otherwise here, and why.
OTHERWISE = {
    "HOST": "a container listens to all that reach it: BIND says where it is published",
    "PORT": "the port outside; inside it is always the same",
    "QUEUE_URL": "compose brings both Redis with it",
    "CACHE_URL": "compose brings both Redis with it",
    "CACHE_MEMORY": "goes to redis-cache",
    "MODELS_DIR": "the folder outside, which is mounted",
    "API_KEYS_FILE": "the file outside, which is a secret",
}


def test_whatever_can_be_set_reaches_the_containers_or_is_said_otherwise() -> None:
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {"MAX_WAITS", "AWS_ALLOW_HTTP", "THREADS"} <= documented()
    of_all = {field.name.upper() for field in fields(worker.settings.Settings)}
    of_api = {field.name.upper() for field in fields(Settings)} | {"WEB_CONCURRENCY", "THREADS"}
    for service, wanted in (("worker", documented() - of_api | of_all), ("api", documented() | of_api)):
        given = described[service]["environment"]
        for name in wanted - OTHERWISE.keys():
            assert name in given, f"{name} does not reach {service}"
            assert given[name] is None or given[name].startswith(f"${{{name}:-")


def test_what_is_set_reaches_them_as_it_is_and_what_is_not_has_its_default(tmp_path: Path) -> None:
    if not there_is("compose", "version"):
        pytest.skip("there is no docker client with compose here")
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
    """Everything up and healthy, with a password; nothing of it is left afterwards."""
    if not there_is("info"):
        pytest.skip("there is no docker engine here")
    try:
        compose("up", "--detach", "--build", "--wait")
        yield
    finally:
        compose("down", "--volumes", "--timeout", "30")


def ask(method: str, path: str, body: dict[str, Any] | None = None, wait: int = 0) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Prefer": f"wait={wait}"},
    )
    with urllib.request.urlopen(request, timeout=wait + 30) as answer:  # noqa: S310 - our own address
        found: dict[str, Any] = json.load(answer)
        return found


def containers(service: str) -> list[str]:
    return compose("ps", "--quiet", service).split()


@pytest.mark.compose
@pytest.mark.usefixtures("running")
def test_it_comes_up_traces_scales_survives_a_killed_worker_and_leaves_nothing() -> None:
    first = ask("POST", "/v1/traces", NANO, wait=30)
    assert (first["status"], first["output"]) == ("done", "ABBBCC")
    for path, part in (("/", "<title>Cutaway"), ("/docs", "Cutaway"), ("/openapi.yaml", "openapi: 3.1")):
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=30) as page:
            assert part in page.read().decode()  # nothing that is read at run time was left out of the image
    identity = compose("exec", "--no-TTY", "worker", "id", "--user").strip()
    assert identity != "0"

    compose("up", "--detach", "--wait", "--scale", "worker=3")
    assert len(containers("worker")) == 3
    id = ask("POST", "/v1/traces", LONG)["id"]
    deadline = time.monotonic() + 60
    while ask("GET", f"/v1/traces/{id}")["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for container in containers("worker")[:2]:  # perhaps the one that runs it
        subprocess.run([DOCKER, "kill", container], check=True, capture_output=True)
    while (trace := ask("GET", f"/v1/traces/{id}", wait=30))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline + 120
    assert trace["status"] == "done"

    compose("restart", "redis-queue")  # what was asked for is on disk
    assert ask("GET", f"/v1/traces/{id}")["status"] == "done"
    assert ask("POST", "/v1/traces", NANO | {"text": "BCA", "generate": None}, wait=60)["status"] == "done"
