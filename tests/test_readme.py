"""What the README says that commands print, they print."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Servers, running_api, running_worker

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"^```sh\n(?P<command>[^`]*?)```\n(?:\n```\n(?P<printed>[^`]*?)```\n)?", re.MULTILINE)
#: What starts everything, asks the internet, or tells how far the machine has come in five seconds.
ELSEWHERE = ("make ", "docker ", "cutaway fetch", "progress")
VARIES = [
    ("id: [0-9]+-[0-9]+", "id: AT"),
    ('"request_id":"[0-9a-f]{32}"', '"request_id":"ID"'),
]


def examples() -> list[tuple[str, str]]:
    """The README's commands, and what it shows them to print."""
    found = [
        (example["command"], example["printed"] or "") for example in EXAMPLE.finditer((ROOT / "README.md").read_text())
    ]
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


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_readme_shows_what_its_commands_print(idle_servers: Servers, tmp_path: Path) -> None:
    shown = examples()
    with running_worker(idle_servers), running_api(idle_servers, 1) as address:
        script = "echo \f\n".join(command for command, _ in shown).replace("localhost:8000", address)
        script = re.sub(r"\.venv/bin/cutaway (\w+)", rf"{sys.executable} -m service \1 --url {address}", script)
        script = script.replace("examples/client.py", f"{ROOT}/examples/client.py {address}")
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            env=idle_servers.environment | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    printed = done.stdout.split("\f\n")
    for (command, expected), got in zip(shown, printed, strict=True):
        assert matches(expected.strip(), got.strip()), f"{command}\n{got}\nand the README says\n{expected}"
