"""What a process does about the process that started it."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1

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
