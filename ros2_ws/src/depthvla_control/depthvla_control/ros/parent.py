"""Whether the process that started this one is gone. Nobody stops what it left behind, so that ends by itself."""

from __future__ import annotations

import os
import signal

LAUNCHER = "DEPTHVLA_LAUNCHER"  # set by a launcher for what it starts: its process id


class Parent:
    """A launcher is watched always, a shell unless SIGHUP is ignored: what nohup starts is to outlive it. Process 1 and
    systemd have no end to wait for.
    """

    def __init__(self) -> None:
        told = os.environ.get(LAUNCHER, "")
        launcher = int(told) if told.isdecimal() else None
        self._parent = os.getppid()
        by_launcher = launcher == self._parent
        self._launcher = launcher
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._watched = self._parent > 1 and (by_launcher or not outlives)

    @property
    def gone(self) -> bool:
        # A launcher may have put a wrapper between, and may have been killed before this process got here.
        launcher_gone = self._launcher is not None and not _exists(self._launcher)
        return launcher_gone or (self._watched and os.getppid() != self._parent)

    def __str__(self) -> str:
        return f"the end of the process that started it, {self._parent}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
