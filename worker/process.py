"""Processes: ending with the parent, memory arenas, garbage collection."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
M_ARENA_MAX = -8  # glibc's

# Loaded here and not in the function: that one runs between fork and exec, where as little as possible should happen.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(sig: int, parent: int | None = None) -> None:
    """Ask the kernel to send `sig` to this process when its parent dies, however it dies. Does nothing off Linux.

    `parent` is the parent's pid from before the fork: with it, the death of a parent before this call is noticed, too.
    The setting survives exec, but forked children do not inherit it.
    """
    if sys.platform != "linux":
        return
    if _libc.prctl(PR_SET_PDEATHSIG, sig) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl: {os.strerror(errno)}")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sig)


def share_arenas(most: int) -> None:
    """Limit the memory arenas of this process; call it before there are threads. Does nothing without glibc.

    glibc gives nearly every thread an arena of its own, and free memory in one is of no use to another: where many
    threads take turns, as much lies idle as is used.
    """
    if hasattr(_libc, "gnu_get_libc_version"):
        _libc.mallopt(M_ARENA_MAX, most)


@contextmanager
def loading() -> Iterator[None]:
    """Load what lives as long as the process, without garbage collection then or later.

    Collection takes a third of the time of loading a web framework, as much again when the process exits, and in a
    forked process it copies the pages that it looks at.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
