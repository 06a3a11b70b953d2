"""Fixtures of `cutaway fetch` and a stub hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.__main__ import main
from tests.hub import Run, Start, StubHub, running_hub


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def variables(hub: StubHub, models: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | {"HF_ENDPOINT": hub.url, "MODELS_DIR": str(models), "no_proxy": "*"}


@pytest.fixture
def run(variables: dict[str, str]) -> Run:
    """Run the command in this process."""
    cleared = {name: None for name in os.environ if name.startswith("HF_")} | variables
    return lambda *words, **more: CliRunner().invoke(main, ["fetch", *words], env=cleared | more)


@pytest.fixture
def start(variables: dict[str, str]) -> Iterator[Start]:
    """Start the command in another process."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "service", "fetch", *words]
        if limit is not None:  # of file sizes, in bytes
            source = "import os, resource, sys; limit = int(sys.argv[1]); "
            source += "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"
            source += "; os.execv(sys.argv[2], sys.argv[2:])"
            command = [sys.executable, "-c", source, str(limit), *command]
        started.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
