"""docker-compose.yml: what it promises, and with `make test-compose` the whole of it on a real engine."""

from __future__ import annotations

import json
import os
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


def compose(*arguments: str) -> str:
    """What `docker compose` prints."""
    command = [DOCKER, "compose", "--project-name", "cutaway-test", "--project-directory", str(ROOT), *arguments]
    environment = os.environ | PASSWORD | {"PORT": str(PORT), "COMPOSE_PROGRESS": "quiet"}
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


def test_the_bounds_of_the_api_are_set_from_the_environment_by_their_defaults() -> None:
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    given = described["api"]["environment"]
    bounds = {"API_KEYS", "RATE_LIMIT", "MAX_CONCURRENT", "MAX_QUEUED", "MAX_BATCH", "TRUSTED_PROXIES"}
    assert bounds <= given.keys()
    for name in given.keys() - described["worker"]["environment"].keys():
        default = next(field.default for field in fields(Settings) if field.name == name.lower())
        assert given[name] == f"${{{name}:-{default}}}"


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
