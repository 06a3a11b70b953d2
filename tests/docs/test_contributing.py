"""What contributors rely on: hooks, CI, the license and the changelog agree with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_commit_hooks_are_the_checks_of_make_lint() -> None:
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    checks = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    [repository] = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == checks
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_ci_runs_the_same_script_as_a_person() -> None:
    [job] = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    for step in job["steps"]:  # actions are pinned, like all else
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


def test_the_license_is_the_one_that_the_package_declares() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in read("LICENSE")
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_changelog_has_the_version() -> None:
    assert re.search(rf"^## {re.escape(PROJECT['version'])} - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
