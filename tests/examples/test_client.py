"""examples/client.py prints the sorted letters and the attention."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

CLIENT = Path(__file__).parents[2] / "examples" / "client.py"


def test_it_sorts_the_letters_and_prints_the_attention(address: str) -> None:
    ran = subprocess.run([sys.executable, CLIENT, address], capture_output=True, text=True, check=True, timeout=60)
    heading, *rows = ran.stdout.splitlines()
    assert heading.startswith("CBABBC sorted: ABBBCC.")
    pattern = np.array([[int(weight) for weight in row.split()] for row in rows])
    assert pattern.shape == (11, 11)
    assert np.all(np.triu(pattern, 1) == 0)
    assert np.all(np.abs(pattern.sum(axis=1) - 100) <= 5)  # each rounded to a percent
