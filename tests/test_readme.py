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


def pattern(printed: str) -> re.Pattern[str]:
    """What fits what is shown: an ellipsis stands for anything."""
    for varying, constant in VARIES:
        printed = re.sub(varying, constant, printed)
    return re.compile(".*".join(map(re.escape, printed.split("…"))), re.DOTALL)


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
        for varying, constant in VARIES:
            got = re.sub(varying, constant, got)
        assert pattern(expected.strip()).fullmatch(got.strip()), f"{command}\n{got}\nand the README says\n{expected}"
