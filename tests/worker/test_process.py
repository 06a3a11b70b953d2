"""Process settings."""

from __future__ import annotations

import gc

import worker.process as process


def test_loaded_objects_are_not_garbage_collected() -> None:
    with process.loading():
        assert not gc.isenabled()
        loaded: list[object] = [[]]
    assert gc.isenabled()
    later: list[object] = [[]]
    tracked = [id(found) for found in gc.get_objects()]
    assert (id(loaded) in tracked, id(later) in tracked) == (False, True)
