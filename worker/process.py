"""What a process asks of the system and of Python: to end with the process that started it, and to keep its memory."""

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

    `parent` is the parent's pid as it was before the fork: with it, a parent that died before we asked is noticed too.
    The wish is kept through exec but not passed on to forked children: each of them has to ask for itself.
    """
    if sys.platform != "linux":
        return
    if _libc.prctl(PR_SET_PDEATHSIG, sig) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl: {os.strerror(errno)}")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sig)


def share_arenas(most: int) -> None:
    """Have all threads of this process take memory from so many arenas; to be called before there are any.

    glibc gives nearly every thread one of its own, and what is free in one is of no use to another: where many threads
    take turns, as much again lies idle as is used. Does nothing where there is another C library.
    """
    if hasattr(_libc, "gnu_get_libc_version"):
        _libc.mallopt(M_ARENA_MAX, most)


@contextmanager
def loading() -> Iterator[None]:
    """Load what stays as long as this process: no garbage is looked for meanwhile, nor ever among what there is then.

    Looking takes a third of the time of loading a web framework, as much again when the process ends, and in a forked
    process it copies whatever it looks at.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
