"""Lock files pin every requirement by version and hash, for any package index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]
VIEWER = "viewer/requirements.lock"  # of the image's build stage for the viewer
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;]+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")


def requirements(name: str) -> list[str]:
    """Return the requirements of a lock file with their options, without comments."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [requirement.strip() for requirement in re.split(r"\n(?=\S)", "\n".join(lines))]


@pytest.mark.parametrize(("name", "least"), [(LOCKS[0], 30), (LOCKS[1], 30), (VIEWER, 2)])
def test_every_requirement_has_one_version_and_hashes(name: str, least: int) -> None:
    found = requirements(name)
    assert len(found) >= least
    for requirement in found:
        assert _REQUIREMENT.fullmatch(requirement), requirement


@pytest.mark.parametrize("name", [*LOCKS, VIEWER])
def test_lock_files_contain_no_urls_or_paths(name: str) -> None:
    text = "\n".join(requirements(name))
    assert "://" not in (ROOT / name).read_text()
    assert not re.search(r"--index-url|--extra-index-url|--find-links|--trusted-host|file:|@ |\.whl|-e ", text)


def test_development_and_runtime_locks_have_the_same_versions() -> None:
    pinned = [{requirement.split(" ")[0] for requirement in requirements(name)} for name in LOCKS]
    names = [{pin.partition("==")[0] for pin in pins} for pins in pinned]
    assert {pin for pin in pinned[0] if pin.partition("==")[0] in names[1]} <= pinned[1]


def test_installs_from_lock_files_require_hashes() -> None:
    for name in ("Makefile", "Dockerfile"):
        installs = re.findall(r".*-r (?:requirements\S*\.lock)", (ROOT / name).read_text())
        assert installs
        assert all("--require-hashes" in line for line in installs)
