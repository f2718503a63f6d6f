"""A process whose ticks do not wait: real-time scheduling, resident memory, no long garbage collection."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # sys/mman.h; Python has no mlockall of its own


def enter(priority: int) -> bool:
    """Whether this process has the SCHED_FIFO `priority` now; 0 asks for none.

    Objects that exist now stay: without that a full collection would walk over all of them, during a tick.
    """
    gc.collect()
    gc.freeze()
    return not priority or _schedule(priority)


def leave(priority: int) -> None:
    """Takes back `enter(priority)`."""
    gc.unfreeze()
    if priority:
        _schedule(0)


def _schedule(priority: int) -> bool:
    """A tick must not wait for a training run on the same cores.

    All threads are scheduled so, else the control thread would wait for locks that a starved middleware thread holds.
    Memory stays resident where the user may have that, else a tick would wait for pages that were given to others.
    """
    libc = ctypes.CDLL(None)
    if priority:
        libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    else:
        libc.munlockall()
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    try:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setscheduler(int(thread), policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return False
    return True
