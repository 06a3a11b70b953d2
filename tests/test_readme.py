"""The commands in README.md and docs/ print what the pages show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Servers, running_api, running_worker

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^```sh\n(?P<command>[^`]*?)```\n(?:\n```\n(?P<printed>[^`]*?)```\n)?", re.MULTILINE)
#: Commands that install, start the whole service, or need a network, a container engine, a cluster or a bucket.
ELSEWHERE = ("make ", "pip install ", "docker ", "kubectl ", "cutaway fetch", "cutaway worker")
VARIES = [
    ("id: [0-9]+-[0-9]+", "id: AT"),
    ('"request_id":"[0-9a-f]{32}"', '"request_id":"ID"'),
    ('"done":[0-9]+', '"done":LAYERS'),
]


def examples(page: Path) -> list[tuple[str, str]]:
    """The commands of a page, each with the output shown for it."""
    found = [(example["command"], example["printed"] or "") for example in EXAMPLE.finditer(page.read_text())]
    return [one for one in found if not any(word in one[0] for word in ELSEWHERE)]


#: A number with decimals, whole: not the beginning of one that an ellipsis cuts short.
DECIMALS = re.compile(r"(?<![\d.])-?\d+\.\d+(?:e[+-]?\d+)?(?![\d.…])")
CLOSE = 1e-5  # processors differ in the last digits of float32


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what is shown: numbers with decimals to CLOSE; an ellipsis stands for anything."""
    for varying, constant in VARIES:
        shown, printed = (re.sub(varying, constant, text) for text in (shown, printed))
    numbers = [float(number) for number in DECIMALS.findall(shown)]
    between = [".*".join(map(re.escape, text.split("…"))) for text in DECIMALS.split(shown)]
    found = re.fullmatch(r"(-?\d+\.\d+(?:e[+-]?\d+)?)".join(between), printed, re.DOTALL)
    return found is not None and [float(number) for number in found.groups()] == pytest.approx(numbers, rel=CLOSE)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ('{"data":[0.48545983,1.0]}', '{"data":[0.48545977,1.0]}', True),
        ('{"data":[0.48545983,1.0]}', '{"data":[0.4855,1.0]}', False),
        ('{"data":[0.48545983,1.0]}', '{"data":[0.48545983,-1.0]}', False),
        ("12728 bytes", "12729 bytes", False),
        ("0.99998… of all", "0.999981 of all", True),
        ("0.99998… of all", "0.99997 of all", False),
        ("data: {…}", "data: {anything}", True),
        ("v1.2.3", "v1.2.4", False),
    ],
)
def test_numbers_are_compared_as_numbers(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) == same


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_is_a_command_or_its_output(page: Path) -> None:
    others = r"^```(yaml\n|python\n>>> )[^`]*?```\n"  # tests/docs/test_python.py runs the second
    rest = re.sub(others, "", EXAMPLE.sub("", page.read_text()), flags=re.MULTILINE)
    assert "```" not in rest


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_commands_print_what_the_pages_show(idle_servers: Servers, tmp_path: Path) -> None:
    with running_worker(idle_servers), running_api(idle_servers, 1) as address:
        for page in PAGES:
            shown = examples(page)
            folder = tmp_path / page.stem
            folder.mkdir()
            printed = run([command for command, _ in shown], address, folder, idle_servers.environment)
            for (command, expected), got in zip(shown, printed, strict=True):
                assert matches(expected.strip(), got.strip()), f"{page.name}: {command}\n{got}\nexpected:\n{expected}"


def run(commands: list[str], address: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a page's commands in one shell, against the API at this address; return what each printed."""
    script = "echo \f\n".join(commands).replace("localhost:8000", address)
    script = re.sub(r"\.venv/bin/cutaway (\w+)", rf"{sys.executable} -m service \1 --url {address}", script)
    script = script.replace("examples/client.py", f"{ROOT}/examples/client.py {address}")
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout.split("\f\n") if commands else []
