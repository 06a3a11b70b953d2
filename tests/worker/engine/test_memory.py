"""Aligned memory."""

from __future__ import annotations

import numpy as np
import pytest

from worker.engine.memory import aligned


@pytest.mark.parametrize("nbytes", [1, 63, 64, 1000, 1 << 20, (32 << 20) + 5])
def test_it_is_aligned_to_a_cache_line_and_has_the_requested_size(nbytes: int) -> None:
    memory = aligned(nbytes)
    assert (memory.nbytes, memory.ctypes.data % 64) == (nbytes, 0)
    memory[:] = 7  # all of it is there to be written
    assert int(memory.sum(dtype=np.int64)) == 7 * nbytes
