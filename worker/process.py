"""Process settings: parent death signal, malloc arenas, garbage collection."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
M_ARENA_MAX = -8  # glibc's

# Loaded at import, as die_with_parent runs between fork and exec, where as little as possible should happen.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(sig: int, parent: int | None = None) -> None:
    """Make the kernel send `sig` to this process when its parent dies. Does nothing on systems other than Linux.

    Pass as `parent` the pid of the parent from before the fork, to notice a parent that died before this call. The
    setting survives exec; forked children do not inherit it.
    """
    if sys.platform != "linux":
        return
    if _libc.prctl(PR_SET_PDEATHSIG, sig) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl: {os.strerror(errno)}")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sig)


def limit_arenas(count: int) -> None:
    """Limit the malloc arenas of this process. Call it before threads are started. Does nothing without glibc.

    glibc gives nearly every thread its own arena, and a thread cannot use free memory in the arena of another: with
    many threads that take turns, half of the memory would be idle.
    """
    if hasattr(_libc, "gnu_get_libc_version"):
        _libc.mallopt(M_ARENA_MAX, count)


@contextmanager
def loading() -> Iterator[None]:
    """Exclude objects that are created in the body from garbage collection, now and later.

    For imports and other long-lived objects. Collecting them takes a third of the time of loading a web framework, as
    much again at exit, and in a forked process it copies the pages that it visits.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
