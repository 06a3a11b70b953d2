"""What a process asks of Python."""

from __future__ import annotations

import gc

import worker.process as process


def test_among_what_is_loaded_no_garbage_is_looked_for_then_or_later() -> None:
    with process.loading():
        assert not gc.isenabled()
        loaded: list[object] = [[]]
    assert gc.isenabled()
    later: list[object] = [[]]
    watched = [id(one) for one in gc.get_objects()]
    assert (id(loaded) in watched, id(later) in watched) == (False, True)
