"""A Python module as the foreground process of a pseudo-terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence

from ros_harness import SOURCE_PATHS

ICANON_ECHO = termios.ICANON | termios.ECHO


class Terminal:
    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave  # stays open, so that its settings can be read after the process's end
        self.settings = termios.tcgetattr(slave)
        # A session leader that opens a terminal gets it as its controlling one.
        shell = ["sh", "-c", 'exec "$@" <"$TERMINAL" >"$TERMINAL" 2>&1', "sh"]
        path = os.pathsep.join([*SOURCE_PATHS, os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path, "TERMINAL": os.ttyname(slave), "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [*shell, sys.executable, "-m", module, *arguments], env=env, start_new_session=True
        )
        self._written = bytearray()
        threading.Thread(target=self._read, args=(self._master,), daemon=True).start()

    def _read(self, master: int) -> None:
        try:
            while data := os.read(master, 4096):
                self._written += data
        except OSError:
            pass

    @property
    def text(self) -> str:
        return self._written.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def flags(self) -> int:
        return termios.tcgetattr(self._slave)[3] & ICANON_ECHO

    def set(self, settings: list) -> None:
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)

    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.settings

    def hang_up(self) -> None:
        os.close(self._slave)
        os.close(self._master)
        self._slave = self._master = None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self._slave, self._master):
            if descriptor is not None:
                os.close(descriptor)
